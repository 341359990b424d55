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

export interface Entry extends DueRange {
  /** Bytes of the plan before it. */
  readonly position: number;
  taken: boolean;
  /** Index in order of (blob, offset) within the window. */
  place: number;
}

/** What joining may cost. */
export interface GapBudget {
  bytes: number;
  gapBytesMax: number;
  /** Entries further apart than this, in bytes of the plan, will not be joined. */
  horizonBytes: number;
}

/** The next few thousand ranges, in the order they are due and in the order of their place. */
export class PlanWindow {
  readonly #source: Iterator<DueRange>;
  readonly #pieceBytesMax: number;
  readonly #planned = new Map<number, SparseBitmap>();
  #byDue: Entry[] = [];
  #byPlace: Entry[] = [];
  #cursor = 0;
  #position = 0;
  #wanted: number = prefetchLimits.firstWindowRanges;
  #ended = false;
  #generation = 0;

  constructor(ranges: Iterable<DueRange>, pieceBytesMax: number) {
    this.#source = ranges[Symbol.iterator]();
    this.#pieceBytesMax = pieceBytesMax;
  }

  /** Changes whenever entries got other places. */
  get generation(): number {
    return this.#generation;
  }

  at(place: number): Entry | undefined {
    return this.#byPlace[place];
  }

  /** Bytes of the entries that no request has. */
  get openBytes(): number {
    let bytes = 0;
    for (const entry of this.#byPlace) if (!entry.taken) bytes += entry.length;
    return bytes;
  }

  /** The earliest range that no request has; null when there is none. It is taken before the next call. */
  next(): Entry | null {
    for (;;) {
      if (this.#cursor * 2 >= this.#byDue.length) this.#refill();
      if (this.#cursor === this.#byDue.length) return null;
      const entry = this.#byDue[this.#cursor];
      this.#cursor += 1;
      if (!entry.taken) return entry;
    }
  }

  /**
   * The largest gap to close: closing the smallest gaps first saves the most requests for the bytes
   * that the budget has.
   */
  worthwhileGap(budget: GapBudget): number {
    const gaps: number[] = [];
    for (let place = 1; place < this.#byPlace.length; place += 1) {
      const [before, entry] = [this.#byPlace[place - 1], this.#byPlace[place]];
      const gap = entry.offset - before.offset - before.length;
      const mayJoin =
        entry.blob === before.blob &&
        !entry.taken &&
        !before.taken &&
        gap > 0 &&
        gap <= budget.gapBytesMax &&
        Math.abs(entry.position - before.position) <= budget.horizonBytes;
      if (mayJoin) gaps.push(gap);
    }
    let left = budget.bytes;
    let largest = 0;
    for (const gap of gaps.sort((a, b) => a - b)) {
      left -= gap;
      if (left < 0) break;
      largest = gap;
    }
    return largest;
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
    if (this.#ended && this.#byDue.length === 0) return;
    this.#byDue = this.#byDue.slice(this.#cursor).filter((entry) => !entry.taken);
    const kept = this.#byDue.length;
    this.#cursor = 0;
    while (!this.#ended && this.#byDue.length < this.#wanted) {
      const { value, done } = this.#source.next();
      if (done === true) this.#ended = true;
      else this.#admit(value);
    }
    this.#wanted = prefetchLimits.windowRanges;
    // What is kept is in order already, which a sort of all makes use of.
    this.#byPlace = this.#byPlace
      .filter((entry) => !entry.taken)
      .concat(this.#byDue.slice(kept))
      .sort((a, b) => a.blob - b.blob || a.offset - b.offset);
    for (const [place, entry] of this.#byPlace.entries()) entry.place = place;
    this.#generation += 1;
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
