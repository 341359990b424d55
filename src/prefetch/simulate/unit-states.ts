import type { ByteRange } from '../../base/range.ts';
import type { Lane } from '../../blob/blob.ts';
import { placeFrom, type Workload } from './workload.ts';

/** Bytes of a blob. */
export interface BlobRange extends ByteRange {
  readonly blob: number;
}

/** Where a unit can be: bits, for several can be asked for. */
export const ABSENT = 1;
/** A queue holds it. */
export const QUEUED = 2;
const ACTIVE = 4;
const PRESENT = 8;
/** Somebody has to ask for it: nobody did, or only a queue holds it. */
export const WANTED = ABSENT | QUEUED;

const NONE = -1;

/** A request's units that have not arrived, as a list: no unit is in two. */
export interface Landing {
  receivedBytes: number;
  expectedBytes: number;
  firstUnit: number;
  lastUnit: number;
}

/** Where each unit of a workload is, and who brought it. */
export class UnitStates {
  readonly workload: Workload;
  readonly #states: Uint8Array;
  readonly #isPrefetched: Uint8Array;
  readonly #isAhead: Uint8Array;
  /** Of units under way: the next one of their request, and where in its answer they end. */
  readonly #nextUnit: Int32Array;
  readonly #landsAt: Float64Array;
  readonly #onPresent: (unit: number) => void;

  constructor(workload: Workload, onPresent: (unit: number) => void) {
    this.workload = workload;
    this.#states = new Uint8Array(workload.count).fill(ABSENT);
    this.#isPrefetched = new Uint8Array(workload.count);
    this.#isAhead = new Uint8Array(workload.count);
    this.#nextUnit = new Int32Array(workload.count);
    this.#landsAt = new Float64Array(workload.count);
    this.#onPresent = onPresent;
  }

  isPresent(unit: number): boolean {
    return this.#states[unit] === PRESENT;
  }

  /** A prefetch brings it or brought it. */
  isPrefetched(unit: number): boolean {
    return this.#isPrefetched[unit] === 1;
  }

  isWanted(unit: number): boolean {
    return (this.#states[unit] & WANTED) !== 0;
  }

  /** Whether a unit came in only because others near it were needed; tells it once. */
  takeAhead(unit: number): boolean {
    const isAhead = this.#isAhead[unit] === 1;
    this.#isAhead[unit] = 0;
    return isAhead;
  }

  /** Queues the absent units that begin in a range. */
  queue({ blob, offset, length }: BlobRange): void {
    const { unitAt, offsetAt, firstPlace } = this.workload;
    const last = firstPlace[blob + 1];
    let place = placeFrom(this.workload, blob, offset);
    for (; place < last && offsetAt[place] < offset + length; place += 1) {
      const unit = unitAt[place];
      if (this.#states[unit] === ABSENT) this.#states[unit] = QUEUED;
    }
  }

  /**
   * Runs of units in some states (a sum of them) among those that begin in [start, end) of a blob, as
   * ranges; gaps only between two.
   */
  ranges(states: number, blob: number, start: number, end: number): BlobRange[] {
    const { unitAt, offsetAt, firstPlace, length } = this.workload;
    const ranges: { blob: number; offset: number; length: number }[] = [];
    const last = firstPlace[blob + 1];
    let runStart = -1;
    let runEnd = 0;
    let place = placeFrom(this.workload, blob, start);
    for (; place < last && offsetAt[place] < end; place += 1) {
      const unit = unitAt[place];
      if ((this.#states[unit] & states) !== 0) {
        if (runStart < 0) runStart = offsetAt[place];
        runEnd = offsetAt[place] + length[unit];
      } else if (runStart >= 0) {
        ranges.push({ blob, offset: runStart, length: runEnd - runStart });
        runStart = -1;
      }
    }
    if (runStart >= 0) ranges.push({ blob, offset: runStart, length: runEnd - runStart });
    return ranges;
  }

  /** What an answer brings, of a request that is made up: nothing yet. */
  landing(): Landing {
    return { receivedBytes: 0, expectedBytes: 0, firstUnit: NONE, lastUnit: NONE };
  }

  /**
   * A request for a range leaves, behind those that the landing has already. Units that begin at
   * `aheadFrom` or behind it come only because others near them are needed.
   */
  activate(landing: Landing, range: BlobRange, lane: Lane, aheadFrom = Infinity): void {
    const { unitAt, offsetAt, firstPlace, length } = this.workload;
    const isPrefetched = lane === 'prefetch' ? 1 : 0;
    const rangeEnd = range.offset + range.length;
    const last = firstPlace[range.blob + 1];
    let place = placeFrom(this.workload, range.blob, range.offset);
    for (; place < last && offsetAt[place] < rangeEnd; place += 1) {
      const unit = unitAt[place];
      if ((this.#states[unit] & WANTED) === 0) continue;
      this.#states[unit] = ACTIVE;
      this.#isPrefetched[unit] = isPrefetched;
      this.#isAhead[unit] = offsetAt[place] >= aheadFrom ? 1 : 0;
      const unitEnd = Math.min(offsetAt[place] + length[unit], rangeEnd);
      this.#landsAt[unit] = landing.expectedBytes + unitEnd - range.offset;
      if (landing.lastUnit === NONE) landing.firstUnit = unit;
      else this.#nextUnit[landing.lastUnit] = unit;
      landing.lastUnit = unit;
    }
    landing.expectedBytes += range.length;
  }

  /** Bytes of an answer arrive: units become present as their last byte does. */
  land(landing: Landing, bytes: number): void {
    landing.receivedBytes += bytes;
    for (;;) {
      const unit = landing.firstUnit;
      if (unit === NONE || this.#landsAt[unit] > landing.receivedBytes) return;
      landing.firstUnit = unit === landing.lastUnit ? NONE : this.#nextUnit[unit];
      this.#states[unit] = PRESENT;
      this.#onPresent(unit);
    }
  }
}
