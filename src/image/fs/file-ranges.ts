import type { ByteRange } from '../../base/range.ts';
import type { FileExtent, FsNode } from './file-system.ts';

/** An extent with the number of the file's bytes that it holds. */
export interface SizedExtent extends FileExtent {
  /** Bytes of the file; more than of the disk where it is compressed. */
  readonly fileLength: number;
}

/**
 * A node's extents with what each holds of the file. Of content in whole blocks, the last one goes on
 * to the block's end, as it is read.
 */
export async function sizedExtents(node: FsNode, blockBytes: number): Promise<SizedExtent[]> {
  const extents = await node.extents();
  return extents.map((extent, i) => {
    const { offset, length, fileOffset } = extent;
    if (node.isCompressed) {
      const next = i + 1 < extents.length ? extents[i + 1].fileOffset : node.sizeBytes;
      return { ...extent, fileLength: Math.max(0, next - fileOffset) };
    }
    const isInBlocks = offset % blockBytes === 0;
    const whole = isInBlocks ? Math.ceil(length / blockBytes) * blockBytes : length;
    return { ...extent, length: whole, fileLength: whole };
  });
}

/**
 * Where a part of a file lies on the disk, in the file's order; holes are left out. Of a compressed
 * file, all of each extent that holds some of it: nothing less can be unpacked.
 */
export function diskRangesOf(
  extents: readonly SizedExtent[],
  part: ByteRange,
  isCompressed: boolean,
): ByteRange[] {
  const partEnd = part.offset + part.length;
  const ranges: ByteRange[] = [];
  for (const { fileOffset, fileLength, offset, length } of extents) {
    const from = Math.max(part.offset, fileOffset);
    const to = Math.min(partEnd, fileOffset + fileLength);
    if (from >= to) continue;
    if (isCompressed) ranges.push({ offset, length });
    else ranges.push({ offset: offset + from - fileOffset, length: to - from });
  }
  return ranges;
}
