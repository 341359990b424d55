/** The link of a simulated cold start. */
export interface SimulatedLink {
  readonly bytesPerSecond: number;
  readonly roundTripMs: number;
  /** Payload of a TCP segment, of which a fresh connection sends ten. Default 1,460. */
  readonly segmentBytes?: number;
}

/**
 * What fetches ahead of the guest:
 *
 *   first-access     as replaybd does: the plan in order, coalesced, paced, giving way to demand
 *   lba              the same, by place in the layers (bottom first) instead of by first access
 *   score            the same, by first access in steps of 10 ms; within one, what most runs had first
 *   packed           the hot blob of the plan: requests of one range each, whatever layers it is of
 *   overlaybd-fifo   as the original: 16 readers take the plan's ranges in order once all layers are
 *                    open, in units of 256 KiB, whatever the guest waits for
 *   none             nothing: each miss is fetched when it happens
 */
export const SIMULATION_POLICIES = [
  'first-access',
  'lba',
  'score',
  'packed',
  'overlaybd-fifo',
  'none',
] as const;
export type SimulationPolicy = (typeof SIMULATION_POLICIES)[number];

/**
 * Processor time of what fetches. There is one processor for it and the guest: a guest that does not
 * wait is kept from running for as long as it takes, and one that waits loses nothing by it.
 */
export interface HostCost {
  /** Of an attach, before the first request for a blob leaves. */
  readonly attachMs: number;
  /** Of a request, when its answer begins. */
  readonly requestMs: number;
  /** Of a MiB that arrives. */
  readonly mibMs: number;
}

/** A simulated cold start, as far as it is not replaybd's own. */
export interface SimulationOptions {
  readonly link: SimulatedLink;
  /** Default 'first-access'. */
  readonly policy?: SimulationPolicy;
  /** Prefetch requests at once. Default: what the policy has. */
  readonly concurrency?: number;
  /**
   * Bytes of a request: of 'overlaybd-fifo' the unit, of the others the most that one brings. Default:
   * what the policy has.
   */
  readonly rangeBytes?: number;
  /** Ranges of a blob that one prefetch request may bring. Default: what servers are asked for. */
  readonly rangesPerRequest?: number;
  /** How long a start takes that has everything local. Default: until the trace's last access. */
  readonly warmMs?: number;
  /** The guest's own time between accesses, as a factor. Default 1. */
  readonly think?: number;
  /** Round trips before the first request for a blob: connection, authorisation, manifest. Default 2. */
  readonly setupRoundTrips?: number;
  /**
   * Of those, what the times of the trace and `warmMs` have in them: of a warm run on the same link, all
   * of them. Default 0, as of a trace that was recorded beside its registry.
   */
  readonly warmSetupRoundTrips?: number;
  /** Default: what fetches takes no processor time. The bound never has any. */
  readonly host?: HostCost;
  /** Whether misses read ahead where nothing prefetches (they do). Default true. */
  readonly readAhead?: boolean;
}

/** How far a simulated cold start was at a time. Totals, all of them. */
export interface SimulationPoint {
  /** Since the attach. */
  readonly timeMs: number;
  /** Bytes that arrived, of both lanes. */
  readonly fetchedBytes: number;
  /** Bytes that the guest has touched. */
  readonly touchedBytes: number;
  /** Of the bytes touched so far; null before the first. See docs/metrics.md. */
  readonly coverage: number | null;
  readonly timeliness: number | null;
  /** How long the guest has waited. */
  readonly stalledMs: number;
}

/** What came of a simulated cold start. */
export interface SimulationResult {
  readonly policy: SimulationPolicy;
  readonly link: SimulatedLink;
  /** From the attach to the end of the start: T_replay, or T_lazy with policy 'none'. */
  readonly predictedMs: number;
  /** The same with policy 'none'. */
  readonly lazyMs: number;
  readonly warmMs: number;
  /** See prefetch/bound.ts. */
  readonly boundMs: number;
  /** predicted / bound. */
  readonly ratio: number;
  /** (lazy - predicted) / (lazy - warm); null where lazy is no slower than warm. */
  readonly gapClosure: number | null;
  /** (prefetched + late) / touched; null where nothing is touched. */
  readonly coverage: number | null;
  /** prefetched / (prefetched + late); null where nothing is covered. */
  readonly timeliness: number | null;
  /** Bytes the guest touches: those of the plan without metadata. */
  readonly touchedBytes: number;
  readonly fetchedBytes: number;
  readonly requests: { readonly demand: number; readonly prefetch: number };
  /** Accesses that waited, and for how long in all; opening the layers not included. */
  readonly stalls: number;
  readonly stalledMs: number;
  /** When all layers were open. */
  readonly openMs: number;
  /** At most 200 points, in order of time; the last is the end. */
  readonly curve: readonly SimulationPoint[];
}
