import { GRANULE_BYTES, SECTOR_BYTES, traceLabLimits } from '../base/limits.ts';
import { ReplaybdError } from '../base/errors.ts';
import { bytesOfGranules, groupLayers, overlay, spansOfPlan, spansOfRecords } from './spans.ts';
import { tooLarge } from './trace-errors.ts';
import type { Trace, TraceImage } from './trace.ts';

/** One thing that was checked. */
export interface Criterion {
  readonly name: string;
  /** The fresh run that it is about; null for one about the trace or all runs. */
  readonly run: string | null;
  readonly unit: 'count' | 'share' | 'bytes';
  /** Whether `wanted` is the least or the most that is good. */
  readonly bound: 'least' | 'most';
  /** Null: anything is good. */
  readonly wanted: number | null;
  readonly found: number;
  readonly ok: boolean;
}

/** A fresh run: what of its trace is looked at. */
export interface PlannedRun extends Pick<Trace, 'image' | 'plan'> {
  readonly name: string;
}

/** Whether a trace can be replayed at all, by itself: it names something, and nothing twice. */
export function checkSoundness({ image, records, plan }: Trace): Criterion[] {
  const groupOf = image.layers.map((_, layer) => layer);
  const recorded = spansOfRecords(records, groupOf, image.layers.length);
  const planned = spansOfPlan(plan, groupOf, image.layers.length);
  const granules = plan.length.map((bytes) => Math.ceil(bytes / GRANULE_BYTES));
  const sectorsTwice = sum(records.sectors) - sum(recorded.length);
  const granulesTwice = sum(granules) - sum(planned.length);
  return [
    atLeast('records', 'count', 1, records.count),
    atLeast('plan ranges', 'count', 1, plan.count),
    atMost('recorded twice', 'bytes', 0, sectorsTwice * SECTOR_BYTES),
    atMost('planned twice', 'bytes', 0, granulesTwice * GRANULE_BYTES),
  ];
}

/**
 * How a trace's plan would have served fresh runs, in compressed bytes of granules, layers matched by
 * digest. Coverage: of each run's plan, the share that the trace's plan has. Waste: what the trace's
 * plan has and no run's. Errors: ERR_TRACE_PLAN for a run without a plan, ERR_TRACE_LIMIT.
 */
export function checkAgainst(
  trace: Trace,
  runs: readonly PlannedRun[],
  wanted: { readonly coverageMin: number; readonly wasteBytesMax: number | null },
): Criterion[] {
  checkRuns(trace, runs);
  const all = [trace, ...runs];
  const { digests, groupsOf } = groupLayers(all.map(({ image }) => image));
  const blobBytes = new Float64Array(digests.length);
  for (const [i, { image }] of all.entries()) {
    for (const [layer, { sizeBytes }] of image.layers.entries()) {
      const group = groupsOf[i][layer];
      blobBytes[group] = Math.max(blobBytes[group], sizeBytes);
    }
  }
  const inputs = all.map(({ plan }, i) => spansOfPlan(plan, groupsOf[i], digests.length));
  const neededBytes = new Float64Array(all.length);
  const coveredBytes = new Float64Array(all.length);
  let wasteBytes = 0;
  overlay(inputs, digests.length, (group, start, granules, at) => {
    const bytes = bytesOfGranules(start, granules, blobBytes[group]);
    let users = 0;
    for (let i = 1; i < at.length; i += 1) {
      if (at[i] < 0) continue;
      users += 1;
      neededBytes[i] += bytes;
      if (at[0] >= 0) coveredBytes[i] += bytes;
    }
    if (users === 0) wasteBytes += bytes;
  });
  const coverage = runs.map(({ name }, i) => {
    const share = coveredBytes[i + 1] / neededBytes[i + 1];
    return { ...atLeast('coverage', 'share', wanted.coverageMin, share), run: name };
  });
  return [...coverage, atMost('waste', 'bytes', wanted.wasteBytesMax, wasteBytes)];
}

/**
 * Whether a trace is about an image: the share of its plan's bytes in layers that the image has, and
 * the bytes that it wants from beyond the end of one of those.
 */
export function checkImage(
  trace: Trace,
  image: Pick<TraceImage, 'layers'>,
  shareMin: number,
): Criterion[] {
  const sizes = new Map(image.layers.map(({ digest, sizeBytes }) => [digest, sizeBytes]));
  const { blob, offset, length } = trace.plan;
  let heldBytes = 0;
  let outsideBytes = 0;
  for (let i = 0; i < trace.plan.count; i += 1) {
    const sizeBytes = sizes.get(trace.image.layers[blob[i]].digest);
    if (sizeBytes === undefined) continue;
    heldBytes += length[i];
    outsideBytes += Math.min(length[i], Math.max(0, offset[i] + length[i] - sizeBytes));
  }
  const plannedBytes = sum(length);
  const share = plannedBytes === 0 ? 0 : heldBytes / plannedBytes;
  return [
    atLeast("planned of the image's layers", 'share', shareMin, share),
    atMost('planned beyond their end', 'bytes', 0, outsideBytes),
  ];
}

function checkRuns(trace: Trace, runs: readonly PlannedRun[]): void {
  const { tracesMax, spansMax } = traceLabLimits;
  if (runs.length > tracesMax) throw tooLarge('runs', tracesMax, runs.length);
  const ranges = runs.reduce((sum, { plan }) => sum + plan.count, trace.plan.count);
  if (ranges > spansMax) throw tooLarge('plan ranges', spansMax, ranges);
  const planless = runs.find(({ plan }) => plan.count === 0);
  if (planless === undefined) return;
  throw new ReplaybdError(
    'ERR_TRACE_PLAN',
    `${planless.name}: expected a run with a plan to check against, found none in it. ` +
      'Record the run again.',
  );
}

function atLeast(name: string, unit: Criterion['unit'], wanted: number, found: number): Criterion {
  return { name, run: null, unit, bound: 'least', wanted, found, ok: found >= wanted };
}

function atMost(
  name: string,
  unit: Criterion['unit'],
  wanted: number | null,
  found: number,
): Criterion {
  return {
    name,
    run: null,
    unit,
    bound: 'most',
    wanted,
    found,
    ok: wanted === null || found <= wanted,
  };
}

function sum(values: Float64Array | Uint32Array): number {
  let total = 0;
  for (const value of values) total += value;
  return total;
}
