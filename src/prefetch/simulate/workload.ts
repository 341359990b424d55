import { ReplaybdError } from '../../base/errors.ts';
import { simulateLimits } from '../../base/limits.ts';
import { sortPositions } from '../../base/sort-positions.ts';
import { warmTimeUs, type Trace, type TracePlan } from '../../trace/trace.ts';

/** Of a unit: what the smallest prefetch request brings. */
export const UNIT_BYTES_MAX = 64 * 1024;

/** What a guest does, as columns: at one time of the warm axis it needs units [first, end), all of them. */
export interface Accesses {
  readonly count: number;
  readonly dueMs: Float64Array;
  readonly firstUnit: Uint32Array;
  readonly endUnit: Uint32Array;
}

/**
 * A trace as a simulation needs it: its plan cut into units, which arrive whole. Units are numbered in
 * the order of the plan; places are in order of blob and offset.
 *
 *   plan    |--- range 0 ---|- range 1 -|---- range 2 ----|
 *   units   |  0  |  1 |  2 |     3     |  4  |  5  |  6  |      accesses: ranges due at one time
 */
export interface Workload {
  readonly plan: TracePlan;
  readonly blobSizes: readonly number[];
  readonly count: number;
  /** Of all units. */
  readonly bytes: number;
  readonly blob: Uint16Array;
  readonly offset: Float64Array;
  readonly length: Uint32Array;
  /** By place: the unit, and its offset again, where a search finds it beside its neighbours. */
  readonly unitAt: Uint32Array;
  readonly offsetAt: Float64Array;
  /** By blob, and one more: its first place. */
  readonly firstPlace: Uint32Array;
  /** Units of metadata: they are the first ones, and opening the layers needs them. */
  readonly metadataUnits: number;
  readonly accesses: Accesses;
  /** In how many of the trace's runs a plan's range was needed. */
  readonly weight: Uint16Array;
}

/**
 * Prepares a trace. `unitBytesMax`, a power of two: no unit crosses a multiple of it. Throws
 * ERR_SIMULATE_PLAN for a trace without a plan, ERR_SIMULATE_LIMIT for one of too many bytes.
 */
export function makeWorkload(trace: Trace, unitBytesMax: number): Workload {
  const { plan, image } = trace;
  const { unitsMax, bytes } = measure(plan, unitBytesMax);
  const blob = new Uint16Array(unitsMax);
  const offset = new Float64Array(unitsMax);
  const length = new Uint32Array(unitsMax);
  const dueMs = new Float64Array(plan.count);
  const firstUnits = new Uint32Array(plan.count);
  const endUnits = new Uint32Array(plan.count);
  let count = 0;
  let accessCount = 0;
  let metadataUnits = 0;
  let firstUnit = 0;
  for (let i = 0; i < plan.count; i += 1) {
    const end = plan.offset[i] + plan.length[i];
    for (let at = plan.offset[i]; at < end;) {
      const next = Math.min(end, (Math.floor(at / unitBytesMax) + 1) * unitBytesMax);
      blob[count] = plan.blob[i];
      offset[count] = at;
      length[count] = next - at;
      count += 1;
      at = next;
    }
    const isLastOfAccess = i + 1 === plan.count || plan.dueUs[i + 1] !== plan.dueUs[i];
    if (plan.dueUs[i] === 0) {
      metadataUnits = count;
      firstUnit = count;
    } else if (isLastOfAccess) {
      dueMs[accessCount] = plan.dueUs[i] / 1000;
      firstUnits[accessCount] = firstUnit;
      endUnits[accessCount] = count;
      accessCount += 1;
      firstUnit = count;
    }
  }
  return {
    plan,
    blobSizes: image.layers.map((layer) => layer.sizeBytes),
    ...{ count, bytes, blob, offset, length, metadataUnits },
    ...placesOf({ count, blob, offset }, image.layers.length),
    accesses: { count: accessCount, dueMs, firstUnit: firstUnits, endUnit: endUnits },
    weight: planWeights(trace),
  };
}

/** The first place of a blob's units that begin at an offset or behind it. */
export function placeFrom(workload: Workload, blob: number, offset: number): number {
  const { offsetAt, firstPlace } = workload;
  let low = firstPlace[blob];
  let high = firstPlace[blob + 1];
  while (low < high) {
    const middle = (low + high) >>> 1;
    if (offsetAt[middle] < offset) low = middle + 1;
    else high = middle;
  }
  return low;
}

/** Units in order of blob and offset; of one place, as they are numbered. */
function placesOf(
  { count, blob, offset }: Pick<Workload, 'count' | 'blob' | 'offset'>,
  blobs: number,
): Pick<Workload, 'unitAt' | 'offsetAt' | 'firstPlace'> {
  const firstPlace = new Uint32Array(blobs + 1);
  for (let unit = 0; unit < count; unit += 1) firstPlace[blob[unit] + 1] += 1;
  for (let i = 0; i < blobs; i += 1) firstPlace[i + 1] += firstPlace[i];
  const next = firstPlace.slice();
  const unitAt = new Uint32Array(count);
  for (let unit = 0; unit < count; unit += 1) {
    unitAt[next[blob[unit]]] = unit;
    next[blob[unit]] += 1;
  }
  for (let i = 0; i < blobs; i += 1) {
    const units = unitAt.subarray(firstPlace[i], firstPlace[i + 1]);
    sortPositions(units, count, (unit) => offset[unit]);
  }
  const offsetAt = new Float64Array(count);
  for (let place = 0; place < count; place += 1) offsetAt[place] = offset[unitAt[place]];
  return { unitAt, offsetAt, firstPlace };
}

/** How many units a plan comes to, at most, and how many bytes. */
function measure(plan: TracePlan, unitBytesMax: number): { unitsMax: number; bytes: number } {
  if (plan.count === 0) {
    throw new ReplaybdError(
      'ERR_SIMULATE_PLAN',
      'the trace has no plan, so nobody knows which bytes its accesses need. Record it again, with ' +
        'fewer accesses.',
    );
  }
  let unitsMax = 0;
  let bytes = 0;
  for (let i = 0; i < plan.count; i += 1) {
    bytes += plan.length[i];
    unitsMax += Math.ceil(plan.length[i] / unitBytesMax) + 1;
  }
  if (bytes <= simulateLimits.planBytesMax) return { unitsMax, bytes };
  const found = `${bytes} bytes, expected at most ${simulateLimits.planBytesMax}`;
  throw new ReplaybdError('ERR_SIMULATE_LIMIT', `the trace's plan has ${found}`);
}

/** A range has the greatest weight of the records that came when it was due, from its layer. */
function planWeights({ plan, records, image }: Trace): Uint16Array {
  const weights = new Uint16Array(plan.count);
  const byLayer = new Uint16Array(image.layers.length);
  let record = 0;
  for (let i = 0; i < plan.count; i += 1) {
    if (i === 0 || plan.dueUs[i] !== plan.dueUs[i - 1]) {
      byLayer.fill(1);
      while (record < records.count && warmTimeUs(records, record) <= plan.dueUs[i]) {
        const layer = records.layer[record];
        const isNow = warmTimeUs(records, record) === plan.dueUs[i];
        if (isNow) byLayer[layer] = Math.max(byLayer[layer], records.weight[record]);
        record += 1;
      }
    }
    weights[i] = byLayer[plan.blob[i]];
  }
  return weights;
}
