import { ReplaybdError } from '../base/errors.ts';
import { GRANULE_BYTES, SECTOR_BYTES, traceLabLimits, traceLimits } from '../base/limits.ts';
import { buildPlan, JOIN_US_MAX, type PlanInput } from './build-plan.ts';
import { encodeTrace } from './encode.ts';
import { checkLayers, checkWorkload, mergeFacts, type TraceFacts } from './merge-facts.ts';
import { joinParts, mergeSpans } from './merge-spans.ts';
import { COALESCE_US_MAX } from './recorder.ts';
import { bytesOfGranules, spansOfPlan, spansOfRecords, type Spans } from './spans.ts';
import { tooLarge } from './trace-errors.ts';
import { takeRecords, waitedUs, type Trace, type TracePlan, type TraceRecords } from './trace.ts';

/** The opened image that the runs are of. */
export interface MergeImage extends Omit<PlanInput, 'records'> {
  /** Reference or path, for messages. */
  readonly name: string;
}

export interface MergeOptions {
  /** Records and plan ranges of fewer runs are left out. Default 1: none. */
  readonly weightMin?: number;
  /** Compressed bytes of the plan; what is latest goes first. Default: no limit. */
  readonly budgetBytes?: number;
  /** To build the plan anew. Without it the plan is merged of the inputs' plans. */
  readonly image?: MergeImage;
}

const ADVICE = ' (--min-weight and --budget keep fewer)';

export interface MergedTrace {
  readonly trace: Trace;
  /** Bytes of the disk that a run read and the trace does not name, by what left them out. */
  readonly leftOutBytes: { readonly byWeight: number; readonly byBudget: number };
}

interface AddedTrace extends TraceFacts {
  readonly records: Spans;
  readonly plan: Spans;
}

/** Collects runs of one workload of one image, and makes one trace of them. */
export class TraceMerger {
  readonly #traces: AddedTrace[] = [];
  #runs = 0;
  #spans = 0;

