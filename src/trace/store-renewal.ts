import type { ReplayRun, TraceFacts } from './store-facts.ts';
import { sectorsIn, type Trace } from './trace.ts';

/** When `auto` records a trace anew while it replays the old one. */
export interface RenewalPolicy {
  /** False: a trace stays until somebody records it again. */
  readonly renews: boolean;
  /** Below this coverage of its last replay a trace is stale. */
  readonly coverageMin: number;
  /** So long after its recording began, a trace is recorded anew; null: never for its age. */
  readonly maxAgeMs: number | null;
}

export const DEFAULT_RENEWAL: RenewalPolicy = { renews: true, coverageMin: 0.8, maxAgeMs: null };

/** A run that fetched less than this says nothing of its trace: the cache had nearly all. */
export const RUN_BYTES_MIN = 256 * 1024;
/** A recording takes the place of a trace if it has at least this share of its sectors. */
export const RENEWED_SHARE_MIN = 0.5;
/** How long a run is measured at least, however short its trace. */
const MEASURE_US_MIN = 1_000_000;

/** Why a trace should be recorded anew. */
export type RenewalReason = 'coverage' | 'age' | 'killed';

/** Whether a trace is stale; null when it is good. Pinned ones are the caller's affair. */
export function renewalReason(
  facts: TraceFacts,
  policy: RenewalPolicy,
  nowMs: number,
): RenewalReason | null {
  if (!policy.renews) return null;
  // A checkpoint is all that a killed run has left.
  if (facts.endReason === 'checkpoint') return 'killed';
  const coverage = lastCoverage(facts.runs);
  if (coverage !== null && coverage < policy.coverageMin) return 'coverage';
  const ageMs = nowMs - facts.recordedAtMs;
  return policy.maxAgeMs !== null && ageMs > policy.maxAgeMs ? 'age' : null;
}

/** Of the last replay that says something; null without one. */
export function lastCoverage(runs: readonly ReplayRun[]): number | null {
  const last = runs.findLast(({ fetchedBytes }) => fetchedBytes >= RUN_BYTES_MIN);
  return last?.coverage ?? null;
}

/**
 * Whether a recording may take the place of a trace with so many sectors: it ended in order, and is no
 * start that was broken off.
 */
export function isGoodRecording(trace: Trace, sectorsBefore: number): boolean {
  const { recording, records } = trace;
  if (recording.endReason === 'checkpoint' || records.count === 0) return false;
  return sectorsIn(trace) >= sectorsBefore * RENEWED_SHARE_MIN;
}

/**
 * For how long a replay is measured: as long as the trace was recorded. What is read later was never
 * promised, and would make every trace of a service that goes on look stale.
 */
export function measureUs(trace: Pick<Trace, 'recording'>): number {
  return Math.max(MEASURE_US_MIN, trace.recording.durationUs);
}
