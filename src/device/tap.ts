import assert from 'node:assert/strict';
import { tapLimits } from '../base/limits.ts';
import type { TapBell, TapMap } from './block-device.ts';

/*
 * A ring has one producer (the thread it was given to) and one consumer (the main thread):
 *
 *   byte   0  int32   1 while enabled
 *   byte   8  int64   epoch: process.hrtime nanoseconds at time 0
 *   byte  64  int32   head: entries ever pushed, modulo 2^32; written by the producer
 *   byte 128  int32   tail: entries ever drained, modulo 2^32; written by the consumer
 *   byte 192  int32   entries refused because the ring was full
 *   byte 208  float64 writes that the thread made by itself, and at byte 216 their bytes
 *   byte 256  entries of 3 float64: time (us since the epoch), offset, length (negative: a miss)
 *
 * head - tail lies in [0, capacity]. An entry is written before head moves past it, and read
 * before tail does; head and tail sit on cache lines of their own.
 *
 * After an entry the producer makes sure that the tap's bell, if it has one, is 1. Who waits for it
 * sets it to 0 before a drain: an entry is in that drain, or rings again.
 */
const ENABLED = 0;
const EPOCH_NS = 1;
const HEAD = 16;
const TAIL = 32;
const LOST = 48;
const WRITES = 26;
const WRITTEN_BYTES = 27;
const HEADER_BYTES = 256;
const ENTRY_FIELDS = 3;
const ENTRY_BYTES = ENTRY_FIELDS * 8;

export interface TapOptions {
  /** Entries of a ring, a power of two. */
  readonly capacity?: number;
  readonly bell?: TapBell;
}

/** Rings for `ringCount` reading threads, disabled. */
export function createTapMap(ringCount: number, options: TapOptions = {}): TapMap {
  const { capacity = tapLimits.ringEntries, bell } = options;
  assert.ok(ringCount >= 1 && ringCount <= tapLimits.ringsMax, `tap: ${ringCount} rings`);
  assert.ok(capacity >= 2 && capacity <= 2 ** 24 && Number.isInteger(Math.log2(capacity)));
  const epochNs = process.hrtime.bigint();
  const rings = Array.from({ length: ringCount }, () => {
    const ring = new SharedArrayBuffer(HEADER_BYTES + capacity * ENTRY_BYTES);
    new BigInt64Array(ring)[EPOCH_NS] = epochNs;
    return ring;
  });
  return { rings, ...(bell === undefined ? {} : { bell }) };
}

const CALIBRATIONS = 5;

/** What performance.now() lacks of the time since the epoch: from the two clocks read closest together. */
function originUs(epochNs: bigint): number {
  let closestMs = Infinity;
  let origin = 0;
  for (let i = 0; i < CALIBRATIONS; i += 1) {
    const beforeMs = performance.now();
    const sinceEpochUs = Number(process.hrtime.bigint() - epochNs) / 1000;
    const afterMs = performance.now();
    if (afterMs - beforeMs >= closestMs) continue;
    closestMs = afterMs - beforeMs;
    origin = sinceEpochUs - ((beforeMs + afterMs) / 2) * 1000;
  }
  return origin;
}

/** A reading thread's end of its ring. */
export class TapProducer {
  readonly #words: Int32Array;
  readonly #sums: Float64Array;
  readonly #entries: Float64Array;
  readonly #capacity: number;
  readonly #originUs: number;
  /** Of one word; null without a bell. */
  readonly #bell: Int32Array | null;

  constructor(tap: TapMap, ringIndex: number) {
    const ring = tap.rings[ringIndex];
    assert.ok(ring !== undefined, `tap: ring ${ringIndex} of ${tap.rings.length}`);
    this.#words = new Int32Array(ring, 0, HEADER_BYTES / 4);
    this.#sums = new Float64Array(ring, 0, HEADER_BYTES / 8);
    this.#entries = new Float64Array(ring, HEADER_BYTES);
    this.#capacity = this.#entries.length / ENTRY_FIELDS;
    // performance.now() may count from another origin on each thread; hrtime is one clock for
    // the process, and does not step when somebody sets the time of day.
    const epochNs = new BigInt64Array(ring)[EPOCH_NS];
    this.#originUs = originUs(epochNs);
    const { bell } = tap;
    this.#bell = bell === undefined ? null : new Int32Array(bell.words, bell.index * 4, 1);
  }

