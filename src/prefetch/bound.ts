import type { TracePlan } from '../trace/trace.ts';

/** The link between a node and its registry. */
export interface Link {
  /** R0: connection, authorisation and manifest round trips before the first blob request. */
  readonly setupMs: number;
  /** L: from a request to the first byte of its response. */
  readonly firstByteMs: number;
  readonly bytesPerSecond: number;
}

/**
 * T_bound, the time in ms that no prefetcher can beat on a link:
 * T_warm + max over i of max(0, R0 + L + S_i / BW - a_i).
 * `plan`: the ranges a warm run needs with the times a_i it needs them at; S_i adds up the ranges
 * due up to and including i.
 */
export function coldStartBoundMs(warmMs: number, plan: TracePlan, link: Link): number {
  let neededBytes = 0;
  let delayMs = 0;
  for (let i = 0; i < plan.count; i += 1) {
    neededBytes += plan.length[i];
    const arrivesMs = link.setupMs + link.firstByteMs + (neededBytes / link.bytesPerSecond) * 1000;
    delayMs = Math.max(delayMs, arrivesMs - plan.dueUs[i] / 1000);
  }
  return warmMs + delayMs;
}

/** One cold-start measurement, in ms. */
export interface ColdStart {
  readonly lazyMs: number;
  readonly replayMs: number;
  readonly warmMs: number;
  readonly boundMs: number;
}

/** Part of the time between a lazy and a warm start that replay saves: 1 is as good as warm. */
export function gapClosure(times: ColdStart): number {
  return (times.lazyMs - times.replayMs) / (times.lazyMs - times.warmMs);
}

/** How far replay is from the bound: 1 is at it. */
export function boundRatio(times: ColdStart): number {
  return times.replayMs / times.boundMs;
}
