import { nextDataRange } from '../../../native/sparse-file.ts';
import { SECTOR_BYTES } from '../../base/limits.ts';
import { compareChunk, readDisk, type DiskFile } from '../build/changed-extents.ts';
import type { ExportSource } from '../export.ts';
import { findSegment } from '../lsmt/merged-index.ts';
import type { LsmtExtent } from '../lsmt/writer.ts';

const CHUNK_BYTES = 1024 * 1024;

/**
 * What a layer must hold to turn the disk `before` into `after`, a sparse file of `sizeBytes`, whole
 * blocks of 4 KiB. A disk that ends earlier reads as zeros. Data is valid until the next extent is
 * asked for.
 */
export async function* diskChanges(
  before: ExportSource,
  after: DiskFile,
  sizeBytes: number,
  signal?: AbortSignal,
): AsyncGenerator<LsmtExtent> {
  const old = Buffer.alloc(CHUNK_BYTES);
  const now = Buffer.alloc(CHUNK_BYTES);
  for (let offset = 0; ;) {
    signal?.throwIfAborted();
    offset = Math.max(
      offset,
      chunkOf(Math.min(nextData(before, offset), nextStored(after, offset))),
    );
    if (offset >= sizeBytes) return;
    const length = Math.min(CHUNK_BYTES, sizeBytes - offset);
    readDisk(after, now, offset, length);
    const known = Math.max(0, Math.min(length, before.virtualSizeBytes - offset));
    await before.read(offset, old.subarray(0, known));
    old.fill(0, known, length);
    yield* compareChunk(now.subarray(0, length), old.subarray(0, length), offset);
    offset += length;
  }
}

function chunkOf(byte: number): number {
  return Math.floor(byte / CHUNK_BYTES) * CHUNK_BYTES;
}

function nextStored({ fd, path }: DiskFile, from: number): number {
  return nextDataRange(fd, from, path)?.offset ?? Infinity;
}

function nextData({ index }: ExportSource, from: number): number {
  const segment = findSegment(index, from / SECTOR_BYTES);
  if (segment === index.segmentCount) return Infinity;
  return Math.max(from, index.start[segment] * SECTOR_BYTES);
}
