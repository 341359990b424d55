import { GRANULE_BYTES } from '../base/limits.ts';

/** How plan ranges become requests. */
export interface CoalesceOptions {
  /** A gap up to this many bytes costs less than another request. */
  readonly gapBytesMax: number;
  /** All gap bytes / all needed bytes, at most. */
  readonly overFetchRatioMax: number;
  /** Bounds how long a demand read waits for a socket's response to end. */
  readonly requestBytesMax: number;
  /** The first requests are smaller, so that the first needed bytes have little before them. */
  readonly firstRequests: number;
  readonly firstRequestBytesMax: number;
  /**
   * How far ahead, in bytes of the plan and in due time, a range may be pulled forward: no more than
   * this can come before a range that is more urgent. It opens as the replay goes.
   */
  readonly horizonBytes: number;
  readonly horizonUs: number;
  /** Bytes of later ranges that may come before the range the request is made for. */
  readonly leadBytesMax: number;
}

const KIB = 1024;
const MIB = 1024 * KIB;

export const defaultCoalesceOptions: CoalesceOptions = {
  gapBytesMax: 32 * KIB,
  overFetchRatioMax: 0.04,
  requestBytesMax: MIB,
  firstRequests: 4,
  firstRequestBytesMax: 256 * KIB,
  horizonBytes: 4 * MIB,
  horizonUs: 10_000_000,
  leadBytesMax: 128 * KIB,
};

/** A link as it was measured, or 0 for what is not known. */
export interface LinkEstimate {
  readonly bytesPerSecond: number;
}

/**
 * Options for a link: a request takes at most about 50 ms of it, so that a slow link is not
 * blocked by one; no range is held up by more than 150 ms of others that were pulled forward; and a
 * gap may take 1 ms of 1 Gbit/s, about what another request costs in processor time. On a slower link
 * there is time to spare for requests, and none for gaps.
 */
export function coalesceOptionsFor(link: LinkEstimate): CoalesceOptions {
  if (link.bytesPerSecond <= 0) return defaultCoalesceOptions;
  const wholeGranules = (seconds: number, min: number, max: number): number => {
    const granules = Math.floor((link.bytesPerSecond * seconds) / GRANULE_BYTES);
    return Math.min(Math.max(granules * GRANULE_BYTES, min), max);
  };
  return {
    ...defaultCoalesceOptions,
    requestBytesMax: wholeGranules(0.05, 128 * KIB, 2 * MIB),
    gapBytesMax: wholeGranules(0.001 * Math.min(1, link.bytesPerSecond / 125e6), 0, 256 * KIB),
    horizonBytes: wholeGranules(0.15, 256 * KIB, 64 * MIB),
    leadBytesMax: wholeGranules(0.01, 32 * KIB, MIB),
  };
}
