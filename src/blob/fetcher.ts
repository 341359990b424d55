import PQueue from 'p-queue';
import { systemClock, type Clock } from '../base/clock.ts';
import { messageOf, ReplaybdError } from '../base/errors.ts';
import { fetchLimits, GRANULE_BYTES } from '../base/limits.ts';
import { silentLogger, type Logger } from '../base/log.ts';
import { mergeRanges, rangeEnd, type ByteRange } from '../base/range.ts';
import type { RangeSource } from './blob.ts';
import type { CachedBlob } from './cache/cached-blob.ts';
import { FairShare, Flow } from './fetch/fair-share.ts';
import { newLaneStats, type FetchEvent, type FetchStats } from './fetch/fetch-stats.ts';
import { FlightTable, type Flight } from './fetch/flight-table.ts';
import { Pacer } from './fetch/pacer.ts';
import { PackedStream, type PackedOptions } from './fetch/packed-stream.ts';
import { RemoteBlob, type Asked, type FetchEngine } from './fetch/remote-blob.ts';
import { isRefusal, throttledMs } from './fetch/retry.ts';
import { ownRequest, runRequest, type FlightRequest } from './fetch/run-request.ts';

export interface FetcherOptions {
  clock?: Clock;
  log?: Logger;
  /** [0, 1); spreads retries. */
  random?: () => number;
  /** A demand read that is not answered by then fails. */
  readDeadlineMs?: number;
  demandConcurrency?: number;
  prefetchConcurrency?: number;
  /** Told of every request that ended. */
  onFetch?: (event: FetchEvent) => void;
}

export interface PrefetchOptions {
  signal?: AbortSignal;
}

type BlobFlight = Flight<RemoteBlob>;

export function createFetcher(options: FetcherOptions = {}): Fetcher {
  return new Fetcher(options);
}

/**
 * Brings granules of one origin's blobs into the cache, each once, on two lanes:
 *
 *   demand     a guest waits: requests leave at once, and are retried until the read's deadline
 *   prefetch   everything else, of each device in the order it was asked for, and of several devices by
 *              equal shares; leaves as the pacer's window allows, which is smaller while a demand
 *              request is under way
 */
export class Fetcher {
  readonly #clock: Clock;
  readonly #log: Logger;
  readonly #random: () => number;
  readonly #onFetch: (event: FetchEvent) => void;
  readonly #stallMs: number;
  readonly #demandLane: PQueue;
  readonly #prefetchLane: PQueue;
  readonly #pacer = new Pacer();
  readonly #engine: FetchEngine;
  readonly #tables = new WeakMap<object, FlightTable<RemoteBlob>>();
  readonly #lanes = { demand: newLaneStats(), prefetch: newLaneStats() };
  readonly #counts = { promotions: 0, joins: 0, retries: 0, throttles: 0, refused: 0 };
  /** Demand requests queued or under way. */
  #demandWaiting = 0;
  readonly #closing = new AbortController();
  readonly #share = new FairShare();
  #isGathering = false;
  #throttledUntilMs = 0;
  #openBlobs = 0;

