import { GRANULE_BYTES, prefetchLimits } from '../base/limits.ts';
import { SparseBitmap } from '../base/sparse-bitmap.ts';

/** A blob range with its due time; offsets are whole granules. */
export interface DueRange {
  /** The caller's number for the blob. */
  readonly blob: number;
  readonly offset: number;
  readonly length: number;
  readonly dueUs: number;
}

/** One request: due ranges of a blob, and the gaps between them that were not worth a request. */
export interface PrefetchRequest extends DueRange {
  /** Bytes of due ranges; the rest of `length` is over-fetch. */
  readonly neededBytes: number;
}

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
  /** How far ahead, in bytes of the plan and in due time, a range may be pulled forward. */
  readonly horizonBytes: number;
  readonly horizonUs: number;
  /** Bytes of later ranges that may come before the range the request is made for. */
  readonly leadBytesMax: number;
}

const KIB = 1024;
const MIB = 1024 * KIB;

export const defaultCoalesceOptions: CoalesceOptions = {
  gapBytesMax: 32 * KIB,
  overFetchRatioMax: 0.1,
  requestBytesMax: MIB,
  firstRequests: 8,
  firstRequestBytesMax: 128 * KIB,
  horizonBytes: 16 * MIB,
  horizonUs: 2_000_000,
  leadBytesMax: 128 * KIB,
};

/** A link as it was measured, or 0 for what is not known. */
export interface LinkEstimate {
  readonly bytesPerSecond: number;
}

/**
 * Options for a link: a request takes at most about 50 ms of it, so that a slow link is not
 * blocked by one, and a gap may cost as much as 1 ms, about what another request costs.
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
    gapBytesMax: wholeGranules(0.001, GRANULE_BYTES, 64 * KIB),
  };
}

interface Entry extends DueRange {
  /** Bytes of the plan before it. */
  readonly position: number;
  taken: boolean;
  /** Index in order of (blob, offset) within the window. */
  place: number;
}

/**
 * Turns due ranges, earliest first, into requests, lazily. Each request is made for the earliest
 * range not yet requested, and takes along its neighbours in the blob: those that are due within
 * the horizon and close enough. No granule is requested twice, whatever the input repeats.
 */
export function* coalesce(
  ranges: Iterable<DueRange>,
  options: CoalesceOptions = defaultCoalesceOptions,
): Generator<PrefetchRequest, void, undefined> {
  const window = new Window(ranges, options.firstRequestBytesMax);
  const spent: Spent = { needed: 0, gaps: 0, requests: 0 };
  for (let seed = window.next(); seed !== null; seed = window.next()) {
    const request = grow(seed, window, spent, options);
    spent.needed += request.neededBytes;
    spent.gaps += request.length - request.neededBytes;
    spent.requests += 1;
    yield request;
  }
}

interface Spent {
  needed: number;
  gaps: number;
  requests: number;
}

function grow(
  seed: Entry,
  window: Window,
  spent: Spent,
  options: CoalesceOptions,
): PrefetchRequest {
  const isFirst = spent.requests < options.firstRequests;
  const lengthMax = isFirst ? options.firstRequestBytesMax : options.requestBytesMax;
  let { offset } = seed;
  let end = seed.offset + seed.length;
  let needed = seed.length;
  seed.taken = true;

  const take = (entry: Entry | undefined, gapStart: number, gapEnd: number): boolean => {
    if (entry === undefined || entry.taken || entry.blob !== seed.blob) return false;
    const gap = gapEnd - gapStart;
    const gapsMax = options.overFetchRatioMax * (spent.needed + needed + entry.length);
    const length = Math.max(end, entry.offset + entry.length) - Math.min(offset, entry.offset);
    const isNear =
      length <= lengthMax &&
      entry.position - seed.position <= options.horizonBytes &&
      entry.dueUs - seed.dueUs <= options.horizonUs;
    const isCheap =
      gap === 0 ||
      (gap <= options.gapBytesMax && spent.gaps + (end - offset - needed) + gap <= gapsMax);
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
  return { blob: seed.blob, offset, length: end - offset, dueUs: seed.dueUs, neededBytes: needed };
}

/** The next few thousand ranges, in the order they are due and in the order of their place. */
class Window {
  readonly #source: Iterator<DueRange>;
  readonly #pieceBytesMax: number;
  readonly #planned = new Map<number, SparseBitmap>();
  #byDue: Entry[] = [];
  #byPlace: Entry[] = [];
  #cursor = 0;
  #position = 0;
  #wanted: number = prefetchLimits.firstWindowRanges;
  #ended = false;

  constructor(ranges: Iterable<DueRange>, pieceBytesMax: number) {
    this.#source = ranges[Symbol.iterator]();
    this.#pieceBytesMax = pieceBytesMax;
  }

  at(place: number): Entry | undefined {
    return this.#byPlace[place];
  }

  /** The earliest range that no request has; null when there is none. */
  next(): Entry | null {
    for (;;) {
      if (!this.#ended && this.#cursor * 2 >= this.#byDue.length) this.#refill();
      if (this.#cursor === this.#byDue.length) return null;
      const entry = this.#byDue[this.#cursor];
      this.#cursor += 1;
      if (!entry.taken) return entry;
    }
  }

  /** Makes the granules of a gap part of a request; false when one of them already is. */
  claimGap(blob: number, offset: number, length: number): boolean {
    const planned = this.#plannedOf(blob);
    const first = offset / GRANULE_BYTES;
    const granules = length / GRANULE_BYTES;
    for (let i = 0; i < granules; i += 1) {
      if (planned.has(first + i)) return false;
    }
    return granules === 0 || planned.add(first, granules, () => undefined);
  }

  #refill(): void {
    this.#byDue = this.#byDue.slice(this.#cursor).filter((entry) => !entry.taken);
    this.#cursor = 0;
    while (this.#byDue.length < this.#wanted) {
      const { value, done } = this.#source.next();
      if (done === true) {
        this.#ended = true;
        break;
      }
      this.#admit(value);
    }
    this.#wanted = prefetchLimits.windowRanges;
    this.#byPlace = [...this.#byDue].sort((a, b) => a.blob - b.blob || a.offset - b.offset);
    for (const [place, entry] of this.#byPlace.entries()) entry.place = place;
  }

  /** Takes in what is new of a range, in pieces a small request can hold. */
  #admit(range: DueRange): void {
    const rangeEnd = range.offset + range.length;
    const first = Math.floor(range.offset / GRANULE_BYTES);
    const granules = Math.ceil(rangeEnd / GRANULE_BYTES) - first;
    this.#plannedOf(range.blob).add(first, granules, (start, count) => {
      const end = Math.min((start + count) * GRANULE_BYTES, rangeEnd);
      for (let offset = start * GRANULE_BYTES; offset < end; offset += this.#pieceBytesMax) {
        const length = Math.min(this.#pieceBytesMax, end - offset);
        const { blob, dueUs } = range;
        const position = this.#position;
        this.#position += length;
        this.#byDue.push({ blob, offset, length, dueUs, position, taken: false, place: 0 });
      }
    });
  }

  #plannedOf(blob: number): SparseBitmap {
    let planned = this.#planned.get(blob);
    if (planned === undefined) {
      planned = new SparseBitmap();
      this.#planned.set(blob, planned);
    }
    return planned;
  }
}
