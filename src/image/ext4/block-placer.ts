import { EXT4_BLOCK_BYTES, type BlockRun, type FileExtent } from '../../../native/ext2fs.ts';
import { ext4Limits } from '../../base/limits.ts';
import { EXTENT_BLOCKS_MAX } from './inode.ts';

/**
 * Holes are judged by content, so that they do not depend on how the source stores them: a run of
 * at least 16 blocks of zeros becomes a hole, and so do zeros at the end. Shorter runs are stored,
 * so that a file keeps few extents.
 */
const HOLE_BLOCKS_MIN = 16;
const ZERO_BLOCK = Buffer.alloc(EXT4_BLOCK_BYTES);
const SHORT_GAP = Buffer.alloc(HOLE_BLOCKS_MIN * EXT4_BLOCK_BYTES);

/** Where a file's content goes. */
export interface BlockTarget {
  /** Takes `count` blocks, in as few runs as there are. */
  allocate(count: number): BlockRun[];
  /** Writes whole blocks to the image. */
  write(position: number, bytes: Buffer): void;
}

/** Gives a file's blocks their places, in order, and leaves out its holes. */
export class BlockPlacer {
  readonly extents: FileExtent[] = [];
  readonly #target: BlockTarget;
  /** The file's block after the last one that was placed. */
  #end = 0;

  constructor(target: BlockTarget) {
    this.#target = target;
  }

  /** `bytes` are the file's blocks from `first` on. */
  place(first: number, bytes: Buffer): void {
    const count = bytes.length / EXT4_BLOCK_BYTES;
    let start = nextBlock(bytes, 0, false);
    while (start < count) {
      const gap = first + start - this.#end;
      if (gap < HOLE_BLOCKS_MIN) {
        // Of the gap, what lies in this chunk is written with the run.
        const earlier = Math.max(0, gap - start);
        this.#write(SHORT_GAP.subarray(0, earlier * EXT4_BLOCK_BYTES));
        start -= gap - earlier;
      }
      this.#end = first + start;
      const end = runEnd(bytes, start + 1);
      this.#write(bytes.subarray(start * EXT4_BLOCK_BYTES, end.block * EXT4_BLOCK_BYTES));
      start = end.next;
    }
  }

  #write(bytes: Buffer): void {
    let done = 0;
    for (const run of this.#target.allocate(bytes.length / EXT4_BLOCK_BYTES)) {
      const length = run.count * EXT4_BLOCK_BYTES;
      this.#target.write(run.block * EXT4_BLOCK_BYTES, bytes.subarray(done, done + length));
      addExtents(this.extents, { ...run, logical: this.#end });
      this.#end += run.count;
      done += length;
    }
  }
}

/** Where a run of stored blocks ends, short gaps included, and where the next one begins. */
function runEnd(bytes: Buffer, from: number): { block: number; next: number } {
  let block = nextBlock(bytes, from, true);
  let next = nextBlock(bytes, block, false);
  while (next - block < HOLE_BLOCKS_MIN && next < bytes.length / EXT4_BLOCK_BYTES) {
    block = nextBlock(bytes, next, true);
    next = nextBlock(bytes, block, false);
  }
  return { block, next };
}

/** The first block at or after `from` that is all zeros, or is not; the count when there is none. */
function nextBlock(bytes: Buffer, from: number, zero: boolean): number {
  const count = bytes.length / EXT4_BLOCK_BYTES;
  for (let block = from; block < count; block += 1) {
    const at = block * EXT4_BLOCK_BYTES;
    const isZero = bytes.compare(ZERO_BLOCK, 0, EXT4_BLOCK_BYTES, at, at + EXT4_BLOCK_BYTES) === 0;
    if (isZero === zero) return block;
  }
  return count;
}

/** Appends a piece, joined to the last one where both its sides continue it. */
export function addExtents(extents: FileExtent[], piece: FileExtent): void {
  const last = extents.at(-1);
  if (
    last !== undefined &&
    last.logical + last.count === piece.logical &&
    last.block + last.count === piece.block &&
    last.count + piece.count <= EXTENT_BLOCKS_MAX
  ) {
    last.count += piece.count;
    return;
  }
  if (extents.length === ext4Limits.fileExtentsMax) {
    throw new RangeError(`a file of more than ${ext4Limits.fileExtentsMax} extents`);
  }
  extents.push({ ...piece });
}
