import { JOIN_US_MAX } from '../../trace/build-plan.ts';
import type { SimulatedRecords } from '../../trace/file-report.ts';
import { warmTimeUs, type Trace, type TraceRecords } from '../../trace/trace.ts';
import type { UnitStates } from './unit-states.ts';

/**
 * What a simulated guest meets with, the worst last:
 *
 *   unused      the start is over before it
 *   cached      all of it came with what was read before
 *   prefetched  fetched ahead, and there in time
 *   late        fetched ahead, but still under way: the guest waits
 *   demand      not fetched ahead: the guest waits
 */
export const OUTCOMES = ['unused', 'cached', 'prefetched', 'late', 'demand'] as const;
export type Outcome = (typeof OUTCOMES)[number];

interface LoggedAccess {
  /** By blob: the worst of what the access needs of it, as a place in OUTCOMES. */
  readonly worst: ReadonlyMap<number, number>;
  waitMs: number;
}

const [, CACHED, PREFETCHED, LATE, DEMAND] = OUTCOMES.keys();

/** What each access of a simulated start met with, in order, as far as the start went. */
export class OutcomeLog {
  readonly accesses: LoggedAccess[] = [];

  /** The next access needs units [first, end), and has not asked for what it lacks of them. */
  add(states: UnitStates, firstUnit: number, endUnit: number): void {
    const worst = new Map<number, number>();
    for (let unit = firstUnit; unit < endUnit; unit += 1) {
      const blob = states.workload.blob[unit];
      const isPrefetched = !states.isWanted(unit) && states.isPrefetched(unit);
      const [there, missing] = isPrefetched ? [PREFETCHED, LATE] : [CACHED, DEMAND];
      const code = states.isPresent(unit) ? there : missing;
      worst.set(blob, Math.max(code, worst.get(blob) ?? 0));
    }
    this.accesses.push({ worst, waitMs: 0 });
  }

  /** The latest access has waited. */
  waited(ms: number): void {
    this.accesses[this.accesses.length - 1].waitMs = ms;
  }
}

/** What a trace's records meet with in a simulated start, as columns. */
export interface RecordOutcomes {
  /** Places in OUTCOMES. */
  readonly codes: Uint8Array;
  /** How long the guest waits at each. */
  readonly waitMs: Float64Array;
  /** How many records that one wait is for: those of one time. */
  readonly together: Uint32Array;
}

/**
 * A start's accesses as the records that they are made of. A record's bytes are those that the plan has
 * of its layer for its time, or for up to 2 ms before, as it joins ranges so close together; it waits
 * only at its own time. A record for which the plan has nothing then needs nothing of its own.
 */
export function recordOutcomes(
  { records, plan, image }: Pick<Trace, 'records' | 'plan' | 'image'>,
  { accesses }: OutcomeLog,
): RecordOutcomes {
  const codes = new Uint8Array(records.count);
  const waitMs = new Float64Array(records.count);
  /** By layer: the latest access that needs bytes of it, and when. */
  const accessOf = new Int32Array(image.layers.length);
  const dueOf = new Float64Array(image.layers.length).fill(-Infinity);
  let access = -1;
  let dueUs = 0;
  let range = 0;
  for (let i = 0; i < records.count; i += 1) {
    const warmUs = warmTimeUs(records, i);
    for (; range < plan.count && plan.dueUs[range] <= warmUs; range += 1) {
      // What is due at 0 is read when the layers are opened: no access.
      if (plan.dueUs[range] === 0) continue;
      if (plan.dueUs[range] > dueUs) access += 1;
      dueUs = plan.dueUs[range];
      accessOf[plan.blob[range]] = access;
      dueOf[plan.blob[range]] = dueUs;
    }
    const layer = records.layer[i];
    const isPlanned = warmUs - dueOf[layer] <= JOIN_US_MAX;
    const at = isPlanned ? accessOf[layer] : access;
    if (at >= accesses.length) continue;
    codes[i] = (isPlanned ? accesses[at].worst.get(layer) : undefined) ?? CACHED;
    if (codes[i] >= LATE && warmUs === dueOf[layer]) waitMs[i] = accesses[at].waitMs;
  }
  return { codes, waitMs, together: countTogether(records, waitMs) };
}

function countTogether(records: TraceRecords, waitMs: Float64Array): Uint32Array {
  const together = new Uint32Array(records.count).fill(1);
  for (let first = 0, end = 0; first < records.count; first = end) {
    let waiting = 0;
    const warmUs = warmTimeUs(records, first);
    for (end = first; end < records.count && warmTimeUs(records, end) === warmUs; end += 1) {
      if (waitMs[end] > 0) waiting += 1;
    }
    if (waiting > 1) together.fill(waiting, first, end);
  }
  return together;
}

/** The same, as reports of files ask for it. */
export function simulatedRecords({ codes, waitMs, together }: RecordOutcomes): SimulatedRecords {
  return {
    isLate: (record) => codes[record] === LATE,
    isDemand: (record) => codes[record] === DEMAND,
    waitUs: (record) => (waitMs[record] * 1000) / together[record],
  };
}

/** How many records meet with what. */
export function countOutcomes({ codes }: Pick<RecordOutcomes, 'codes'>): Record<Outcome, number> {
  const counts = { unused: 0, cached: 0, prefetched: 0, late: 0, demand: 0 };
  for (const code of codes) counts[OUTCOMES[code]] += 1;
  return counts;
}
