import type { Touch } from '../../src/daemon/touch-feed.ts';
import { SECTOR_BYTES } from '../../src/base/limits.ts';
import type { Accesses } from './accesses.ts';
import { DiskAxis } from './disk-axis.ts';
import { ExpectedRecords } from './expected-records.ts';
import { kindCode, KINDS } from './kinds.ts';
import type { OpenedTrace } from './opened-trace.ts';
import { NOTHING } from './palette.ts';
import type { Scene } from './scene.ts';
import { wholeWindow } from './timeline-marks.ts';

const CAPACITY_MIN = 1024;
/** First touches and expected records that are kept. */
const ACCESSES_MAX = 1_200_000;
/** The axis is made anew when there are so many times more accesses than when it was made. */
const AXIS_GROWTH = 1.2;

/**
 * A replay while it happens: first touches by what they met with, and the records of the trace that nobody
 * has read, as unused. A record of which anything was read is no longer drawn: the touch is, at its time.
 * Drawn ten times a second: what was added costs, not what was there.
 */
export class LiveScene {
  /** How many of the accesses are records of the trace. */
  readonly expected: number;
  readonly #records: ExpectedRecords | null;
  #capacity = CAPACITY_MIN;
  #timeUs = new Float64Array(CAPACITY_MIN);
  #lba = new Float64Array(CAPACITY_MIN);
  #sectors = new Float64Array(CAPACITY_MIN);
  #position = new Float64Array(CAPACITY_MIN);
  #codes = new Uint8Array(CAPACITY_MIN);
  #count = 0;
  #lastUs = 0;
  #axis: DiskAxis | null = null;
  /** Accesses when the axis was made, and those that have a position on it. */
  #axisCount = 0;
  #placed = 0;

  constructor(expected: OpenedTrace | null) {
    this.expected = expected?.accesses.count ?? 0;
    this.#records = expected === null ? null : new ExpectedRecords(expected.accesses);
    if (expected === null) return;
    const { timeUs, lba, sectors } = expected.accesses;
    const code = kindCode('unused');
    for (let i = 0; i < this.expected; i += 1) this.#add(timeUs[i], lba[i], sectors[i], code);
    this.#lastUs = expected.summary.recording.durationUs;
  }

  /** First touches so far. */
  get touches(): number {
    return this.#count - this.expected;
  }

  add(touches: readonly Touch[]): void {
    for (const [timeMs, offset, length, source] of touches) {
      const [lba, sectors] = [offset / SECTOR_BYTES, length / SECTOR_BYTES];
      this.#add(timeMs * 1000, lba, sectors, kindCode(source));
      this.#read(lba, sectors);
    }
  }

  scene(): Scene {
    const count = this.#count;
    const upTo = <T extends Float64Array | Uint8Array>(column: T): T => {
      return column.subarray(0, count) as T;
    };
    const accesses: Accesses = {
      ...{ count, timeUs: upTo(this.#timeUs), lba: upTo(this.#lba) },
      ...{ sectors: upTo(this.#sectors), codes: upTo(this.#codes) },
      layer: new Uint8Array(0),
    };
    if (this.#axis === null || count > this.#axisCount * AXIS_GROWTH) {
      this.#axis = new DiskAxis(accesses, 'lba');
      this.#axisCount = count;
      this.#placed = 0;
    }
    const axis = this.#axis;
    for (; this.#placed < count; this.#placed += 1) {
      this.#position[this.#placed] = axis.positionOf(this.#lba[this.#placed], 0);
    }
    const marks = { ...accesses, position: upTo(this.#position) };
    return { accesses, palette: KINDS, axis, marks, whole: wholeWindow(this.#lastUs, axis) };
  }

  /** What the trace has of these sectors is not unused any more. */
  #read(lba: number, sectors: number): void {
    for (const record of this.#records?.near(lba, sectors) ?? []) {
      const isIn =
        this.#lba[record] < lba + sectors && this.#lba[record] + this.#sectors[record] > lba;
      if (isIn) this.#codes[record] = NOTHING;
    }
  }

  #add(timeUs: number, lba: number, sectors: number, code: number): void {
    if (this.#count === ACCESSES_MAX) return;
    if (this.#count === this.#capacity) this.#grow();
    this.#timeUs[this.#count] = timeUs;
    this.#lba[this.#count] = lba;
    this.#sectors[this.#count] = sectors;
    this.#codes[this.#count] = code;
    this.#count += 1;
    this.#lastUs = Math.max(this.#lastUs, timeUs);
  }

  #grow(): void {
    this.#capacity *= 2;
    const grown = <T extends Float64Array | Uint8Array>(from: T, to: T): T => {
      to.set(from);
      return to;
    };
    this.#timeUs = grown(this.#timeUs, new Float64Array(this.#capacity));
    this.#lba = grown(this.#lba, new Float64Array(this.#capacity));
    this.#sectors = grown(this.#sectors, new Float64Array(this.#capacity));
    this.#position = grown(this.#position, new Float64Array(this.#capacity));
    this.#codes = grown(this.#codes, new Uint8Array(this.#capacity));
  }
}
