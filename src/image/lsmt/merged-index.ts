import { lsmtLimits, SECTOR_BYTES } from '../../base/limits.ts';
import { ReplaybdError } from '../../base/errors.ts';
import { ZERO_LAYER, type MergedIndexMap, type SectorColumn } from '../stack-map.ts';
import type { LsmtEntryColumns } from './index-entries.ts';
import { allocateSegments, overlayAll, overlayLayers, type Segments } from './overlay.ts';

/** Enough buckets that most searches end at the first segment they look at... */
const BUCKETS_PER_SEGMENT = 4;
/** ...but no more than a processor keeps close at hand, until segments are many more. */
const BUCKETS_CLOSE = 2 ** 19;
const SEGMENTS_PER_BUCKET_MAX = 2;
/** So many buckets are always fine: they keep a bucket's sectors within 16 bits up to 2 TiB. */
const BUCKETS_FREE = 2 ** 16;
const BUCKET_SECTORS_MAX = 2 ** 32;
/** What is shorter is searched from its start: processors predict that better than halving. */
const SCAN_MAX = 64;
/** An entry that reaches a multiple of this ends a joined segment: its length fits 16 bits. */
const JOINED_SECTORS = 2 ** 15;

/**
 * Merges layers, bottom first, into one index: for every sector the topmost layer that has it wins,
 * zeroed entries included. What lies beyond `virtualSizeBytes` is dropped. Neighbours that read the
 * same way as one are joined. ERR_LSMT_SEGMENTS when the result would be too large.
 */
export function mergeLayers(
  layers: readonly LsmtEntryColumns[],
  virtualSizeBytes: number,
): MergedIndexMap {
  return shareSegments(overlayLayers(layers, Math.floor(virtualSizeBytes / SECTOR_BYTES)));
}

/**
 * Lays one more layer over a merged index, without those that it was merged from. `number` is the
 * new layer's. ERR_LSMT_SEGMENTS.
 */
export function mergeOnto(
  map: MergedIndexMap,
  entries: LsmtEntryColumns,
  number: number,
): MergedIndexMap {
  const below = allocateSegments(map.segmentCount);
  below.count = map.segmentCount;
  below.start.set(map.start);
  below.sectors.set(map.sectors);
  below.mapped.set(map.mapped);
  below.layer.set(map.layer);
  below.zeroed.forEach((_, at, zeroed) => {
    zeroed[at] = map.layer[at] === ZERO_LAYER ? 1 : 0;
  });
  const { count, start, sectors, mapped, zeroed } = entries;
  const layer = new Uint16Array(count).fill(number);
  return shareSegments(overlayAll([below, { count, start, sectors, mapped, zeroed, layer }]));
}

function shareSegments(segments: Segments): MergedIndexMap {
  const count = countJoined(segments);
  if (count > lsmtLimits.mergedSegmentsMax) {
    throw new ReplaybdError(
      'ERR_LSMT_SEGMENTS',
      `merged index: expected at most ${lsmtLimits.mergedSegmentsMax} segments, found ${count}. ` +
        'Merge the layers of the image into fewer.',
    );
  }
  return shareJoined(segments, count);
}

/**
 * The first segment whose end lies beyond sector `lba`, `segmentCount` when there is none: the
 * segment that holds `lba`, or else the next one after it. Allocates nothing.
 */
export function findSegment(map: MergedIndexMap, lba: number): number {
  const { last, radix } = map;
  // Not a shift, as an LBA does not fit 32 bits; nor a division, which takes longer.
  const bucket = Math.floor(lba * map.bucketsPerSector);
  if (bucket >= radix.length - 1) return map.segmentCount;
  const sector = lba - bucket * map.bucketSectors;
  let at = radix[bucket];
  const end = radix[bucket + 1];
  if (end - at > SCAN_MAX) return bisect(last, at, end, sector);
  while (at < end && last[at] < sector) at += 1;
  return at;
}

/** The first of `last[from]` up to `last[to]` that is at least `sector`; `to` when none is. */
function bisect(last: Uint16Array | Uint32Array, from: number, to: number, sector: number): number {
  let low = from;
  let high = to;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if (last[middle] >= sector) high = middle;
    else low = middle + 1;
  }
  return low;
}

