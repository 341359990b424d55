import { readSync } from 'node:fs';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { nextDataRange } from '../../../native/sparse-file.ts';
import { SECTOR_BYTES } from '../../base/limits.ts';
import { rangeEnd, type ByteRange } from '../../base/range.ts';
import type { LsmtExtent } from '../lsmt/writer.ts';

/** Layers change in units of the file system's block. */
const BLOCK_BYTES = 4096;
const BLOCK_SECTORS = BLOCK_BYTES / SECTOR_BYTES;
const CHUNK_BYTES = 1024 * 1024;
const ZERO_BLOCK = Buffer.alloc(BLOCK_BYTES);

type BlockState = 'same' | 'zeroed' | 'data';

/** A disk in a sparse file. */
export interface DiskFile {
  fd: number;
  /** For messages. */
  path: string;
}

/**
 * What a layer must hold to turn `previous` (null: a disk of zeros) into `current`, in LBA order.
 * Data is only valid until the next extent is asked for. Both disks have `sizeBytes`, whole blocks.
 * Where it is known what may differ, `within` says so: whole blocks, in order, apart.
 */
export async function* changedExtents(
  current: DiskFile,
  previous: DiskFile | null,
  sizeBytes: number,
  signal?: AbortSignal,
  within?: Iterable<ByteRange>,
): AsyncGenerator<LsmtExtent> {
  const after = Buffer.alloc(CHUNK_BYTES);
  const before = Buffer.alloc(CHUNK_BYTES);
  const chunks =
    within === undefined ? storedChunks(current, previous, sizeBytes) : chunksOf(within);
  for (const { offset, length } of chunks) {
    signal?.throwIfAborted();
    await nextTurn();
    readDisk(current, after, offset, length);
    if (previous !== null) readSparsely(previous, before, offset, length);
    yield* compareChunk(after.subarray(0, length), before.subarray(0, length), offset);
  }
}

function* storedChunks(
  current: DiskFile,
  previous: DiskFile | null,
  sizeBytes: number,
): Generator<ByteRange> {
  let offset = nextStored(current, previous, 0);
  while (offset < sizeBytes) {
    const length = Math.min(CHUNK_BYTES, sizeBytes - offset);
    yield { offset, length };
    offset = nextStored(current, previous, offset + length);
  }
}

function* chunksOf(ranges: Iterable<ByteRange>): Generator<ByteRange> {
  for (const range of ranges) {
    for (let offset = range.offset; offset < rangeEnd(range); offset += CHUNK_BYTES) {
      yield { offset, length: Math.min(CHUNK_BYTES, rangeEnd(range) - offset) };
    }
  }
}

/** The next byte, on a block boundary, that either disk stores. */
function nextStored(current: DiskFile, previous: DiskFile | null, from: number): number {
  const starts = [current, previous].map((disk) => {
    const range = disk === null ? null : nextDataRange(disk.fd, from, disk.path);
    return range?.offset ?? Number.POSITIVE_INFINITY;
  });
  const start = Math.min(...starts);
  return Math.max(from, Math.floor(start / BLOCK_BYTES) * BLOCK_BYTES);
}

/** What turns `before` into `after`, which are the disk's whole blocks from byte `offset`. */
export function* compareChunk(
  after: Buffer,
  before: Buffer,
  offset: number,
): Generator<LsmtExtent> {
  let runStart = 0;
  let runState: BlockState = 'same';
  for (let at = 0; at <= after.length; at += BLOCK_BYTES) {
    const state = at < after.length ? compareBlock(after, before, at) : null;
    if (state === runState) continue;
    const lba = (offset + runStart) / SECTOR_BYTES;
    const sectors = ((at - runStart) / BLOCK_BYTES) * BLOCK_SECTORS;
    if (runState === 'zeroed') yield { lba, sectors, zeroed: true };
    if (runState === 'data' && sectors > 0) {
      yield { lba, sectors, data: after.subarray(runStart, at) };
    }
    if (state === null) return;
    runStart = at;
    runState = state;
  }
}

function compareBlock(after: Buffer, before: Buffer, at: number): BlockState {
  const end = at + BLOCK_BYTES;
  if (after.compare(before, at, end, at, end) === 0) return 'same';
  return after.compare(ZERO_BLOCK, 0, BLOCK_BYTES, at, end) === 0 ? 'zeroed' : 'data';
}

/** As readDisk; what the disk does not store, it is not asked for. */
function readSparsely(disk: DiskFile, into: Buffer, offset: number, length: number): void {
  const stored = nextDataRange(disk.fd, offset, disk.path);
  if (stored !== null && stored.offset < offset + length) readDisk(disk, into, offset, length);
  else into.fill(0, 0, length);
}

/** Fills `into` from byte `offset` of a disk. */
export function readDisk(disk: DiskFile, into: Buffer, offset: number, length: number): void {
  let done = 0;
  while (done < length) {
    const count = readSync(disk.fd, into, done, length - done, offset + done);
    if (count === 0) throw new Error(`${disk.path}: shorter than its virtual size`);
    done += count;
  }
}
