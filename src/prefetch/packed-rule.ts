import { fetchLimits } from '../base/limits.ts';
import type { TracePlan } from '../trace/trace.ts';
import { coalesce } from './coalesce.ts';
import type { DueRange } from './plan-window.ts';

/** Whether hot blobs are read: 'auto' where the trace is the user's own and it pays. */
export const PACKED_MODES = ['auto', 'on', 'off'] as const;
export type PackedMode = (typeof PACKED_MODES)[number];

/** A link as far as it is known; 0 for what is not. */
export interface PackedLink {
  readonly roundTripMs: number;
  readonly bytesPerSecond: number;
  /** Ranges of a blob that the registry answers in one request; null for not known yet. */
  readonly rangesPerRequest: number | null;
}

/** What a link is taken for of which nothing is known: 1 Gbit/s at 20 ms. */
const ROUND_TRIP_MS_UNKNOWN = 20;
const BYTES_PER_SECOND_UNKNOWN = 125_000_000;
/**
 * A registry of which nothing is known is taken for one that answers one range: of long plans, a hot blob that
 * was not needed takes about as long as the layers' blobs do, and doing without one that was takes much longer.
 */
const RANGES_PER_REQUEST_UNKNOWN = 1;
/** Of what the link carries: many fresh connections get through TCP's slow start sooner than few. */
const LINK_SHARE = 1 / 2;
/** Ranges of a plan that are looked at: the decision must not keep the first request waiting. */
const RANGES_MAX = 4096;

/**
 * Whether a cold start had better read the hot blob than the layers' own blobs. The plan's requests bring
 * at most
 *
 *   connections x ranges of a request x bytes of a range / round trip
 *
 * however wide the link is; a request of a hot blob is as large as the link wants it. So it wins where that
 * is less than half of what the link carries, unless that is half of the plan or more: then there is
 * nothing left to win. (The simulator says the same: policies 'packed' and
 * 'first-access' with so many ranges a request.)
 */
export function packedWins(plan: TracePlan, link: PackedLink): boolean {
  const roundTripMs = link.roundTripMs || ROUND_TRIP_MS_UNKNOWN;
  const bytesPerSecond = link.bytesPerSecond || BYTES_PER_SECOND_UNKNOWN;
  let requests = 0;
  let bytes = 0;
  for (const request of coalesce(firstRanges(plan))) {
    requests += 1;
    bytes += request.neededBytes;
  }
  if (requests === 0) return false;
  const ranges = link.rangesPerRequest ?? RANGES_PER_REQUEST_UNKNOWN;
  const requestBytes = Math.min((ranges * bytes) / requests, fetchLimits.prefetchRequestBytesMax);
  const bytesPerTrip = fetchLimits.prefetchConcurrencyMax * requestBytes;
  const linkBytesPerTrip = (bytesPerSecond * roundTripMs) / 1000;
  return bytesPerTrip < LINK_SHARE * Math.min(linkBytesPerTrip, bytes);
}

function* firstRanges(plan: TracePlan): Generator<DueRange, void, undefined> {
  const { blob, offset, length, dueUs } = plan;
  const count = Math.min(plan.count, RANGES_MAX);
  for (let i = 0; i < count; i += 1) {
    yield { blob: blob[i], offset: offset[i], length: length[i], dueUs: dueUs[i] };
  }
}