  /**
   * Adds a run, or a merged trace, whose runs count each. Errors: ERR_TRACE_IMAGE when it is of other
   * layers than the first, ERR_TRACE_WORKLOAD when it is of another workload, ERR_TRACE_LIMIT.
   */
  add(trace: Trace, name: string): void {
    const first = this.#traces.at(0);
    if (first !== undefined) {
      checkLayers(first, trace.image, name);
      checkWorkload(first, trace.workload, name);
    }
    this.#runs += trace.runs;
    this.#spans += trace.records.count + trace.plan.count;
    checkLimit('traces', traceLabLimits.tracesMax, this.#traces.length + 1);
    checkLimit('runs', traceLimits.runsMax, this.#runs);
    checkLimit('records and plan ranges', traceLabLimits.spansMax, this.#spans);
    const { layers } = trace.image;
    const groupOf = layers.map((_, layer) => layer);
    const waited = waitedUs(trace.records);
    this.#traces.push({
      name,
      image: trace.image,
      workload: trace.workload,
      recording: { ...trace.recording, durationUs: trace.recording.durationUs - waited },
      records: spansOfRecords(trace.records, groupOf, layers.length),
      plan: spansOfPlan(trace.plan, groupOf, layers.length, trace.runs),
    });
  }

  /**
   * The merged trace, on the warm axis: nothing in it waits. The order in which runs were added makes no
   * difference. Errors: ERR_TRACE_PLAN when a trace has records without a plan and no image is given,
   * ERR_TRACE_IMAGE when the image is of other layers, ERR_TRACE_LIMIT when the result has too many
   * records or ranges, and ERR_TRACE_EMPTY when nothing was added.
   */
  merge(options: MergeOptions = {}): MergedTrace {
    const { weightMin = 1, budgetBytes = Infinity, image } = options;
    if (this.#traces.length === 0) {
      throw new ReplaybdError('ERR_TRACE_EMPTY', 'expected traces to merge, found none');
    }
    if (image !== undefined) checkLayers(this.#traces[0], image, image.name);
    const { records, leftOutSectors } = this.#records(weightMin);
    const whole = image === undefined ? this.#plan(weightMin) : buildPlan({ ...image, records });
    const { plan, cutUs } = cutPlan(whole, budgetBytes);
    const kept = takeRecords(records, countBefore(records, cutUs));
    checkLimit(`records${ADVICE}`, traceLimits.recordsMax, kept.count);
    checkLimit(`plan ranges${ADVICE}`, traceLimits.planRangesMax, plan.count);
    const trace = {
      ...mergeFacts(this.#traces, kept, plan),
      runs: this.#runs,
      records: kept,
      plan,
    };
    const byBudget = (sectorsOf(records) - sectorsOf(kept)) * SECTOR_BYTES;
    return { trace, leftOutBytes: { byWeight: leftOutSectors * SECTOR_BYTES, byBudget } };
  }

  #records(weightMin: number): { records: TraceRecords; leftOutSectors: number } {
    const layerCount = this.#traces[0].image.layers.length;
    const spans = this.#traces.map((trace) => trace.records);
    const merged = mergeSpans(spans, layerCount, (_, weight) => weight >= weightMin);
    const parts = joinParts(merged, COALESCE_US_MAX, traceLimits.recordSectorsMax);
    const { count } = parts;
    const records = {
      count,
      timeUs: parts.timeUs.slice(0, count),
      waitUs: new Float64Array(count),
      lba: parts.start.slice(0, count),
      sectors: Uint32Array.from(parts.length.subarray(0, count)),
      layer: parts.group.slice(0, count),
      weight: parts.weight.slice(0, count),
    };
    return { records, leftOutSectors: parts.leftOutLength };
  }

  /**
   * The inputs' plans, merged by granule: a granule that a kept record needs is in the plan of as many
   * runs as the record, so none of those is lost. A merged trace does not say in how many of its runs a
   * range occurs: it counts as in all of them.
   */
  #plan(weightMin: number): TracePlan {
    const { layers } = this.#traces[0].image;
    for (const { name, records, plan } of this.#traces) {
      if (records.count > 0 && plan.count === 0) throw planMissing(name);
    }
    const spans = this.#traces.map((trace) => trace.plan);
    const isKept = (dueUs: number, weight: number): boolean => dueUs === 0 || weight >= weightMin;
    const merged = mergeSpans(spans, layers.length, isKept);
    // Only here, and not in the trace, do ranges have a weight: they join whatever it is.
    merged.weight.fill(1);
    const { count, group, start, length, timeUs } = joinParts(merged, JOIN_US_MAX, Infinity);
    return {
      count,
      blob: group.slice(0, count),
      offset: start.slice(0, count).map((granule) => granule * GRANULE_BYTES),
      length: length
        .slice(0, count)
        .map((granules, i) => bytesOfGranules(start[i], granules, layers[group[i]].sizeBytes)),
      dueUs: timeUs.slice(0, count),
    };
  }
}

/**
 * The file of a merged trace; `name` goes into messages. Errors: ERR_TRACE_LIMIT when it is larger than
 * a trace file may be.
 */
export function encodeMerged(trace: Trace, name: string): Uint8Array {
  try {
    return encodeTrace(trace);
  } catch (error) {
    const isTooLarge = error instanceof ReplaybdError && error.code === 'ERR_TRACE_LIMIT';
    if (!isTooLarge) throw error;
    throw new ReplaybdError(error.code, `${name}: ${error.message}${ADVICE}`, { cause: error });
  }
}

/** The first `bytesMax` bytes of a plan, and when the first range is due that is not all of it in. */
function cutPlan(plan: TracePlan, bytesMax: number): { plan: TracePlan; cutUs: number } {
  let left = bytesMax;
  let count = 0;
  while (count < plan.count && plan.length[count] <= left) {
    left -= plan.length[count];
    count += 1;
  }
  if (count === plan.count) return { plan, cutUs: Infinity };
  const cutUs = plan.dueUs[count];
  const rest = left - (left % GRANULE_BYTES);
  const length = plan.length.slice(0, rest > 0 ? count + 1 : count);
  if (rest > 0) length[count] = rest;
  const kept = {
    count: length.length,
    blob: plan.blob.slice(0, length.length),
    offset: plan.offset.slice(0, length.length),
    length,
    dueUs: plan.dueUs.slice(0, length.length),
  };
  return { plan: kept, cutUs };
}

function countBefore(records: TraceRecords, timeUs: number): number {
  let count = 0;
  while (count < records.count && records.timeUs[count] < timeUs) count += 1;
  return count;
}

function sectorsOf({ count, sectors }: TraceRecords): number {
  let sum = 0;
  for (let i = 0; i < count; i += 1) sum += sectors[i];
  return sum;
}

function planMissing(name: string): ReplaybdError {
  return new ReplaybdError(
    'ERR_TRACE_PLAN',
    `${name}: expected a plan beside the records, found none. ` +
      'Give the image (--image), so that the plan is built anew.',
  );
}

function checkLimit(what: string, max: number, found: number): void {
  if (found > max) throw tooLarge(what, max, found);
}
