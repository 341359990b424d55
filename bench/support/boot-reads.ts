import { SECTOR_BYTES } from '../../src/base/limits.ts';
import type { ListedRead } from '../../src/daemon/read-list.ts';
import type { StackMap } from '../../src/image/stack-map.ts';

const KIB = 1024;
const BLOCK_BYTES = 4 * KIB;
/** The kernel's read-ahead on a block device. */
const READ_AHEAD_BYTES = 128 * KIB;
const RUN_BYTES_MIN = 16 * KIB;
const RUN_BYTES_MAX = 768 * KIB;
/** Of all steps, those that read one block of metadata rather than a file. */
const METADATA_SHARE = 0.65;
/** Of the files, those that lie near the last one read of their layer. */
const NEAR_SHARE = 0.6;
const SKIP_BYTES_MAX = 192 * KIB;
/** A small piece of a layer is most likely metadata: directories, inodes, bitmaps. */
const METADATA_BYTES_MAX = 64 * KIB;

interface Piece {
  offset: number;
  length: number;
}

/** Random numbers in [0, 1), the same for the same seed (Numerical Recipes' generator). */
export function randomOf(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return state / 2 ** 32;
  };
}

/**
 * Reads as a boot issues them: single blocks of metadata, and files in read-ahead steps, some of
 * them neighbours, spread over all layers; no block is read twice. `totalBytes`: of the disk.
 */
export function bootReads(map: StackMap, totalBytes: number, seed: number): ListedRead[] {
  const next = randomOf(seed);
  const layers = map.layers.map((_, layer) => piecesOf(map, layer));
  const last: (number | null)[] = layers.map(() => null);
  const seen = new Set<number>();
  const reads: ListedRead[] = [];
  let bytes = 0;
  const issue = (offset: number, length: number): void => {
    const blocks = Array.from({ length: length / BLOCK_BYTES }, (_, i) => offset / BLOCK_BYTES + i);
    if (length === 0 || blocks.some((block) => seen.has(block))) return;
    for (const block of blocks) seen.add(block);
    reads.push({ offset, length, thinkUs: 0 });
    bytes += length;
  };
  for (let step = 0; bytes < totalBytes && step < 100_000; step += 1) {
    const layer = Math.floor(next() * layers.length);
    const { metadata, files } = layers[layer];
    if (next() < METADATA_SHARE && metadata.length > 0) {
      const piece = metadata[Math.floor(next() * metadata.length)];
      issue(aligned(piece.offset + next() * (piece.length - BLOCK_BYTES)), BLOCK_BYTES);
      continue;
    }
    const near = last[layer];
    const piece = files[Math.floor(next() * files.length)];
    const isNear = near !== null && next() < NEAR_SHARE;
    const start = isNear
      ? aligned(near + next() * SKIP_BYTES_MAX)
      : aligned(piece.offset + next() * piece.length);
    const wanted = RUN_BYTES_MIN * (RUN_BYTES_MAX / RUN_BYTES_MIN) ** next();
    const end = Math.min(aligned(start + wanted), aligned(map.virtualSizeBytes));
    for (let at = start; at < end; at += READ_AHEAD_BYTES) {
      issue(at, Math.min(READ_AHEAD_BYTES, end - at));
    }
    last[layer] = end;
  }
  return reads;
}

/** Reads of 4 to 64 KiB that touch no block near those of `reads`, with pauses between them. */
export function otherReads(
  map: StackMap,
  reads: readonly ListedRead[],
  count: number,
  seed: number,
): ListedRead[] {
  const next = randomOf(seed);
  const taken = new Set<number>();
  const zone = (offset: number): number => Math.floor(offset / (256 * KIB));
  for (const { offset, length } of reads) {
    for (let at = zone(offset) - 1; at <= zone(offset + length) + 1; at += 1) taken.add(at);
  }
  const files = map.layers.flatMap((_, layer) => piecesOf(map, layer).files);
  const others: ListedRead[] = [];
  for (let attempt = 0; others.length < count && attempt < 100 * count; attempt += 1) {
    const piece = files[Math.floor(next() * files.length)];
    const offset = aligned(piece.offset + next() * (piece.length - 64 * KIB));
    if (taken.has(zone(offset)) || taken.has(zone(offset + 64 * KIB))) continue;
    for (let at = zone(offset) - 1; at <= zone(offset) + 1; at += 1) taken.add(at);
    const length = BLOCK_BYTES * 2 ** Math.floor(next() * 5);
    others.push({ offset, length, thinkUs: 20_000 + Math.floor(next() * 10_000) });
  }
  return others;
}

/** Where a layer serves the disk, told apart by how long the pieces are. */
function piecesOf(map: StackMap, layer: number): { metadata: Piece[]; files: Piece[] } {
  const { index } = map;
  const metadata: Piece[] = [];
  const files: Piece[] = [];
  for (let i = 0; i < index.segmentCount; i += 1) {
    if (index.layer[i] !== layer) continue;
    const length = index.sectors[i] * SECTOR_BYTES;
    const piece = { offset: index.start[i] * SECTOR_BYTES, length };
    if (length >= BLOCK_BYTES) (length <= METADATA_BYTES_MAX ? metadata : files).push(piece);
  }
  return { metadata, files: files.length > 0 ? files : metadata };
}

function aligned(offset: number): number {
  return Math.floor(offset / BLOCK_BYTES) * BLOCK_BYTES;
}
