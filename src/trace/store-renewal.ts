import type { ReplayRun, TraceFacts } from './store-facts.ts';
import { sectorsIn, type Trace } from './trace.ts';

/** When `auto` records a trace anew while it replays the old one. */
export interface RenewalPolicy {
  /** False: a trace stays until somebody records it again. */
  readonly renews: boolean;
  /** A trace is stale whose plan has less than this share of what its last replay touched. */
  readonly coverageMin: number;
  /** So long after its recording began, a trace is recorded anew; null: never for its age. */
  readonly maxAgeMs: number | null;
}

export const DEFAULT_RENEWAL: RenewalPolicy = { renews: true, coverageMin: 0.8, maxAgeMs: null };

/** A run that touched less than this says nothing of its trace: a mount reads about as much. */
export const RUN_BYTES_MIN = 256 * 1024;
/** A recording takes the place of a trace if it has at least this share of its sectors. */
export const RENEWED_SHARE_MIN = 0.5;

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
  const planned = lastPlanned(facts.runs);
  if (planned !== null && planned < policy.coverageMin) return 'coverage';
  const ageMs = nowMs - facts.recordedAtMs;
  return policy.maxAgeMs !== null && ageMs > policy.maxAgeMs ? 'age' : null;
}

/**
 * What the plan had of what the last replay touched, of those that say something; null without one.
 * Whether bytes came by prefetch or a read was faster is no matter: that depends on the link.
 */
export function lastPlanned(runs: readonly ReplayRun[]): number | null {
  const last = runs.findLast(({ touchedBytes }) => touchedBytes >= RUN_BYTES_MIN);
  return last?.planned ?? null;
}

/** What came by prefetch in the last replay that fetched enough to say something; null without one. */
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
