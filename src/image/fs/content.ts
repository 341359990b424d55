import { fsReadLimits } from '../../base/limits.ts';
import type { Disk } from './disk.ts';
import { damagedFs, fsTooLarge, type FileExtent } from './file-system.ts';

/** Reads [offset, offset + length) of a disk; ERR_FS_DAMAGED where that lies behind its end. */
export async function readMetadata(
  disk: Disk,
  offset: number,
  length: number,
  structure: string,
): Promise<Buffer> {
  if (!(offset >= 0 && offset + length <= disk.sizeBytes)) {
    throw damagedFs(disk, structure, `bytes of a disk of ${disk.sizeBytes}`, `byte ${offset}`);
  }
  const bytes = await disk.read(offset, length);
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length);
}

/** Extents in the order in which they are found; neighbours become one. */
export class ExtentList {
  readonly extents: { fileOffset: number; offset: number; length: number }[] = [];
  readonly #disk: Disk;
  readonly #structure: string;

  constructor(disk: Disk, structure: string) {
    this.#disk = disk;
    this.#structure = structure;
  }

  /** ERR_FS_DAMAGED for what lies behind the disk's end. */
  add(fileOffset: number, offset: number, length: number): void {
    if (length <= 0) return;
    if (offset + length > this.#disk.sizeBytes) {
      const expected = `data on a disk of ${this.#disk.sizeBytes} bytes`;
      throw damagedFs(this.#disk, this.#structure, expected, `${length} bytes at ${offset}`);
    }
    const last = this.extents.at(-1);
    const goesOn =
      last !== undefined &&
      last.fileOffset + last.length === fileOffset &&
      last.offset + last.length === offset;
    if (goesOn) {
      last.length += length;
      return;
    }
    if (this.extents.length >= fsReadLimits.extentsMax) {
      throw fsTooLarge(this.#disk, `${this.#structure}: extents`, fsReadLimits.extentsMax);
    }
    this.extents.push({ fileOffset, offset, length });
  }
}

/** A directory's blocks, in order; the last may be shorter. */
export async function* blocksOf(
  disk: Disk,
  extents: readonly FileExtent[],
  blockBytes: number,
  structure: string,
): AsyncGenerator<Buffer, void, undefined> {
  const total = extents.reduce((sum, { length }) => sum + length, 0);
  if (total > fsReadLimits.directoryBytesMax) {
    throw fsTooLarge(disk, `${structure}: bytes`, fsReadLimits.directoryBytesMax);
  }
  for (const { offset, length } of extents) {
    for (let at = 0; at < length; at += blockBytes) {
      yield await readMetadata(disk, offset + at, Math.min(blockBytes, length - at), structure);
    }
  }
}

/** A small file's whole content, e.g. a link's target; holes are zeros. */
export async function readContent(
  disk: Disk,
  extents: readonly FileExtent[],
  sizeBytes: number,
  structure: string,
): Promise<Buffer> {
  if (sizeBytes > fsReadLimits.linkBytesMax) {
    throw fsTooLarge(disk, `${structure}: bytes`, fsReadLimits.linkBytesMax);
  }
  const content = Buffer.alloc(sizeBytes);
  for (const { fileOffset, offset, length } of extents) {
    if (fileOffset >= sizeBytes) continue;
    const part = await readMetadata(disk, offset, Math.min(length, sizeBytes), structure);
    part.copy(content, fileOffset);
  }
  return content;
}
