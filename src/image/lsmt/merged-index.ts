import { lsmtLimits, SECTOR_BYTES } from '../../base/limits.ts';
import { ReplaybdError } from '../../base/errors.ts';
import { ZERO_LAYER, type MergedIndexMap } from '../stack-map.ts';
import type { LsmtEntryColumns } from './index-entries.ts';
import { overlayLayers, type Segments } from './overlay.ts';

/** Enough buckets that most lookups need at most one comparison. */
const BUCKETS_PER_SEGMENT = 4;
const BUCKETS_MAX = 2 ** 26;
/** About how long a joined segment may become. */
const JOINED_SECTORS_MAX = 2 ** 30;

/**
 * Merges layers, bottom first, into one index: for every sector the topmost layer that has it wins,
 * zeroed entries included. What lies beyond `virtualSizeBytes` is dropped. Neighbours that read the
 * same way as one are joined. ERR_LSMT_SEGMENTS when the result would be too large.
 */
export function mergeLayers(
  layers: readonly LsmtEntryColumns[],
  virtualSizeBytes: number,
): MergedIndexMap {
  const segments = overlayLayers(layers, Math.floor(virtualSizeBytes / SECTOR_BYTES));
  const count = countJoined(segments);
  if (count === 0) return emptyIndex();
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
  const { start, sectors, radix } = map;
  // Not a shift: a bucket's number fits 32 bits, an LBA does not.
  const bucket = Math.floor(lba / map.bucketSectors);
  if (bucket >= radix.length - 1) return map.segmentCount;
  let low = radix[bucket];
  let high = radix[bucket + 1];
  while (low < high) {
    const middle = (low + high) >>> 1;
    if (start[middle] + sectors[middle] > lba) high = middle;
    else low = middle + 1;
  }
  return low;
}

function emptyIndex(): MergedIndexMap {
  return {
    segmentCount: 0,
    start: new Float64Array(new SharedArrayBuffer(0)),
    sectors: new Uint32Array(new SharedArrayBuffer(0)),
    mapped: new Float64Array(new SharedArrayBuffer(0)),
    layer: new Uint16Array(new SharedArrayBuffer(0)),
    radix: new Int32Array(new SharedArrayBuffer(4)),
    bucketSectors: 1,
  };
}

/** Copies segments to shared columns, joined. */
function shareJoined(segments: Segments, count: number): MergedIndexMap {
  const start = new Float64Array(new SharedArrayBuffer(count * 8));
  const sectors = new Uint32Array(new SharedArrayBuffer(count * 4));
  const mapped = new Float64Array(new SharedArrayBuffer(count * 8));
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
  const lbaEnd = start[out] + sectors[out];
  const bucketSectors = chooseBucketSectors(count, lbaEnd);
  const radix = buildRadix(start, sectors, lbaEnd, bucketSectors);
  return { segmentCount: count, start, sectors, mapped, layer, radix, bucketSectors };
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
  // A new segment begins at every multiple of this, so that a joined length always fits 32 bits.
  if (start[at] % JOINED_SECTORS_MAX < sectors[before]) return false;
  if (zeroed[at] === 1) return true;
  return layer[before] === layer[at] && mapped[before] + sectors[before] === mapped[at];
}

/** The smallest power of two that covers all sectors with the buckets allowed. */
function chooseBucketSectors(segmentCount: number, lbaEnd: number): number {
  const bucketsMax = Math.min(segmentCount * BUCKETS_PER_SEGMENT, BUCKETS_MAX);
  let bucketSectors = 1;
  while (Math.ceil(lbaEnd / bucketSectors) > bucketsMax) bucketSectors *= 2;
  return bucketSectors;
}

/** One entry a bucket, and one beyond the last so that a bucket's candidates are [i, i + 1]. */
function buildRadix(
  start: Float64Array,
  sectors: Uint32Array,
  lbaEnd: number,
  bucketSectors: number,
): Int32Array<SharedArrayBuffer> {
  const bucketCount = Math.ceil(lbaEnd / bucketSectors);
  const radix = new Int32Array(new SharedArrayBuffer((bucketCount + 1) * 4));
  let segment = 0;
  for (let bucket = 0; bucket < bucketCount; bucket += 1) {
    const lba = bucket * bucketSectors;
    while (start[segment] + sectors[segment] <= lba) segment += 1;
    radix[bucket] = segment;
  }
  // The last bucket's first sector lies before lbaEnd, so every search above ends at a segment.
  radix[bucketCount] = start.length;
  return radix;
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
