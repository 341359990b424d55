import { closeSync, constants, fstatSync, openSync, readSync } from 'node:fs';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { EXT4_BLOCK_BYTES, type FileExtent } from '../../../native/ext2fs.ts';
import { nextDataRange } from '../../../native/sparse-file.ts';
import { rangeEnd, type ByteRange } from '../../base/range.ts';
import { BlockPlacer, type BlockTarget } from './block-placer.ts';
import { reading, sourceError, type SourceEntry } from './source-tree.ts';

const CHUNK_BYTES = 1024 * 1024;

/** Where a copy goes, and who hears of it. */
export interface CopyTarget extends BlockTarget {
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
export async function copyContent(entry: SourceEntry, target: CopyTarget): Promise<FileExtent[]> {
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