  constructor(options: FetcherOptions) {
    this.#clock = options.clock ?? systemClock;
    this.#log = options.log ?? silentLogger;
    this.#random = options.random ?? Math.random;
    this.#onFetch = options.onFetch ?? (() => undefined);
    const readDeadlineMs = options.readDeadlineMs ?? fetchLimits.readDeadlineMs;
    // A read is to see more than one request before its deadline.
    const stallMs = Math.ceil(readDeadlineMs / fetchLimits.stallsPerDeadline);
    this.#stallMs = Math.min(fetchLimits.stallMs, stallMs);
    const demandConcurrency = options.demandConcurrency ?? fetchLimits.demandConcurrencyMax;
    this.#demandLane = new PQueue({ concurrency: demandConcurrency });
    this.#prefetchLane = new PQueue({
      concurrency: options.prefetchConcurrency ?? fetchLimits.prefetchConcurrencyMax,
    });
    this.#engine = {
      clock: this.#clock,
      random: this.#random,
      readDeadlineMs,
      request: (blob, range, asked) => this.#request(blob, range, asked),
      place: (flow, bytes) => this.#share.place(flow, bytes),
      onRetry: () => (this.#counts.retries += 1),
      detach: (blob) => this.#detach(blob),
    };
  }

  get stats(): FetchStats {
    const { demand, prefetch } = this.#lanes;
    return {
      demand: { ...demand, queued: this.#demandLane.size },
      prefetch: { ...prefetch, queued: this.#prefetchLane.size },
      ...this.#counts,
      bytesPerSecond: this.#pacer.bytesPerSecond,
      roundTripMs: this.#pacer.roundTripMs,
      windowBytes: this.#pacer.windowBytes,
    };
  }

  /** Whether none of its blobs is open. */
  get isIdle(): boolean {
    return this.#openBlobs === 0;
  }

  /**
   * What is known of the link: 0 bytes a second while a window that is still opening makes it look
   * slower than it may be.
   */
  get link(): { bytesPerSecond: number; windowBytes: number } {
    const { bytesPerSecond, windowBytes, isOpening } = this.#pacer;
    const isKnown = !isOpening || bytesPerSecond >= fetchLimits.fastBytesPerSecond;
    return { bytesPerSecond: isKnown ? bytesPerSecond : 0, windowBytes };
  }

  /** Whether the prefetch lane takes another range of a flow: each has some room of its own. */
  takes(flow: Flow): boolean {
    const { prefetchBacklogMax, flowBacklogMin } = fetchLimits;
    return this.#prefetchLane.size < prefetchBacklogMax || flow.queued < flowBacklogMin;
  }

  /** Resolves when the prefetch lane takes more. */
  prefetchReady(): Promise<void> {
    return this.#prefetchLane.onSizeLessThan(fetchLimits.prefetchBacklogMax);
  }

  /**
   * A blob that is fetched from `source` as needed. It closes both when it is closed. A device's blobs
   * have one flow; without one, the blob has its own.
   */
  remoteBlob(cached: CachedBlob, source: RangeSource, flow: Flow = new Flow()): RemoteBlob {
    let table = this.#tables.get(cached.identity);
    if (table === undefined) {
      table = new FlightTable<RemoteBlob>();
      this.#tables.set(cached.identity, table);
    }
    this.#openBlobs += 1;
    return new RemoteBlob(cached, source, table, flow, this.#engine);
  }

  /**
   * Asks for a range ahead of need. Resolves when it is present, given up, cancelled, or was not
   * accepted (see `takes`); never rejects. Cancelling leaves requests under way alone.
   */
  async prefetch(blob: RemoteBlob, range: ByteRange, options: PrefetchOptions = {}): Promise<void> {
    if (blob.isClosed || options.signal?.aborted === true) return;
    if (!this.takes(blob.flow)) {
      this.#counts.refused += 1;
      return;
    }
    await blob
      .ensure(range.offset, range.length, { lane: 'prefetch', ...options })
      .catch((error: unknown) => {
        this.#log.debug({ blob: blob.name, ...range }, `prefetch given up: ${messageOf(error)}`);
      });
  }

  /**
   * Prefetches pieces of blobs out of a packed source, in order, as the lane allows. The first request
   * has left when this returns, where one may. Never fails: see PackedOptions.onRequest.
   */
  packed(options: PackedOptions): PackedStream {
    const stream = new PackedStream(options);
    this.#queuePacked(stream);
    return stream;
  }

  /**
   * Runs `ask`, which asks for many ranges ahead of need, and lets none leave before it returns:
   * those that are next to each other in line may then share a request.
   */
  gather<T>(ask: () => T): T {
    this.#isGathering = true;
    this.#prefetchLane.pause();
    try {
      return ask();
    } finally {
      this.#isGathering = false;
      this.#updatePrefetchLane();
    }
  }

  /** Ends the timers that back-off left; blobs are closed one by one. */
  close(): void {
    this.#closing.abort();
  }

  #request(blob: RemoteBlob, range: ByteRange, asked: Asked): void {
    const absent: ByteRange[] = [];
    for (const missing of blob.cached.missing(range.offset, range.length)) {
      for (const { start, end, flight } of blob.flights.pieces(missing)) {
        const isWanted =
          flight === null || (asked.lane === 'demand' && this.#promote(flight, start, end));
        if (isWanted) absent.push({ offset: start, length: end - start });
      }
    }
    if (asked.lane === 'prefetch') {
      for (const piece of absent) this.#enqueue(newFlight(blob, piece, asked, asked.signal));
    } else if (absent.length > 0) {
      this.#demand(blob, mergeRanges(absent), asked);
    }
  }

  /** Takes a range out of the prefetch queue; false when it is under way already. */
  #promote(flight: BlobFlight, start: number, end: number): boolean {
    if (flight.lane === 'demand') return false;
    if (flight.state === 'active') {
      this.#counts.joins += 1;
      return false;
    }
    this.#counts.promotions += 1;
    const rest = flight.owner.flights.carve(flight, start, end);
    if (rest !== null) this.#queueTask(rest);
    return true;
  }

  /** Fetches ranges now, with what is worth reading ahead of and, once they came, behind them. */
  #demand(blob: RemoteBlob, ranges: ByteRange[], asked: Asked): void {
    const last = ranges[ranges.length - 1];
    const whole = { offset: ranges[0].offset, length: rangeEnd(last) - ranges[0].offset };
    const wide = blob.widen(whole, this.#pacer.linkBytes);
    const ahead = this.#absent(blob, rangeEnd(last), rangeEnd(wide)).at(0);
    if (ahead?.offset === rangeEnd(last)) {
      blob.onReadAhead(ahead);
      last.length += ahead.length;
    }
    const done = ranges.map((range) => this.#demandRange(blob, range, asked));
    if (wide.offset === whole.offset) return;
    void Promise.all(done).then(() => {
      if (blob.isClosed) return;
      for (const behind of this.#absent(blob, wide.offset, whole.offset)) {
        blob.onReadAhead(behind);
        void this.#demandRange(blob, behind, asked);
      }
    });
  }

  /** What of [start, end) is neither present nor under way. */
  #absent(blob: RemoteBlob, start: number, end: number): ByteRange[] {
    if (start >= end) return [];
    return blob.cached
      .missing(start, end - start)
      .flatMap((missing) => blob.flights.pieces(missing))
      .filter((piece) => piece.flight === null)
      .map((piece) => ({ offset: piece.start, length: piece.end - piece.start }));
  }

  async #demandRange(blob: RemoteBlob, range: ByteRange, asked: Asked): Promise<void> {
    const flights: BlobFlight[] = [];
    const step = fetchLimits.demandRequestBytesMax;
    for (let offset = range.offset; offset < rangeEnd(range); offset += step) {
      const length = Math.min(step, rangeEnd(range) - offset);
      flights.push(newFlight(blob, { offset, length }, asked, null));
    }
    this.#demandWaiting += flights.length;
    const done = flights.map(async (flight) => {
      blob.flights.add(flight);
      await this.#demandLane.add(() => this.#runDemand(flight));
      this.#demandWaiting -= 1;
      this.#updatePrefetchLane();
    });
    this.#updatePrefetchLane();
    await Promise.all(done);
  }

  async #runDemand(flight: BlobFlight): Promise<void> {
    if (flight.state === 'queued') await this.#run([flight]);
  }

  #enqueue(flight: BlobFlight): void {
    flight.owner.flights.add(flight);
    this.#queueTask(flight);
  }

  #queueTask(flight: BlobFlight): void {
    const { flow } = flight.owner;
    flow.queued += 1;
    const run = async (): Promise<void> => {
      flow.queued -= 1;
      await this.#runPrefetch(flight);
    };
    void this.#prefetchLane.add(run, { priority: -flight.order });
  }

  /** Sends a request for a flight and for as much of those behind it as one request should bring. */
  async #runPrefetch(flight: BlobFlight): Promise<void> {
    if (flight.state !== 'queued') return;
    const { flights } = flight.owner;
    if (flight.signal?.aborted === true) {
      flights.fail(flight, new ReplaybdError('ERR_PREFETCH_CANCELLED', 'prefetch was cancelled'));
      return;
    }
    this.#share.leaves(flight.order);
    const rangesMax = flight.owner.source.many?.rangesMax ?? 1;
    const line = rangesMax === 1 ? [flight] : flights.queueFrom(flight);
    const batch: BlobFlight[] = [];
    let rest: BlobFlight | null = null;
    let leftBytes = this.#pacer.requestBytes;
    while (batch.length < Math.min(rangesMax, line.length) && leftBytes > 0) {
      const next = line[batch.length];
      if (next.end - next.start > leftBytes) rest = flights.split(next, next.start + leftBytes);
      leftBytes -= Math.ceil((next.end - next.start) / GRANULE_BYTES) * GRANULE_BYTES;
      batch.push(next);
    }
    for (const { start, end } of batch) this.#pacer.onAsked(end - start);
    const done = this.#run(batch);
    this.#updatePrefetchLane();
    if (rest !== null) this.#queueTask(rest);
    await done;
    this.#updatePrefetchLane();
  }

  #queuePacked(stream: PackedStream): void {
    const { flow } = stream;
    const order = this.#share.place(flow, this.#pacer.requestBytes);
    flow.queued += 1;
    const run = async (): Promise<void> => {
      flow.queued -= 1;
      await this.#runPacked(stream, order);
    };
    void this.#prefetchLane.add(run, { priority: -order });
  }

  /** Sends a packed stream's next request, and has the one behind it wait for its turn. */
  async #runPacked(stream: PackedStream, order: number): Promise<void> {
    this.#share.leaves(order);
    const bytesMax = this.#pacer.requestBytes * fetchLimits.packedRequestFactor;
    const request = stream.next(bytesMax, order);
    if (request === null) return;
    this.#pacer.onAsked(request.ranges[0].length);
    const done = this.#run(request.flights, request, (error) => stream.onEnd(request, error));
    this.#updatePrefetchLane();
    if (!stream.isOver) this.#queuePacked(stream);
    await done;
    this.#updatePrefetchLane();
  }

  /** Sends one request for flights: of one blob, unless `request` says otherwise. */
  async #run(
    flights: readonly BlobFlight[],
    request: FlightRequest = ownRequest(flights),
    onEnd: (error: unknown) => void = () => undefined,
  ): Promise<void> {
    const [{ lane: laneName }] = flights;
    const lane = this.#lanes[laneName];
    lane.requests += 1;
    lane.active += 1;
    for (const flight of flights) {
      flight.state = 'active';
      lane.activeBytes += flight.end - flight.start;
    }
    const timing = { clock: this.#clock, stallMs: this.#stallMs };
    await runRequest(flights, request, timing, {
      onFirstByte: (latencyMs) => this.#pacer.onFirstByte(latencyMs, this.#clock.nowMs()),
      onChunk: (bytes) => this.#pacer.onBytes(bytes, this.#clock.nowMs()),
      onLanded: (flight, upTo) => {
        lane.activeBytes -= upTo - flight.start;
        lane.bytes += upTo - flight.start;
        flight.owner.onLanded(laneName, flight.start, upTo, flight.isPacked);
        flight.owner.flights.landed(flight, upTo);
        this.#updatePrefetchLane();
      },
      onEnd: (event) => {
        lane.active -= 1;
        for (const flight of flights) lane.activeBytes -= flight.end - flight.start;
        this.#onEnd(flights, event);
        onEnd(event.error);
      },
    });
  }

  #onEnd(flights: readonly BlobFlight[], event: FetchEvent): void {
    const { demand, prefetch } = this.#lanes;
    if (demand.active + prefetch.active === 0) this.#pacer.onIdle();
    if (event.error !== null && !isRefusal(event.error)) {
      this.#lanes[event.lane].failures += 1;
      this.#onThrottled(throttledMs(event.error));
    }
    for (const flight of flights) {
      if (event.error !== null) flight.owner.flights.fail(flight, event.error);
      flight.state = 'done';
    }
    this.#onFetch(event);
  }

  /** The server wants to be left alone: demand retries later, the prefetch lane rests as a whole. */
  #onThrottled(ms: number): void {
    if (ms === 0) return;
    this.#counts.throttles += 1;
    this.#pacer.onThrottled();
    const untilMs = this.#clock.nowMs() + ms;
    if (untilMs <= this.#throttledUntilMs) return;
    this.#throttledUntilMs = untilMs;
    const goOn = (): void => {
      // Timers may be a little early, and nobody else might look again.
      if (this.#throttledUntilMs === untilMs) this.#throttledUntilMs = 0;
      this.#updatePrefetchLane();
    };
    this.#clock.sleep(ms, this.#closing.signal).then(goOn, () => undefined);
  }

  /** Lets the prefetch lane go on, or not, as window, demand and throttling allow. */
  #updatePrefetchLane(): void {
    const isNarrow = this.#demandWaiting > 0;
    const windowBytes =
      this.#pacer.windowBytes * (isNarrow ? fetchLimits.windowShareUnderDemand : 1);
    const { active, activeBytes } = this.#lanes.prefetch;
    const fits = active === 0 || activeBytes + this.#pacer.requestBytes <= windowBytes;
    const mayStart = !this.#isGathering && fits && this.#clock.nowMs() >= this.#throttledUntilMs;
    if (!fits && this.#prefetchLane.size > 0) this.#pacer.onLimited();
    if (mayStart) this.#prefetchLane.start();
    else this.#prefetchLane.pause();
  }

  #detach(blob: RemoteBlob): void {
    this.#openBlobs -= 1;
    const error = blob.closedError();
    for (const flight of blob.flights.flightsOf(blob)) {
      if (flight.state === 'active') flight.abort?.abort(error);
      else blob.flights.fail(flight, error);
    }
  }
}

function newFlight(
  owner: RemoteBlob,
  range: ByteRange,
  asked: Asked,
  signal: AbortSignal | null,
): BlobFlight {
  return {
    owner,
    lane: asked.lane,
    isPacked: false,
    start: range.offset,
    end: rangeEnd(range),
    state: 'queued',
    order: asked.order,
    signal,
    abort: null,
  };
}