  /**
   * Tells the tap of a read of `length` > 0 bytes. False, and counted as lost, when the ring is
   * full; a thread that may wait can try again after the next drain. True at once when disabled.
   */
  push(offset: number, length: number, hit: boolean): boolean {
    const words = this.#words;
    if (words[ENABLED] === 0) return true;
    const head = words[HEAD];
    if (((head - Atomics.load(words, TAIL)) | 0) >= this.#capacity) {
      Atomics.add(words, LOST, 1);
      return false;
    }
    const at = (head & (this.#capacity - 1)) * ENTRY_FIELDS;
    this.#entries[at] = performance.now() * 1000 + this.#originUs;
    this.#entries[at + 1] = offset;
    this.#entries[at + 2] = hit ? length : -length;
    Atomics.store(words, HEAD, (head + 1) | 0);
    // Only the first of many writes to memory that all threads look at.
    const bell = this.#bell;
    if (bell !== null && Atomics.load(bell, 0) === 0) Atomics.store(bell, 0, 1);
    return true;
  }

  /** Counts a write of `length` bytes; writes are not traced. */
  countWrite(length: number): void {
    this.#sums[WRITES] += 1;
    this.#sums[WRITTEN_BYTES] += length;
  }
}

/** Called once a read; `timeUs` counts from the tap's creation. */
export type TapListener = (timeUs: number, offset: number, length: number, hit: boolean) => void;

interface DrainedRing {
  readonly words: Int32Array;
  readonly sums: Float64Array;
  readonly entries: Float64Array;
  /** Head as this drain found it, so that a busy producer cannot keep a drain going. */
  end: number;
}

/** The main thread's end of every ring. */
export class TapDrain {
  readonly #rings: DrainedRing[];
  readonly #epochNs: bigint;

  constructor(tap: TapMap) {
    this.#rings = tap.rings.map((ring) => ({
      words: new Int32Array(ring, 0, HEADER_BYTES / 4),
      sums: new Float64Array(ring, 0, HEADER_BYTES / 8),
      entries: new Float64Array(ring, HEADER_BYTES),
      end: 0,
    }));
    this.#epochNs = new BigInt64Array(tap.rings[0])[EPOCH_NS];
  }

  /** Microseconds since the tap's creation, on the clock of its entries. */
  nowUs(): number {
    return Number(process.hrtime.bigint() - this.#epochNs) / 1000;
  }

  /** Entries that producers had to drop since the rings were made. */
  get lost(): number {
    return this.#rings.reduce((sum, { words }) => sum + Atomics.load(words, LOST), 0);
  }

  /** What threads wrote by themselves since the rings were made. */
  get written(): { writes: number; bytes: number } {
    return this.#rings.reduce(
      ({ writes, bytes }, { sums }) => ({
        writes: writes + sums[WRITES],
        bytes: bytes + sums[WRITTEN_BYTES],
      }),
      { writes: 0, bytes: 0 },
    );
  }

  /** Producers notice at their next push. Nothing is recorded or measured while disabled. */
  setEnabled(enabled: boolean): void {
    for (const { words } of this.#rings) Atomics.store(words, ENABLED, enabled ? 1 : 0);
  }

  /**
   * Hands over what is in the rings now, in order of time across them, and returns how many.
   * A thread that was suspended between reading the clock and publishing its entry can still
   * deliver an earlier time in a later drain.
   */
  drain(listener: TapListener): number {
    for (const ring of this.#rings) ring.end = Atomics.load(ring.words, HEAD);
    let count = 0;
    for (let ring = this.#earliest(); ring !== null; ring = this.#earliest()) {
      const { words, entries } = ring;
      const at = (words[TAIL] & (entries.length / ENTRY_FIELDS - 1)) * ENTRY_FIELDS;
      const length = entries[at + 2];
      listener(entries[at], entries[at + 1], Math.abs(length), length > 0);
      Atomics.store(words, TAIL, (words[TAIL] + 1) | 0);
      count += 1;
    }
    return count;
  }

  #earliest(): DrainedRing | null {
    let earliest: DrainedRing | null = null;
    let earliestUs = Infinity;
    for (const ring of this.#rings) {
      const tail = ring.words[TAIL];
      if (tail === ring.end) continue;
      const timeUs = ring.entries[(tail & (ring.entries.length / ENTRY_FIELDS - 1)) * ENTRY_FIELDS];
      if (timeUs < earliestUs) {
        earliestUs = timeUs;
        earliest = ring;
      }
    }
    return earliest;
  }
}
