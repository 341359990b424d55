import type { Blob } from '../blob/blob.ts';
import type { Clock } from '../base/clock.ts';
import { messageOf } from '../base/errors.ts';
import { GRANULE_BYTES, prefetchLimits } from '../base/limits.ts';
import type { Logger } from '../base/log.ts';
import type { ByteRange } from '../base/range.ts';
import { hotRanges } from '../trace/hot-layout.ts';
import type { Trace, TracePacked } from '../trace/trace.ts';
import { coalesce, type PrefetchRequest } from './coalesce.ts';
import { coalesceOptionsFor, type CoalesceOptions, type LinkEstimate } from './coalesce-options.ts';
import type { DueRange } from './plan-window.ts';

/** What a replay needs of the fetcher: its prefetch lane. */
export interface PrefetchLane {
  /** Settles when the range is in the cache, or will not be: given up, refused or aborted. */
  prefetch(blob: Blob, range: ByteRange, options: { signal: AbortSignal }): Promise<void>;
  /** Runs `ask`; nothing it asks for leaves before it returns, so that ranges may share requests. */
  gather?<T>(ask: () => T): T;
  /** Back-pressure: resolves when the lane takes another range; null when it does already. */
  ready?(): Promise<void> | null;
  /** The link as it was measured so far, and the bytes it has room for. */
  link?(): LinkEstimate & { readonly windowBytes: number };
}

/** A part of the plan, and where its bytes stand in the hot blob. */
export interface PackedRange {
  readonly blob: Blob;
  readonly range: ByteRange;
  readonly at: number;
}

/** What a replay needs of the fetcher to read a hot blob. */
export interface PackedLane {
  /**
   * Fetches what is absent, in order; `finished` when that is over, with the reason when it was given up
   * and null otherwise.
   */
  fetch(
    ranges: Iterator<PackedRange>,
    options: {
      signal: AbortSignal;
      /** Told of each request that ended, and of what it did not bring. */
      onRequest: (end: {
        bytes: number;
        gapBytes: number;
        missing: readonly PackedRange[];
        error: unknown;
      }) => void;
    },
  ): { readonly finished: Promise<string | null> };
}

export interface ReplayOptions {
  readonly trace: Pick<Trace, 'image' | 'plan' | 'packed'>;
  /** The image's blobs by digest. They need not be open as layers. */
  readonly blobs: ReadonlyMap<string, Blob>;
  readonly lane: PrefetchLane;
  /** For a packed trace: its hot blob is read instead of the layers' own blobs, as far as it holds. */
  readonly packed?: PackedLane;
  /** Bytes a replay may ask for. */
  readonly budgetBytes: number;
  readonly clock: Clock;
  readonly log: Logger;
  readonly coalesce?: CoalesceOptions;
  readonly outstandingMax?: number;
}

/** Why a replay ended: its plan, its budget, too many failures in a row, or `cancel`. */
export type ReplayEnd = 'complete' | 'budget' | 'failed' | 'cancelled';

export interface ReplayCounters {
  /** Requests handed to the fetcher, and how they ended. */
  requests: number;
  done: number;
  failed: number;
  /** Bytes asked for; of those, bytes that fill gaps. */
  requestedBytes: number;
  gapBytes: number;
  /** Bytes that were in the cache when their turn came. */
  presentBytes: number;
  /** Plan ranges of blobs that the image does not have, or not of that size, and their bytes. */
  foreignRanges: number;
  foreignBytes: number;
  /** Bytes of the plan that the budget left out. */
  overBudgetBytes: number;
  /** Bytes asked for that did not come. */
  failedBytes: number;
}

/** How the hot blob of a packed trace was read. */
export interface PackedCounters {
  requests: number;
  /** Of the plan, what came out of it. */
  bytes: number;
  /**
   * Null while it is read. 'given-up': requests of it failed, or its bytes were damaged; what it did not
   * bring is fetched from the layers.
   */
  ended: 'complete' | 'given-up' | 'budget' | 'cancelled' | null;
}

export function noReplayCounters(): ReplayCounters {
  return {
    ...{ requests: 0, done: 0, failed: 0, requestedBytes: 0, gapBytes: 0, presentBytes: 0 },
    ...{ foreignRanges: 0, foreignBytes: 0, overBudgetBytes: 0, failedBytes: 0 },
  };
}

