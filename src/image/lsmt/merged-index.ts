import { lsmtLimits, SECTOR_BYTES } from '../../base/limits.ts';
import { ReplaybdError } from '../../base/errors.ts';
import { ZERO_LAYER, type MergedIndexMap } from '../stack-map.ts';
import type { LsmtEntryColumns } from './index-entries.ts';
import { overlay, segmentsOfEntries, type Segments } from './overlay.ts';

/** Two buckets a segment keep most lookups to one comparison. */
const BUCKETS_PER_SEGMENT = 2;
const BUCKETS_MAX = 2 ** 26;

/**
 * Merges layers, bottom first, into one index: for every sector the topmost layer that has it wins,
 * zeroed entries included. What lies beyond `virtualSizeBytes` is dropped. Neighbours that read the
 * same way as one are joined. ERR_LSMT_SEGMENTS when the result would be too large.
 */
export function mergeLayers(
  layers: readonly LsmtEntryColumns[],
  virtualSizeBytes: number,
): MergedIndexMap {
  const sectorEnd = Math.floor(virtualSizeBytes / SECTOR_BYTES);
  let level = layers.map((layer, number) => segmentsOfEntries(layer, number, sectorEnd));
  // Overlaying neighbours pairwise is associative, and looks at a segment log2(layers) times only.
  while (level.length > 1) {
    const next: Segments[] = [];
    for (let i = 0; i < level.length; i += 2) {
      next.push(i + 1 < level.length ? overlay(level[i], level[i + 1]) : level[i]);
    }
    level = next;
  }
  const [merged] = level;
  return merged === undefined ? emptyIndex() : share(merged);
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

function share(segments: Segments): MergedIndexMap {
  const { count } = segments;
  if (count > lsmtLimits.mergedSegmentsMax) {
    throw new ReplaybdError(
      'ERR_LSMT_SEGMENTS',
      `merged index: expected at most ${lsmtLimits.mergedSegmentsMax} segments, found ${count}. ` +
        'Merge the layers of the image into fewer.',
    );
  }
  if (count === 0) return emptyIndex();
  const start = new Float64Array(new SharedArrayBuffer(count * 8));
  const sectors = new Uint32Array(new SharedArrayBuffer(count * 4));
  const mapped = new Float64Array(new SharedArrayBuffer(count * 8));
  const layer = new Uint16Array(new SharedArrayBuffer(count * 2));
  start.set(segments.start.subarray(0, count));
  sectors.set(segments.sectors.subarray(0, count));
  mapped.set(segments.mapped.subarray(0, count));
  layer.set(segments.layer.subarray(0, count));
  const lbaEnd = start[count - 1] + sectors[count - 1];
  const bucketSectors = chooseBucketSectors(count, lbaEnd);
  const radix = buildRadix(start, sectors, lbaEnd, bucketSectors);
  return { segmentCount: count, start, sectors, mapped, layer, radix, bucketSectors };
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
