import { fetchLimits, GRANULE_BYTES, prefetchLimits } from '../../base/limits.ts';
import { rangeEnd } from '../../base/range.ts';
import type { Pacer } from '../../blob/fetch/pacer.ts';
import { coalesce, type PrefetchRequest } from '../coalesce.ts';
import { coalesceOptionsFor, type CoalesceOptions } from '../coalesce-options.ts';
import type { DueRange } from '../plan-window.ts';
import type { EventQueue } from './event-queue.ts';
import type { ConnectionPool, Transfer } from './network.ts';
import { ABSENT, QUEUED, type BlobRange, type Landing, type UnitStates } from './unit-states.ts';
import { placeFrom } from './workload.ts';

export interface PrefetchLaneOptions {
  readonly events: EventQueue;
  readonly pacer: Pacer;
  readonly states: UnitStates;
  readonly pool: ConnectionPool;
  /** In the order they are to be fetched. */
  readonly ranges: Iterable<DueRange>;
  readonly concurrency: number;
  /** The most that one request brings; null for what the link suggests. */
  readonly rangeBytes: number | null;
  /** Ranges of a blob that one request may bring. */
  readonly rangesPerRequest: number;
  /** The ranges are one behind the other in a hot blob: no request is of more than one of its. */
  readonly isPacked: boolean;
  readonly isDemandWaiting: () => boolean;
}

/** Windows of the lane that are handed over before they are needed, as replay.ts does. */
const BACKLOG_WINDOWS = 2;
/** Options follow the measured rate in steps of a quarter of a doubling, as replay.ts does. */
const STEPS_PER_DOUBLING = 4;

/**
 * What the fetcher's prefetch lane does with a replay: coalesced requests in line, several of a blob to
 * a request, as many bytes under way as the pacer's window allows, and fewer while a guest waits.
 */
export class PrefetchLane {
  readonly #options: PrefetchLaneOptions;
  readonly #plan: Iterator<PrefetchRequest>;
  /** In line; units that a guest's read took out of it are no longer queued. */
  #queue: BlobRange[] = [];
  #queuedBytes = 0;
  #active = 0;
  #activeBytes = 0;
  #isPlanOver = false;
  requests = 0;

  constructor(options: PrefetchLaneOptions) {
    this.#options = options;
    const { ranges, isPacked } = options;
    this.#plan = isPacked ? asTheyAre(ranges) : coalesce(ranges, () => this.#coalesceOptions());
  }

  /** Hands over and sends what may leave now. */
  pump(): void {
    this.#feed();
    while (this.#queue.length > 0 && this.#mayStart()) {
      const batch = this.#nextBatch();
      if (batch.length > 0) this.#send(batch);
      this.#feed();
    }
  }

  #mayStart(): boolean {
    const { pacer, concurrency, isDemandWaiting } = this.#options;
    if (this.#active >= concurrency) return false;
    const share = isDemandWaiting() ? fetchLimits.windowShareUnderDemand : 1;
    const windowBytes = pacer.windowBytes * share;
    const fits = this.#active === 0 || this.#activeBytes + this.#requestBytes <= windowBytes;
    if (!fits) pacer.onLimited();
    return fits;
  }

