import type { Clock } from '../../base/clock.ts';
import { codeOf, ReplaybdError } from '../../base/errors.ts';
import { fetchLimits, GRANULE_BYTES } from '../../base/limits.ts';
import type { ByteRange } from '../../base/range.ts';
import type { Blob, BlobMap, EnsureOptions, Lane, RangeSource, TouchedBytes } from '../blob.ts';
import type { CachedBlob } from '../cache/cached-blob.ts';
import { GranuleBits, granuleCountOf } from '../cache/granule-bits.ts';
import { TouchLedger, type TouchClass } from '../touch-ledger.ts';
import type { Flow } from './fair-share.ts';
import type { BlobCounters } from './fetch-stats.ts';
import type { FlightFailure, FlightTable } from './flight-table.ts';
import { ReadAhead } from './read-ahead.ts';
import { asReadError, backoffMs, isFinal, isRefusal, throttledMs } from './retry.ts';

/** What a remote blob asks of the fetcher it came from. */
export interface FetchEngine {
  readonly clock: Clock;
  readonly random: () => number;
  readonly readDeadlineMs: number;
  /** Starts fetching what of the range is neither present nor under way. */
  request(blob: RemoteBlob, range: ByteRange, asked: Asked): void;
  /** A place in the prefetch lane for so many bytes of a flow. */
  place(flow: Flow, bytes: number): number;
  onRetry(): void;
  detach(blob: RemoteBlob): void;
}

/** How a range is asked for. */
export interface Asked {
  lane: Lane;
  /** Place in the prefetch lane. A range that failed is tried again in its place. */
  order: number;
  signal: AbortSignal;
}

const RESOLVED = Promise.resolve();
/** A reason made once: one made for each wait would cost a stack trace each. */
const IS_OVER = new Error('the wait is over');

/**
 * A registry's blob behind the cache. It owns the hold on the cached blob and the source it was
 * made from, and closes both.
 */
export class RemoteBlob implements Blob {
  readonly name: string;
  readonly digest: string;
  readonly sizeBytes: number;
  readonly map: BlobMap;
  readonly bytes: Uint8Array;
  readonly cached: CachedBlob;
  readonly source: RangeSource;
  /** The fetches of this blob, those of other openers of the same digest included. */
  readonly flights: FlightTable<RemoteBlob>;
  /** The part of the prefetch lane that it shares with its device's other blobs. */
  readonly flow: Flow;
  /** Off while a replay covers the blob: the plan knows better. */
  readAhead: 'auto' | 'off' = 'auto';
  /** Nobody could tell whether bytes out of a packed source are whole: none are taken. */
  refusesPacked = false;
  /** Told when bytes of a packed source turn out to be damaged. */
  onPackedDamage: () => void = () => undefined;
  readonly counters: BlobCounters = {
    prefetchedBytes: 0,
    prefetchedTouchedBytes: 0,
    demandBytes: 0,
    readAheadBytes: 0,
    readAheadTouchedBytes: 0,
  };
  readonly #engine: FetchEngine;
  readonly #window = new ReadAhead();
  readonly #ledger: TouchLedger;
  readonly #prefetched: GranuleBits;
  readonly #demanded: GranuleBits;
  readonly #readAhead: GranuleBits;
  /** Present granules that came out of a packed source. */
  readonly #packed: GranuleBits;
  readonly #waits = new Set<AbortController>();
  #isAbandoned = false;
  #isClosed = false;
  #closing: Promise<void> | null = null;

  constructor(
    cached: CachedBlob,
    source: RangeSource,
    flights: FlightTable<RemoteBlob>,
    flow: Flow,
    engine: FetchEngine,
  ) {
    this.name = source.name;
    this.digest = cached.digest;
    this.sizeBytes = cached.sizeBytes;
    this.map = cached.map;
    this.bytes = cached.bytes;
    this.cached = cached;
    this.source = source;
    this.flights = flights;
    this.flow = flow;
    this.#engine = engine;
    const granules = granuleCountOf(cached.sizeBytes);
    this.#ledger = new TouchLedger(cached.sizeBytes);
    this.#prefetched = new GranuleBits(granules);
    this.#demanded = new GranuleBits(granules);
    this.#readAhead = new GranuleBits(granules);
    this.#packed = new GranuleBits(granules);
  }

  get isClosed(): boolean {
    return this.#isClosed;
  }

  has(offset: number, length: number): boolean {
    return this.cached.has(offset, length);
  }

  isUnderWay(offset: number, length: number): boolean {
    return this.flights.pieces({ offset, length }).some(({ flight }) => flight !== null);
  }

