import { ReplaybdError } from '../../base/errors.ts';
import { simulateLimits } from '../../base/limits.ts';
import { warmTimeUs, type Trace, type TracePlan } from '../../trace/trace.ts';

/** What a guest does at one time of the warm axis: units [first, end), all of which it needs. */
export interface Access {
  readonly dueMs: number;
  readonly firstUnit: number;
  readonly endUnit: number;
}

/**
 * A trace as a simulation needs it: its plan cut into units, which arrive whole. Units are numbered in
 * the order of the plan; `byPlace` has them in order of blob and offset.
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
  readonly byPlace: Uint32Array;
  /** Units of metadata: they are the first ones, and opening the layers needs them. */
  readonly metadataUnits: number;
  readonly accesses: readonly Access[];
  /** In how many of the trace's runs a plan's range was needed. */
  readonly weight: Uint16Array;
}

/**
 * Prepares a trace. `unitBytesMax`, a power of two: no unit crosses a multiple of it. Throws
 * ERR_SIMULATE_PLAN for a trace without a plan, ERR_SIMULATE_LIMIT for one of too many bytes.
 */
export function makeWorkload(trace: Trace, unitBytesMax: number): Workload {
  const { plan, image } = trace;
  const unitsMax = countUnits(plan, unitBytesMax);
  const blob = new Uint16Array(unitsMax);
  const offset = new Float64Array(unitsMax);
  const length = new Uint32Array(unitsMax);
  const accesses: Access[] = [];
  let count = 0;
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
      accesses.push({ dueMs: plan.dueUs[i] / 1000, firstUnit, endUnit: count });
      firstUnit = count;
    }
  }
  return {
    plan,
    blobSizes: image.layers.map((layer) => layer.sizeBytes),
    bytes: plan.length.reduce((sum, bytes) => sum + bytes, 0),
    ...{ count, blob, offset, length, metadataUnits, accesses },
    byPlace: Uint32Array.from({ length: count }, (_, unit) => unit).sort(
      (a, b) => blob[a] - blob[b] || offset[a] - offset[b],
    ),
    weight: planWeights(trace),
  };
}

/** Calls back with every unit of a blob that begins in [start, end), in order. */
export function unitsIn(
  workload: Workload,
  blob: number,
  start: number,
  end: number,
  onUnit: (unit: number) => void,
): void {
  const { byPlace, blob: blobs, offset } = workload;
  let low = 0;
  let high = byPlace.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    const unit = byPlace[middle];
    if (blobs[unit] < blob || (blobs[unit] === blob && offset[unit] < start)) low = middle + 1;
    else high = middle;
  }
  for (let place = low; place < byPlace.length; place += 1) {
    const unit = byPlace[place];
    if (blobs[unit] !== blob || offset[unit] >= end) return;
    onUnit(unit);
  }
}

/** How many units a plan comes to, at most. */
function countUnits(plan: TracePlan, unitBytesMax: number): number {
  if (plan.count === 0) {
    throw new ReplaybdError(
      'ERR_SIMULATE_PLAN',
      'the trace has no plan, so nobody knows which bytes its accesses need. Record it again, with ' +
        'fewer accesses.',
    );
  }
  let units = 0;
  let bytes = 0;
  for (let i = 0; i < plan.count; i += 1) {
    bytes += plan.length[i];
    units += Math.ceil(plan.length[i] / unitBytesMax) + 1;
  }
  if (bytes <= simulateLimits.planBytesMax) return units;
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