  get #requestBytes(): number {
    return this.#options.rangeBytes ?? this.#options.pacer.requestBytes;
  }

  #feed(): void {
    const { pacer, states } = this.#options;
    while (!this.#isPlanOver && !this.#isAhead(pacer.windowBytes)) {
      const { value: request, done } = this.#plan.next();
      if (done === true) {
        this.#isPlanOver = true;
        return;
      }
      const { blob, offset } = request;
      for (const range of states.ranges(ABSENT, blob, offset, rangeEnd(request))) {
        states.queue(range);
        this.#queue.push(range);
        this.#queuedBytes += range.length;
      }
    }
  }

  #isAhead(windowBytes: number): boolean {
    const count = this.#queue.length + this.#active;
    if (count >= prefetchLimits.outstandingMax && !this.#options.isPacked) return true;
    return count > 1 && this.#queuedBytes + this.#activeBytes > BACKLOG_WINDOWS * windowBytes;
  }

  /** The next in line, with as many of its blob behind it as one request should bring. */
  #nextBatch(): BlobRange[] {
    const { states, isPacked } = this.#options;
    const rangesMax = isPacked ? Infinity : this.#options.rangesPerRequest;
    const [{ blob }] = this.#queue;
    const batch: BlobRange[] = [];
    const kept: BlobRange[] = [];
    let leftBytes = this.#requestBytes * (isPacked ? fetchLimits.packedRequestFactor : 1);
    let index = 0;
    for (; index < this.#queue.length; index += 1) {
      const range = this.#queue[index];
      if (leftBytes <= 0 || batch.length >= rangesMax) break;
      if (range.blob !== blob && !isPacked) {
        kept.push(range);
        continue;
      }
      this.#queuedBytes -= range.length;
      for (const part of states.ranges(QUEUED, range.blob, range.offset, rangeEnd(range))) {
        if (leftBytes <= 0 || batch.length >= rangesMax) {
          kept.push(part);
          this.#queuedBytes += part.length;
          continue;
        }
        const taken = this.#cut(part, leftBytes);
        batch.push(taken);
        leftBytes -= taken.length;
        if (taken.length === part.length) continue;
        const rest = {
          blob: part.blob,
          offset: rangeEnd(taken),
          length: part.length - taken.length,
        };
        kept.push(rest);
        this.#queuedBytes += rest.length;
      }
    }
    this.#queue.splice(0, index, ...kept);
    return batch;
  }

  /** The beginning of a range, of about so many bytes and up to where a unit begins. */
  #cut(range: BlobRange, bytes: number): BlobRange {
    if (range.length <= bytes) return range;
    const { workload } = this.#options.states;
    const { blob, offset } = range;
    const place = placeFrom(workload, blob, offset + bytes);
    const isInBlob = place < workload.firstPlace[blob + 1];
    const end = isInBlob ? Math.min(rangeEnd(range), workload.offsetAt[place]) : rangeEnd(range);
    return { blob, offset, length: end - offset };
  }

  #send(batch: readonly BlobRange[]): void {
    const { pacer, states, pool } = this.#options;
    const landing = states.landing();
    for (const range of batch) states.activate(landing, range, 'prefetch');
    const bytes = landing.expectedBytes;
    this.requests += 1;
    this.#active += 1;
    this.#activeBytes += bytes;
    pacer.onAsked(Math.ceil(bytes / GRANULE_BYTES) * GRANULE_BYTES);
    pool.request(this.#transfer(bytes, landing));
  }

  #transfer(bytes: number, landing: Landing): Transfer {
    const { events, pacer, states } = this.#options;
    return {
      bytes,
      onFirstByte: (latencyMs) => pacer.onFirstByte(latencyMs, events.nowMs),
      onBytes: (count) => {
        pacer.onBytes(count, events.nowMs);
        this.#activeBytes -= count;
        states.land(landing, count);
        this.pump();
      },
      onEnd: () => {
        this.#active -= 1;
        this.pump();
      },
    };
  }

  /** As replay.ts: a rate counts once the window is open, or when it is fast anyway. */
  #coalesceOptions(): CoalesceOptions {
    const { pacer, rangeBytes } = this.#options;
    const { bytesPerSecond, isOpening } = pacer;
    const isKnown =
      bytesPerSecond > 0 && (!isOpening || bytesPerSecond >= fetchLimits.fastBytesPerSecond);
    const steps = Math.floor(STEPS_PER_DOUBLING * Math.log2(bytesPerSecond));
    const rate = isKnown ? 2 ** (steps / STEPS_PER_DOUBLING) : 0;
    const options = coalesceOptionsFor({ bytesPerSecond: rate });
    if (rangeBytes === null) return options;
    return { ...options, requestBytesMax: rangeBytes };
  }
}

function* asTheyAre(ranges: Iterable<DueRange>): Generator<PrefetchRequest, void, undefined> {
  for (const range of ranges) yield { ...range, neededBytes: range.length };
}