export interface Replay {
  readonly counters: Readonly<ReplayCounters>;
  /** Null when no hot blob is read. */
  readonly packed: Readonly<PackedCounters> | null;
  /** The share of the plan's bytes that are foreign to the image; null while there is no plan. */
  readonly staleRatio: number | null;
  /** Null while it runs. */
  readonly end: ReplayEnd | null;
  /** Resolves when nothing is in flight any more; never rejects. */
  readonly finished: Promise<ReplayEnd>;
  /** Aborts what is queued and in flight. */
  cancel(): void;
}

/** Prefetches a trace's plan. The first request has left when this returns. */
export function startReplay(options: ReplayOptions): Replay {
  return new PlanReplay(options);
}

/** Steps in which a rate doubles: options follow it so closely. */
const STEPS_PER_DOUBLING = 4;
/** Windows of the lane that are handed over before they are needed. */
const BACKLOG_WINDOWS = 2;

class PlanReplay implements Replay {
  readonly counters = noReplayCounters();
  packed: PackedCounters | null = null;
  readonly finished: Promise<ReplayEnd>;
  readonly #options: ReplayOptions;
  /** By the trace's layer number; null where the image at hand has no such blob. */
  readonly #blobs: readonly (Blob | null)[];
  readonly #abort = new AbortController();
  readonly #outstanding = new Set<Promise<void>>();
  #outstandingBytes = 0;
  #failuresInRow = 0;
  #isBudgetSpent = false;
  /** What the lane asked to wait for. */
  #laneReady: Promise<void> | null = null;
  #end: ReplayEnd | null = null;
  #plannedOnce: PlannedBytes | null = null;
  /** Bytes of the plan whose turn came, foreign ones aside. */
  #reachedBytes = 0;
  #isForeignCounted = false;
  /** Number of the first plan range that the hot blob has not been asked for, or not wholly. */
  #packedUpTo = 0;

