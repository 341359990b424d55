import type { ByteRange } from '../base/range.ts';

/**
 * A blob is one layer's bytes as the registry stores them. Every blob, local or remote, is a
 * memory mapping of its full size plus a presence bitmap; reading is the same for all of them:
 *
 *   has(range)? -> read the mapping        (any thread, no promise)
 *   else        -> await ensure(range), then read the mapping        (main thread)
 *
 * A presence bit is set only after its granule's bytes are readable through the mapping, and is
 * cleared before they may go away. A reader therefore checks presence before and after it reads:
 * when both say "present", what it read was whole.
 */
export type Lane = 'demand' | 'prefetch';

/** What any thread of this process needs to read a blob. Plain data: it survives postMessage. */
export interface BlobMap {
  /** Address of the blob's byte 0. A user-space address fits a double exactly. */
  readonly address: number;
  readonly sizeBytes: number;
  /** One bit a granule, bit `i & 31` of word `i >>> 5`; null when the whole blob is local. */
  readonly presence: SharedArrayBuffer | null;
}

export interface EnsureOptions {
  /** Default 'demand'. */
  lane?: Lane;
  signal?: AbortSignal;
}

/** Bytes of first touches (each granule counts once), by where a reader found them. */
export interface TouchedBytes {
  /** In the cache before this session began, or local. */
  cached: number;
  /** Fetched by the prefetch lane and complete in time. */
  prefetched: number;
  /** In flight in the prefetch lane when they were asked for. */
  late: number;
  /** Nobody had asked for them: fetched (or about to be) by the demand lane. */
  demand: number;
}

export interface Blob {
  /** File path or URL, for messages. */
  readonly name: string;
  /** `sha256:...`; null for a local file that has none. */
  readonly digest: string | null;
  readonly sizeBytes: number;
  readonly map: BlobMap;
  /** The mapping as bytes; what lies in an absent granule is undefined. */
  readonly bytes: Uint8Array;

  has(offset: number, length: number): boolean;

  /** Whether some of the range is being fetched, or queued to be; a local blob need not say. */
  isUnderWay?(offset: number, length: number): boolean;

  /**
   * Resolves when every granule of the range is present. Demand waits have a deadline:
   * ERR_READ_DEADLINE, or the last cause, afterwards.
   */
  ensure(offset: number, length: number, options?: EnsureOptions): Promise<void>;

  /**
   * The range's bytes failed verification: forget them, so that `ensure` fetches them again.
   * False when that cannot help (a local file).
   */
  drop(offset: number, length: number): boolean;

  /**
   * Accounts a guest's access. To be called before `ensure` for a miss. Granules touched before
   * count nothing.
   */
  touch(offset: number, length: number): TouchedBytes;

  /** Of a range within the blob, the bytes that `touch` has counted so far. */
  touchedIn(offset: number, length: number): number;

  close(): Promise<void>;
}

/** A ranged origin of bytes: what a fetcher needs of a registry blob. */
export interface RangeSource {
  /** URL without credentials, for messages. */
  readonly name: string;

  /** Size in bytes, asked of the origin once when it was not known beforehand. */
  size(signal?: AbortSignal): Promise<number>;

  /**
   * Streams exactly the bytes [offset, offset + length) in order into `onData`; chunks are only
   * valid during the call. Anything else the origin does (200 to a ranged request, wrong
   * Content-Range, short or long body, a changed blob) rejects with a ReplaybdError; chunks handed
   * over before that were the range's own bytes up to then. Rejects with ERR_THROTTLED, which carries
   * `retryAfterMs`, on 429 and 503.
   */
  fetch(
    offset: number,
    length: number,
    options: { lane: Lane; signal: AbortSignal; onData: (chunk: Uint8Array) => void },
  ): Promise<void>;

  /** Absent where one request brings one range. */
  readonly many?: ManyRangesSource;

  close(): Promise<void>;
}

/** An origin that may answer several ranges at once. */
export interface ManyRangesSource {
  /**
   * Ranges that one request may carry now: 1 where several were refused, or while a first request
   * finds out.
   */
  readonly rangesMax: number;
  /** Whether an answer of the origin has shown what `rangesMax` says. */
  readonly isRangesMaxKnown: boolean;

  /**
   * As `fetch`, for disjoint ranges: all bytes of one, in order, then those of the next. Rejects with
   * ERR_RANGES_REFUSED when the origin answers no more than one at a time; `rangesMax` is 1 from then
   * on.
   */
  fetch(
    ranges: readonly ByteRange[],
    options: {
      lane: Lane;
      signal: AbortSignal;
      /** `index` is that of the range. */
      onData: (chunk: Uint8Array, index: number) => void;
    },
  ): Promise<void>;
}
