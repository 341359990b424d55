import type { ByteRange } from '../../base/range.ts';
import type { Lane } from '../blob.ts';

export interface LaneStats {
  /** Requests sent, retries included. */
  requests: number;
  /** Bytes that arrived. */
  bytes: number;
  failures: number;
  /** Ranges waiting to be requested. */
  queued: number;
  /** Requests under way, and the bytes they have yet to bring. */
  active: number;
  activeBytes: number;
}

export interface FetchStats {
  demand: LaneStats;
  prefetch: LaneStats;
  /** Ranges that a demand read took out of the prefetch queue. */
  promotions: number;
  /** Demand reads that waited for a prefetch under way. */
  joins: number;
  retries: number;
  throttles: number;
  /** Prefetches not accepted because the backlog was full. */
  refused: number;
  bytesPerSecond: number;
  roundTripMs: number;
  /** Bytes that the prefetch lane may have under way. */
  windowBytes: number;
}

/** One request, told when it ended. */
export interface FetchEvent {
  lane: Lane;
  /** Of the blob that was asked, which may be a packed source. */
  digest: string;
  /** What was asked for. */
  ranges: readonly ByteRange[];
  /** Without what lies between the bytes that are needed. */
  askedBytes: number;
  /** Bytes that became present. */
  bytes: number;
  /** Null when not a byte came. */
  firstByteMs: number | null;
  /** By the fetcher's clock. */
  startedMs: number;
  durationMs: number;
  error: unknown;
}

/** What a blob's fetched bytes came to. */
export interface BlobCounters {
  prefetchedBytes: number;
  /** Of those, bytes that the guest asked for: prefetch accuracy is this share. */
  prefetchedTouchedBytes: number;
  /** Fetched by the demand lane, read-ahead included. */
  demandBytes: number;
  readAheadBytes: number;
  readAheadTouchedBytes: number;
}

export function newLaneStats(): LaneStats {
  return { requests: 0, bytes: 0, failures: 0, queued: 0, active: 0, activeBytes: 0 };
}

/** Of a fetcher that has done nothing and knows nothing. */
export function newFetchStats(): FetchStats {
  return {
    ...{ demand: newLaneStats(), prefetch: newLaneStats() },
    ...{ promotions: 0, joins: 0, retries: 0, throttles: 0, refused: 0 },
    ...{ bytesPerSecond: 0, roundTripMs: 0, windowBytes: 0 },
  };
}

/** The sum of two fetchers' counters; of their round trips the least that is known. */
export function addFetchStats(a: FetchStats, b: FetchStats): FetchStats {
  const roundTripsMs = [a.roundTripMs, b.roundTripMs].filter((ms) => ms > 0);
  return {
    demand: addLaneStats(a.demand, b.demand),
    prefetch: addLaneStats(a.prefetch, b.prefetch),
    promotions: a.promotions + b.promotions,
    joins: a.joins + b.joins,
    retries: a.retries + b.retries,
    throttles: a.throttles + b.throttles,
    refused: a.refused + b.refused,
    bytesPerSecond: a.bytesPerSecond + b.bytesPerSecond,
    roundTripMs: roundTripsMs.length === 0 ? 0 : Math.min(...roundTripsMs),
    windowBytes: a.windowBytes + b.windowBytes,
  };
}

function addLaneStats(a: LaneStats, b: LaneStats): LaneStats {
  return {
    requests: a.requests + b.requests,
    bytes: a.bytes + b.bytes,
    failures: a.failures + b.failures,
    queued: a.queued + b.queued,
    active: a.active + b.active,
    activeBytes: a.activeBytes + b.activeBytes,
  };
}