  constructor(options: ReplayOptions) {
    this.#options = options;
    this.#blobs = options.trace.image.layers.map((layer) => {
      const blob = options.blobs.get(layer.digest);
      return blob !== undefined && blob.sizeBytes === layer.sizeBytes ? blob : null;
    });
    this.finished = this.#run();
  }

  get end(): ReplayEnd | null {
    return this.#end;
  }

  get staleRatio(): number | null {
    const { bytes, foreignBytes } = this.#planned;
    return bytes === 0 ? null : foreignBytes / bytes;
  }

  cancel(): void {
    this.#abort.abort(new DOMException('the replay was cancelled', 'AbortError'));
  }

  /** Counted when it is asked for: the first requests do not wait for it. */
  get #planned(): PlannedBytes {
    this.#plannedOnce ??= plannedBytes(this.#options.trace, this.#blobs);
    return this.#plannedOnce;
  }

  async #run(): Promise<ReplayEnd> {
    const end = await this.#feedAll();
    await Promise.all(this.#outstanding);
    this.#end = this.#abort.signal.aborted ? 'cancelled' : end;
    this.#options.log.info({ end: this.#end, ...this.counters }, 'replay ended');
    return this.#end;
  }

  async #feedAll(): Promise<ReplayEnd> {
    const { packed, trace } = this.#options;
    if (packed === undefined || trace.packed === undefined) return await this.#feed(() => true);
    const layers = new Set(trace.packed.layers);
    const reading = this.#feedPacked(packed, trace.packed);
    const end = await this.#feed((layer) => !layers.has(layer));
    await reading;
    if (end !== 'complete') return end;
    // What the hot blob was not asked for, because it failed.
    return await this.#feed((layer, index) => layers.has(layer) && index >= this.#packedUpTo);
  }

  /** Reads the hot blob as far as it goes; what does not come of it is fetched from the layers. */
  async #feedPacked(lane: PackedLane, packed: TracePacked): Promise<void> {
    const { counters } = this;
    const { log } = this.#options;
    const { signal } = this.#abort;
    const hotBlob = packed.digest;
    const hot: PackedCounters = { requests: 0, bytes: 0, ended: null };
    this.packed = hot;
    const reason = await lane.fetch(this.#packedRanges(packed), {
      signal,
      onRequest: ({ bytes, gapBytes, missing, error }) => {
        counters.requests += 1;
        counters.gapBytes += gapBytes;
        hot.requests += 1;
        hot.bytes += bytes;
        if (error === null) counters.done += 1;
        if (error === null || signal.aborted) return;
        counters.failed += 1;
        log.debug({ hotBlob }, `a request of the hot blob failed: ${messageOf(error)}`);
        this.#askLayersFor(missing);
      },
    }).finished;
    const isWhole = this.#packedUpTo === this.#options.trace.plan.count;
    if (signal.aborted) hot.ended = 'cancelled';
    else if (reason !== null) hot.ended = 'given-up';
    else hot.ended = isWhole ? 'complete' : 'budget';
    if (hot.ended !== 'given-up') return;
    log.warn({ hotBlob, reason }, 'the hot blob is given up: the rest comes from the layers');
  }

  *#packedRanges({ layers }: TracePacked): Generator<PackedRange, void, undefined> {
    const { plan } = this.#options.trace;
    for (const { index, layer, offset, length, at } of hotRanges(plan, layers)) {
      this.#packedUpTo = index;
      const blob = this.#blobs[layer];
      if (blob === null) continue;
      const range = absentPart(blob, { offset, length });
      this.counters.presentBytes += length - range.length;
      if (range.length > 0 && !this.#spend(range.length)) return;
      this.#reachedBytes += length;
      if (range.length > 0) yield { blob, range, at: at + (range.offset - offset) };
    }
    this.#packedUpTo = plan.count;
  }

  #askLayersFor(missing: readonly PackedRange[]): void {
    const ranges = missing.map(({ blob, range }) => ({
      ...range,
      blob: this.#blobs.indexOf(blob),
      dueUs: 0,
    }));
    for (const request of coalesce(ranges, this.#coalesceOptions())) {
      const blob = this.#blobs[request.blob];
      if (blob !== null && this.#spend(request.length)) this.#issue(blob, request, request);
    }
  }

  /** Takes bytes off the budget; false when there are not so many left. */
  #spend(bytes: number): boolean {
    const { counters } = this;
    if (this.#isBudgetSpent) return false;
    if (counters.requestedBytes + bytes <= this.#options.budgetBytes) {
      counters.requestedBytes += bytes;
      return true;
    }
    this.#isBudgetSpent = true;
    const planned = this.#planned;
    const leftBytes = planned.bytes - planned.foreignBytes - this.#reachedBytes;
    counters.overBudgetBytes = Math.max(0, leftBytes);
    return false;
  }

  async #feed(isWanted: (layer: number, index: number) => boolean): Promise<ReplayEnd> {
    const { lane } = this.#options;
    const plan = coalesce(this.#knownRanges(isWanted), () => this.#coalesceOptions());
    const askUntilAhead = (): boolean => this.#askUntilAhead(plan);
    for (;;) {
      // No turn of the event loop is given away: opening the layers would ask for the same bytes.
      const isOver = lane.gather?.(askUntilAhead) ?? askUntilAhead();
      if (this.#abort.signal.aborted) return 'cancelled';
      if (isOver) return this.#isBudgetSpent ? 'budget' : 'complete';
      while (this.#isAhead()) await Promise.race(this.#outstanding);
      await this.#laneReady;
      if (this.#failuresInRow > 0 && !(await this.#backOff())) return 'failed';
    }
  }

  /** Hands requests over until the lane has enough; true when there are no more. */
  #askUntilAhead(plan: Iterator<PrefetchRequest>): boolean {
    const { lane } = this.#options;
    const { counters } = this;
    while (!this.#abort.signal.aborted) {
      if (this.#isBudgetSpent) return true;
      const { value: request, done } = plan.next();
      if (done === true) return true;
      const blob = this.#blobs[request.blob];
      if (blob === null) continue;
      const range = absentPart(blob, request);
      counters.presentBytes += request.length - range.length;
      if (range.length > 0 && !this.#spend(range.length)) return true;
      this.#reachedBytes += request.neededBytes;
      if (range.length === 0) continue;
      this.#issue(blob, range, request);
      this.#laneReady = lane.ready?.() ?? null;
      if (this.#laneReady !== null || this.#isAhead() || this.#failuresInRow > 0) return false;
    }
    return true;
  }

  /** What is learned of a link changes all the time, options only when it matters. */
  #coalesceOptions(): CoalesceOptions {
    const { coalesce: chosen, lane } = this.#options;
    if (chosen !== undefined) return chosen;
    const bytesPerSecond = lane.link?.().bytesPerSecond ?? 0;
    if (bytesPerSecond <= 0) return coalesceOptionsFor({ bytesPerSecond: 0 });
    const steps = Math.floor(STEPS_PER_DOUBLING * Math.log2(bytesPerSecond));
    return coalesceOptionsFor({ bytesPerSecond: 2 ** (steps / STEPS_PER_DOUBLING) });
  }

  /**
   * Whether the lane has enough to go on with. No more than that is decided beforehand: what the
   * requests should look like is learned as they are answered.
   */
  #isAhead(): boolean {
    const { lane, outstandingMax = prefetchLimits.outstandingMax } = this.#options;
    const { size } = this.#outstanding;
    if (size >= outstandingMax) return true;
    const windowBytes = lane.link?.().windowBytes ?? Infinity;
    return size > 1 && this.#outstandingBytes > BACKLOG_WINDOWS * windowBytes;
  }

  /** Each range once, however often the plan is gone through. */
  #countForeign(bytes: number): void {
    if (this.#isForeignCounted) return;
    this.counters.foreignRanges += 1;
    this.counters.foreignBytes += bytes;
  }

  *#knownRanges(
    isWanted: (layer: number, index: number) => boolean,
  ): Generator<DueRange, void, undefined> {
    const { count, blob, offset, length, dueUs } = this.#options.trace.plan;
    for (let i = 0; i < count; i += 1) {
      if (this.#blobs[blob[i]] === null) this.#countForeign(length[i]);
      else if (isWanted(blob[i], i)) {
        yield { blob: blob[i], offset: offset[i], length: length[i], dueUs: dueUs[i] };
      }
    }
    this.#isForeignCounted = true;
  }

  #issue(blob: Blob, range: ByteRange, request: PrefetchRequest): void {
    const { counters } = this;
    counters.requests += 1;
    counters.gapBytes += Math.min(request.length - request.neededBytes, range.length);
    this.#outstandingBytes += range.length;
    const work = this.#fetch(blob, range).finally(() => {
      this.#outstandingBytes -= range.length;
      this.#outstanding.delete(work);
    });
    this.#outstanding.add(work);
  }

  async #fetch(blob: Blob, range: ByteRange): Promise<void> {
    const { lane, log } = this.#options;
    let reason = 'the fetcher gave it up';
    try {
      await lane.prefetch(blob, range, { signal: this.#abort.signal });
    } catch (error) {
      reason = messageOf(error);
    }
    if (blob.has(range.offset, range.length)) {
      this.counters.done += 1;
      this.#failuresInRow = 0;
    } else if (!this.#abort.signal.aborted) {
      this.counters.failed += 1;
      this.counters.failedBytes += absentPart(blob, range).length;
      this.#failuresInRow += 1;
      log.debug({ blob: blob.name, ...range }, `prefetch failed: ${reason}`);
    }
  }

  /** Slows down while requests fail; false when there were too many in a row. */
  async #backOff(): Promise<boolean> {
    if (this.#failuresInRow >= prefetchLimits.failuresMax) {
      this.#options.log.warn({ failures: this.#failuresInRow }, 'replay gives up: requests fail');
      return false;
    }
    const { failureDelayMsMin, failureDelayMsMax } = prefetchLimits;
    const delayMs = Math.min(failureDelayMsMin * 2 ** this.#failuresInRow, failureDelayMsMax);
    try {
      await this.#options.clock.sleep(delayMs, this.#abort.signal);
    } catch {
      // Cancelled: the feeder notices by itself.
    }
    return true;
  }
}

interface PlannedBytes {
  bytes: number;
  /** Of blobs that the image does not have, or not of that size. */
  foreignBytes: number;
}

function plannedBytes(
  { plan }: Pick<Trace, 'plan'>,
  blobs: readonly (Blob | null)[],
): PlannedBytes {
  let foreignBytes = 0;
  let bytes = 0;
  for (let i = 0; i < plan.count; i += 1) {
    bytes += plan.length[i];
    if (blobs[plan.blob[i]] === null) foreignBytes += plan.length[i];
  }
  return { bytes, foreignBytes };
}

/** A request without the granules at either end that are present already. */
function absentPart(blob: Blob, range: ByteRange): ByteRange {
  let { offset } = range;
  let end = range.offset + range.length;
  while (offset < end && blob.has(offset, Math.min(GRANULE_BYTES, end - offset))) {
    offset = Math.min(offset + GRANULE_BYTES, end);
  }
  while (offset < end) {
    const lastGranule = Math.max(offset, Math.floor((end - 1) / GRANULE_BYTES) * GRANULE_BYTES);
    if (!blob.has(lastGranule, end - lastGranule)) break;
    end = lastGranule;
  }
  return { offset, length: end - offset };
}
