import type { Lane } from '../../blob/blob.ts';
import type { ByteRange } from '../../base/range.ts';
import { unitsIn, type Workload } from './workload.ts';

/** Bytes of a blob. */
export interface BlobRange extends ByteRange {
  readonly blob: number;
}

const ABSENT = 0;
const QUEUED = 1;
const ACTIVE = 2;
const PRESENT = 3;

/** Where each unit of a workload is, and who brought it. */
export class UnitStates {
  readonly workload: Workload;
  readonly #states: Uint8Array;
  /** Who fetches or fetched a unit: 1 demand, 2 prefetch. */
  readonly #lanes: Uint8Array;
  readonly #isAhead: Uint8Array;
  readonly #onPresent: (unit: number) => void;

  constructor(workload: Workload, onPresent: (unit: number) => void) {
    this.workload = workload;
    this.#states = new Uint8Array(workload.count);
    this.#lanes = new Uint8Array(workload.count);
    this.#isAhead = new Uint8Array(workload.count);
    this.#onPresent = onPresent;
  }

  isAbsent(unit: number): boolean {
    return this.#states[unit] === ABSENT;
  }

  isQueued(unit: number): boolean {
    return this.#states[unit] === QUEUED;
  }

  isPresent(unit: number): boolean {
    return this.#states[unit] === PRESENT;
  }

  /** Somebody has to ask for it: nobody did, or only a queue holds it. */
  isWanted(unit: number): boolean {
    return this.#states[unit] <= QUEUED;
  }

  laneOf(unit: number): Lane {
    return this.#lanes[unit] === 2 ? 'prefetch' : 'demand';
  }

  queue(unit: number): void {
    this.#states[unit] = QUEUED;
  }

  /** Whether a unit came in only because others near it were needed; tells it once. */
  takeAhead(unit: number): boolean {
    const isAhead = this.#isAhead[unit] === 1;
    this.#isAhead[unit] = 0;
    return isAhead;
  }

  /**
   * A request for ranges leaves. Gives what is to be told of bytes that arrive of it: units become
   * present as their last byte does.
   */
  activate(
    ranges: readonly BlobRange[],
    lane: Lane,
    isAhead: (unit: number) => boolean = () => false,
  ): (bytes: number) => void {
    const { offset, length } = this.workload;
    const units: number[] = [];
    const ends: number[] = [];
    let before = 0;
    for (const range of ranges) {
      const rangeEnd = range.offset + range.length;
      unitsIn(this.workload, range.blob, range.offset, rangeEnd, (unit) => {
        if (!this.isWanted(unit)) return;
        this.#states[unit] = ACTIVE;
        this.#lanes[unit] = lane === 'prefetch' ? 2 : 1;
        this.#isAhead[unit] = isAhead(unit) ? 1 : 0;
        units.push(unit);
        ends.push(before + Math.min(offset[unit] + length[unit], rangeEnd) - range.offset);
      });
      before += range.length;
    }
    let received = 0;
    let next = 0;
    return (bytes) => {
      received += bytes;
      for (; next < units.length && ends[next] <= received; next += 1) {
        this.#states[units[next]] = PRESENT;
        this.#onPresent(units[next]);
      }
    };
  }
}

/** Runs of wanted units among those in [start, end) of a blob, as ranges; gaps only between two. */
export function wantedRanges(
  states: UnitStates,
  blob: number,
  [start, end]: readonly [number, number],
  isWanted: (unit: number) => boolean,
): BlobRange[] {
  const { offset, length } = states.workload;
  const ranges: { blob: number; offset: number; length: number }[] = [];
  let isOpen = false;
  unitsIn(states.workload, blob, start, end, (unit) => {
    if (!isWanted(unit)) {
      isOpen = false;
      return;
    }
    const last = ranges.at(-1);
    if (isOpen && last !== undefined) last.length = offset[unit] + length[unit] - last.offset;
    else ranges.push({ blob, offset: offset[unit], length: length[unit] });
    isOpen = true;
  });
  return ranges;
}