  ensure(offset: number, length: number, options: EnsureOptions = {}): Promise<void> {
    if (this.#isClosed) return Promise.reject(this.closedError());
    if (this.#isOutside(offset, length)) {
      return Promise.reject(this.#rangeError(offset, length));
    }
    if (this.has(offset, length)) return RESOLVED;
    if (this.#isAbandoned) return Promise.reject(this.closedError());
    return this.#ensureMissing({ offset, length }, options);
  }

  drop(offset: number, length: number): boolean {
    if (this.#isClosed) return false;
    this.cached.drop({ offset, length });
    const first = Math.floor(offset / GRANULE_BYTES);
    const end = Math.ceil((offset + length) / GRANULE_BYTES);
    if (this.#packed.nextSet(first, end) < end) {
      this.#packed.clearRange(first, end);
      this.onPackedDamage();
    }
    return true;
  }

  /** Forgets all that came out of a packed source; gives how many bytes. */
  dropPacked(): number {
    const count = granuleCountOf(this.sizeBytes);
    let bytes = 0;
    for (let first = this.#packed.nextSet(0, count); first < count;) {
      const end = this.#packed.nextClear(first, count);
      const offset = first * GRANULE_BYTES;
      const length = Math.min(end * GRANULE_BYTES, this.sizeBytes) - offset;
      if (!this.#isClosed) this.cached.drop({ offset, length });
      this.#packed.clearRange(first, end);
      bytes += length;
      first = this.#packed.nextSet(end, count);
    }
    return bytes;
  }

  touch(offset: number, length: number): TouchedBytes {
    this.cached.stampUsed(offset, length);
    return this.#ledger.touch(offset, length, (granule) => this.#classify(granule));
  }

  touchedIn(offset: number, length: number): number {
    return this.#ledger.touchedIn(offset, length);
  }

  /** Told by the fetcher: bytes of this blob's own fetch are present. */
  onLanded(lane: Lane, start: number, end: number, isPacked: boolean): void {
    const first = start / GRANULE_BYTES;
    const last = Math.ceil(end / GRANULE_BYTES);
    const [mine, other] =
      lane === 'prefetch' ? [this.#prefetched, this.#demanded] : [this.#demanded, this.#prefetched];
    mine.setRange(first, last);
    other.clearRange(first, last);
    if (isPacked) this.#packed.setRange(first, last);
    else this.#packed.clearRange(first, last);
    if (lane === 'demand') {
      this.counters.demandBytes += end - start;
      return;
    }
    this.counters.prefetchedBytes += end - start;
    for (let granule = first; granule < last; granule += 1) {
      if (this.#ledger.isTouched(granule)) {
        this.counters.prefetchedTouchedBytes += this.#ledger.bytesOf(granule);
      }
    }
  }

  /** Told by the fetcher: this range is fetched only in case it is needed soon. */
  onReadAhead(range: ByteRange): void {
    const first = range.offset / GRANULE_BYTES;
    this.#readAhead.setRange(first, first + Math.ceil(range.length / GRANULE_BYTES));
    this.#window.onIssued(range.length);
    this.counters.readAheadBytes += range.length;
  }

  /** The range to fetch along with a missed one; `range` itself when read-ahead is off. */
  widen(range: ByteRange, linkBytes: number): ByteRange {
    if (this.readAhead === 'off') return range;
    const around = this.#window.around(range.offset, range.offset + range.length, linkBytes);
    const end = Math.min(around.offset + around.length, this.sizeBytes);
    return { offset: around.offset, length: end - around.offset };
  }

  closedError(): ReplaybdError {
    return new ReplaybdError('ERR_DEVICE_CLOSED', `${this.name}: the device was closed`);
  }

  /**
   * Ahead of `close`: from now on nothing waits for bytes that are not present, but for
   * ERR_DEVICE_CLOSED. What is present can still be read.
   */
  abandon(): void {
    this.#isAbandoned = true;
    for (const wait of this.#waits) wait.abort(this.closedError());
  }

  /** Cancels this blob's fetches and waits: they reject with ERR_DEVICE_CLOSED. */
  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  async #close(): Promise<void> {
    this.#isClosed = true;
    this.abandon();
    this.#engine.detach(this);
    await Promise.all([this.source.close(), this.cached.close()]);
  }

  #classify(granule: number): TouchClass {
    const bytes = this.#ledger.bytesOf(granule);
    if (this.#readAhead.test(granule)) {
      this.#readAhead.clearRange(granule, granule + 1);
      this.#window.onUsed(bytes);
      this.counters.readAheadTouchedBytes += bytes;
    }
    const offset = granule * GRANULE_BYTES;
    if (!this.has(offset, bytes)) {
      const flight = this.flights.at(offset);
      return flight?.lane === 'prefetch' && flight.state === 'active' ? 'late' : 'demand';
    }
    if (this.#prefetched.test(granule)) {
      this.counters.prefetchedTouchedBytes += bytes;
      return 'prefetched';
    }
    return this.#demanded.test(granule) ? 'demand' : 'cached';
  }

  async #ensureMissing(range: ByteRange, options: EnsureOptions): Promise<void> {
    const { lane = 'demand', signal } = options;
    signal?.throwIfAborted();
    const wait = new AbortController();
    const onAbort = (): void => wait.abort(signal?.reason);
    signal?.addEventListener('abort', onAbort);
    this.#waits.add(wait);
    const progress: { failure: FlightFailure | null } = { failure: null };
    if (lane === 'demand') this.#startDeadline(wait, range, progress);
    try {
      await this.#fetchUntilPresent(range, lane, wait.signal, progress);
    } finally {
      signal?.removeEventListener('abort', onAbort);
      this.#waits.delete(wait);
      wait.abort(IS_OVER);
    }
  }

  async #fetchUntilPresent(
    range: ByteRange,
    lane: Lane,
    signal: AbortSignal,
    progress: { failure: FlightFailure | null },
  ): Promise<void> {
    const { clock, random } = this.#engine;
    const attemptsMax =
      lane === 'demand' ? fetchLimits.demandAttemptsMax : fetchLimits.prefetchAttemptsMax;
    const order = lane === 'demand' ? 0 : this.#engine.place(this.flow, range.length);
    let attempts = 0;
    for (let round = 0; round < fetchLimits.waitRoundsMax; round += 1) {
      this.#engine.request(this, range, { lane, order, signal });
      const isPresent = (): boolean => this.has(range.offset, range.length);
      const failure = await this.flights.wait(range, isPresent, signal);
      if (isPresent()) return;
      if (failure === null || isOthersChoice(failure) || isRefusal(failure.error)) continue;
      if (failure.isPacked) {
        // It says nothing of the blob's own source.
        const pauseMs = throttledMs(failure.error);
        if (pauseMs > 0) await clock.sleep(pauseMs, signal);
        continue;
      }
      progress.failure = failure;
      if (isFinal(failure.error)) throw asReadError(failure.error, this.name);
      attempts += 1;
      if (attempts >= attemptsMax) throw asReadError(failure.error, this.name);
      this.#engine.onRetry();
      const isFirstTry = lane === 'demand' && failure.lane === 'prefetch';
      const backoff = isFirstTry ? 0 : backoffMs(attempts, random);
      const pauseMs = Math.max(backoff, throttledMs(failure.error));
      if (pauseMs > 0) await clock.sleep(pauseMs, signal);
    }
    throw new ReplaybdError(
      'ERR_READ_EVICTED',
      `${this.name}: bytes at ${range.offset} are evicted faster than they can be read. ` +
        'Give the cache a larger quota.',
    );
  }

  /** Fails the wait when its time is over, with the last failure if there was one. */
  #startDeadline(
    wait: AbortController,
    range: ByteRange,
    progress: { failure: FlightFailure | null },
  ): void {
    const { clock, readDeadlineMs } = this.#engine;
    const expire = (): void => {
      const { failure } = progress;
      const late = new ReplaybdError(
        'ERR_READ_DEADLINE',
        `${this.name}: ${range.length} bytes at ${range.offset} did not arrive within ` +
          `${readDeadlineMs} ms. Check the registry and the network.`,
      );
      // A stall says no more than that time is over.
      const isReason = failure !== null && codeOf(failure.error) !== 'ERR_FETCH_STALLED';
      wait.abort(isReason ? asReadError(failure.error, this.name) : late);
    };
    clock.sleep(readDeadlineMs, wait.signal).then(expire, () => undefined);
  }

  #isOutside(offset: number, length: number): boolean {
    return !(offset >= 0 && length >= 0 && offset + length <= this.sizeBytes);
  }

  #rangeError(offset: number, length: number): ReplaybdError {
    return new ReplaybdError(
      'ERR_BLOB_RANGE',
      `${this.name}: ${length} bytes at ${offset} do not lie within its ${this.sizeBytes} bytes`,
    );
  }
}

/** Another device's fetch, which ended because that device lost interest. */
function isOthersChoice(failure: FlightFailure): boolean {
  const code = codeOf(failure.error);
  return code === 'ERR_DEVICE_CLOSED' || code === 'ERR_PREFETCH_CANCELLED';
}