/** Copies segments to shared columns, joined. */
function shareJoined(segments: Segments, count: number): MergedIndexMap {
  const lbaEnd = endOfLast(segments);
  const bucketSectors = chooseBucketSectors(count, lbaEnd);
  const start = allocateSectorColumn(count, lbaEnd);
  const mapped = allocateSectorColumn(count, endOfMapped(segments));
  const sectors = new Uint16Array(new SharedArrayBuffer(count * 2));
  const layer = new Uint16Array(new SharedArrayBuffer(count * 2));
  let out = -1;
  for (let at = 0; at < segments.count; at += 1) {
    if (at > 0 && joins(segments, at)) {
      sectors[out] += segments.sectors[at];
      continue;
    }
    const isZeroed = segments.zeroed[at] === 1;
    out += 1;
    start[out] = segments.start[at];
    sectors[out] = segments.sectors[at];
    mapped[out] = isZeroed ? 0 : segments.mapped[at];
    layer[out] = isZeroed ? ZERO_LAYER : segments.layer[at];
  }
  const columns = { segmentCount: count, start, sectors, mapped, layer };
  const { last, radix } = buildRadix(start, sectors, lbaEnd, bucketSectors);
  return { ...columns, last, radix, bucketSectors, bucketsPerSector: 1 / bucketSectors };
}

function allocateSectorColumn(count: number, end: number): SectorColumn {
  return end <= 2 ** 32
    ? new Uint32Array(new SharedArrayBuffer(count * 4))
    : new Float64Array(new SharedArrayBuffer(count * 8));
}

function endOfLast({ count, start, sectors }: Segments): number {
  return count === 0 ? 0 : start[count - 1] + sectors[count - 1];
}

function endOfMapped({ count, mapped, zeroed }: Segments): number {
  let end = 0;
  for (let at = 0; at < count; at += 1) {
    if (zeroed[at] === 0 && mapped[at] >= end) end = mapped[at] + 1;
  }
  return end;
}

function countJoined(segments: Segments): number {
  let count = segments.count;
  for (let at = 1; at < segments.count; at += 1) {
    if (joins(segments, at)) count -= 1;
  }
  return count;
}

/** Whether segment `at` reads on where the one before it ends. */
function joins(segments: Segments, at: number): boolean {
  const { start, sectors, mapped, zeroed, layer } = segments;
  const before = at - 1;
  if (start[before] + sectors[before] !== start[at] || zeroed[before] !== zeroed[at]) return false;
  if (start[at] % JOINED_SECTORS < sectors[before]) return false;
  if (zeroed[at] === 1) return true;
  return layer[before] === layer[at] && mapped[before] + sectors[before] === mapped[at];
}

/** The smallest power of two that covers all sectors with the buckets allowed. */
function chooseBucketSectors(segmentCount: number, lbaEnd: number): number {
  const bucketsMax = Math.max(
    Math.min(segmentCount * BUCKETS_PER_SEGMENT, BUCKETS_CLOSE),
    segmentCount / SEGMENTS_PER_BUCKET_MAX,
  );
  const sectorsMax = lbaEnd <= BUCKETS_FREE * 2 ** 16 ? 2 ** 16 : BUCKET_SECTORS_MAX;
  let bucketSectors = 1;
  while (bucketSectors < sectorsMax && Math.ceil(lbaEnd / bucketSectors) > bucketsMax) {
    bucketSectors *= 2;
  }
  return bucketSectors;
}

function buildRadix(
  start: SectorColumn,
  sectors: Uint16Array,
  lbaEnd: number,
  bucketSectors: number,
): Pick<MergedIndexMap, 'last' | 'radix'> {
  const count = start.length;
  const bucketCount = Math.ceil(lbaEnd / bucketSectors);
  const radix = new Int32Array(new SharedArrayBuffer((bucketCount + 1) * 4));
  const last =
    bucketSectors <= 2 ** 16
      ? new Uint16Array(new SharedArrayBuffer(count * 2))
      : new Uint32Array(new SharedArrayBuffer(count * 4));
  let bucket = -1;
  for (let at = 0; at < count; at += 1) {
    const lastSector = start[at] + sectors[at] - 1;
    const ownBucket = Math.floor(lastSector / bucketSectors);
    while (bucket < ownBucket) radix[(bucket += 1)] = at;
    last[at] = lastSector - ownBucket * bucketSectors;
  }
  radix[bucketCount] = count;
  return { last, radix };
}

/** Sectors of the merged disk by what serves them; the rest, up to the virtual size, is holes. */
export interface MergedIndexSums {
  /** One number a layer, bottom first. */
  dataSectors: number[];
  zeroSectors: number;
}

/** Adds up a merged index. */
export function sumMergedIndex(map: MergedIndexMap, layerCount: number): MergedIndexSums {
  const dataSectors = new Array<number>(layerCount).fill(0);
  let zeroSectors = 0;
  for (let segment = 0; segment < map.segmentCount; segment += 1) {
    const layer = map.layer[segment];
    if (layer === ZERO_LAYER) zeroSectors += map.sectors[segment];
    else dataSectors[layer] += map.sectors[segment];
  }
  return { dataSectors, zeroSectors };
}
