import { closeSync, constants, fstatSync, openSync, readSync, writeSync } from 'node:fs';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { EXT4_BLOCK_BYTES, type BlockRun, type FileExtent } from '../../../native/ext2fs.ts';
import { nextDataRange } from '../../../native/sparse-file.ts';
import { rangeEnd, type ByteRange } from '../../base/range.ts';
import { ext4Limits } from '../../base/limits.ts';
import { EXTENT_BLOCKS_MAX } from './inode.ts';
import { reading, sourceError, type SourceEntry } from './source-tree.ts';

/**
 * Holes are judged by content, so that they do not depend on how the source stores them: a run of
 * at least 16 blocks of zeros becomes a hole, and so do zeros at the end. Shorter runs are stored,
 * so that a file keeps few extents.
 */
const HOLE_BLOCKS_MIN = 16;
const CHUNK_BYTES = 1024 * 1024;
const ZERO_BLOCK = Buffer.alloc(EXT4_BLOCK_BYTES);
const SHORT_GAP = Buffer.alloc(HOLE_BLOCKS_MIN * EXT4_BLOCK_BYTES);

/** Where a file's content goes. */
export interface BlockTarget {
  /** Descriptor of the image. */
  fd: number;
  /** Takes `count` blocks, in as few runs as there are. */
  allocate(count: number): BlockRun[];
  /** Told of every piece that was copied. */
  copied(bytes: number): void;
  signal: AbortSignal | undefined;
}

/** An open source file, closed when its scope ends. */
export function openSource(entry: SourceEntry): Disposable & { fd: number } {
  const flags = constants.O_RDONLY | constants.O_NOFOLLOW;
  const fd = reading(entry.path, () => openSync(entry.path, flags));
  return { fd, [Symbol.dispose]: () => closeSync(fd) };
}

/** The stored parts of a file, widened to blocks, in order. */
export function* storedRanges(fd: number, entry: SourceEntry): Generator<ByteRange> {
  const { sizeBytes } = entry;
  if (!entry.hasHoles) {
    if (sizeBytes > 0) yield { offset: 0, length: sizeBytes };
    return;
  }
  let from = 0;
  while (from < sizeBytes) {
    const range = reading(entry.path, () => nextDataRange(fd, from, entry.path.toString()));
    if (range === null || range.offset >= sizeBytes) return;
    const offset = Math.max(from, range.offset - (range.offset % EXT4_BLOCK_BYTES));
    from = Math.min(Math.ceil(rangeEnd(range) / EXT4_BLOCK_BYTES) * EXT4_BLOCK_BYTES, sizeBytes);
    yield { offset, length: from - offset };
  }
}

/**
 * Copies a regular file's content and returns where it went.
 * Errors: ERR_EXT4_SOURCE (also when the file changes meanwhile), ERR_EXT4_FULL.
 */
export async function copyContent(entry: SourceEntry, target: BlockTarget): Promise<FileExtent[]> {
  if (entry.sizeBytes === 0) return [];
  using file = openSource(entry);
  const placer = new BlockPlacer(target);
  for (const range of storedRanges(file.fd, entry)) {
    for (let offset = range.offset; offset < rangeEnd(range); offset += CHUNK_BYTES) {
      const length = Math.min(CHUNK_BYTES, rangeEnd(range) - offset);
      placer.place(offset / EXT4_BLOCK_BYTES, readChunk(file.fd, entry, { offset, length }));
      target.copied(length);
      if (length === CHUNK_BYTES) await nextTurn();
      target.signal?.throwIfAborted();
    }
  }
  const now = reading(entry.path, () => fstatSync(file.fd, { bigint: true }));
  if (Number(now.size) !== entry.sizeBytes || now.mtimeNs !== entry.mtimeNs) {
    throw sourceError(entry.path, 'it changed while it was read');
  }
  return placer.extents;
}

/** Only one copy runs between two turns of the event loop, so all share a buffer. */
const chunk = Buffer.alloc(CHUNK_BYTES);

/** The range as whole blocks, its end filled up with zeros. */
function readChunk(fd: number, entry: SourceEntry, range: ByteRange): Buffer {
  let done = 0;
  while (done < range.length) {
    const position = range.offset + done;
    const count = reading(entry.path, () =>
      readSync(fd, chunk, done, range.length - done, position),
    );
    if (count === 0) throw sourceError(entry.path, 'it became shorter while it was read');
    done += count;
  }
  const padded = Math.ceil(range.length / EXT4_BLOCK_BYTES) * EXT4_BLOCK_BYTES;
  return chunk.fill(0, range.length, padded).subarray(0, padded);
}

/** Gives a file's blocks their places, in order, and leaves out its holes. */
class BlockPlacer {
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
      writeFully(
        this.#target.fd,
        bytes.subarray(done, done + length),
        run.block * EXT4_BLOCK_BYTES,
      );
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

/** Writes all of `bytes` at `position`. */
export function writeFully(fd: number, bytes: Uint8Array, position: number): void {
  let done = 0;
  while (done < bytes.length) {
    done += writeSync(fd, bytes, done, bytes.length - done, position + done);
  }
}
