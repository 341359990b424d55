import { defaultCoalesceOptions, type CoalesceOptions } from './coalesce-options.ts';
import { PlanWindow, type DueRange, type Entry } from './plan-window.ts';

/** One request: due ranges of a blob, and the gaps between them that were not worth a request. */
export interface PrefetchRequest extends DueRange {
  /** Bytes of due ranges; the rest of `length` is over-fetch. */
  readonly neededBytes: number;
}

/** Part of the horizon that counts before anything was requested. */
const FIRST_HORIZON_SHARE = 1 / 4;

/**
 * Turns due ranges, earliest first, into requests, lazily. Each request is made for the earliest
 * range not yet requested, and takes along its neighbours in the blob: those that are due within
 * the horizon and close enough. No granule is requested twice, whatever the input repeats. Options
 * that are a function are asked before each request, so they can follow what is learned of the link.
 */
export function* coalesce(
  ranges: Iterable<DueRange>,
  options: CoalesceOptions | (() => CoalesceOptions) = defaultCoalesceOptions,
): Generator<PrefetchRequest, void, undefined> {
  const optionsNow = typeof options === 'function' ? options : () => options;
  const coalescer = new Coalescer(ranges, optionsNow());
  for (;;) {
    const request = coalescer.next(optionsNow());
    if (request === null) return;
    yield request;
  }
}

class Coalescer {
  readonly #window: PlanWindow;
  #requests = 0;
  #neededBytes = 0;
  #gapBytes = 0;
  /** What gaps may cost in all, and the largest worth closing, for a window and a limit. */
  #budget = { bytes: 0, gapBytesMax: 0, generation: -1, limit: -1 };

  constructor(ranges: Iterable<DueRange>, options: CoalesceOptions) {
    this.#window = new PlanWindow(ranges, options.firstRequestBytesMax);
  }

  next(options: CoalesceOptions): PrefetchRequest | null {
    const seed = this.#window.next();
    if (seed === null) return null;
    this.#updateBudget(options);
    const request = this.#grow(seed, options);
    this.#neededBytes += request.neededBytes;
    this.#gapBytes += request.length - request.neededBytes;
    this.#requests += 1;
    return request;
  }

  /** The budget counts what the window holds as requested already: it will be. */
  #updateBudget({ gapBytesMax: limit, overFetchRatioMax, horizonBytes }: CoalesceOptions): void {
    const { generation } = this.#window;
    if (this.#budget.generation === generation && this.#budget.limit === limit) return;
    const bytes = overFetchRatioMax * (this.#neededBytes + this.#window.openBytes);
    const left = { bytes: bytes - this.#gapBytes, gapBytesMax: limit, horizonBytes };
    this.#budget = { bytes, gapBytesMax: this.#window.worthwhileGap(left), generation, limit };
  }

  #grow(seed: Entry, options: CoalesceOptions): PrefetchRequest {
    const window = this.#window;
    const isFirst = this.#requests < options.firstRequests;
    const { firstRequestBytesMax, requestBytesMax } = options;
    const lengthMax = isFirst ? Math.min(firstRequestBytesMax, requestBytesMax) : requestBytesMax;
    const horizonBytes = Math.min(
      options.horizonBytes,
      options.horizonBytes * FIRST_HORIZON_SHARE + this.#neededBytes,
    );
    let { offset } = seed;
    let end = seed.offset + seed.length;
    let needed = seed.length;
    seed.taken = true;

    const take = (entry: Entry | undefined, gapStart: number, gapEnd: number): boolean => {
      if (entry === undefined || entry.taken || entry.blob !== seed.blob) return false;
      const gap = gapEnd - gapStart;
      const length = Math.max(end, entry.offset + entry.length) - Math.min(offset, entry.offset);
      const isNear =
        length <= lengthMax &&
        entry.position - seed.position <= horizonBytes &&
        entry.dueUs - seed.dueUs <= options.horizonUs;
      const allGaps = this.#gapBytes + (end - offset - needed) + gap;
      const isCheap =
        gap === 0 || (gap <= this.#budget.gapBytesMax && allGaps <= this.#budget.bytes);
      if (!isNear || !isCheap || !window.claimGap(seed.blob, gapStart, gap)) return false;
      entry.taken = true;
      needed += entry.length;
      offset = Math.min(offset, entry.offset);
      end = Math.max(end, entry.offset + entry.length);
      return true;
    };

    for (let place = seed.place + 1; ; place += 1) {
      const entry = window.at(place);
      if (!take(entry, end, entry?.offset ?? end)) break;
    }
    for (let place = seed.place - 1; ; place -= 1) {
      const entry = window.at(place);
      if (entry === undefined || seed.offset - entry.offset > options.leadBytesMax) break;
      if (!take(entry, entry.offset + entry.length, offset)) break;
    }
    const { blob, dueUs } = seed;
    return { blob, offset, length: end - offset, dueUs, neededBytes: needed };
  }
}
