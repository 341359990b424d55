import assert from 'node:assert/strict';
import { upperLimits } from '../../base/limits.ts';

/**
 * What threads that use one writable layer agree by, as words of shared memory:
 *
 *   gate      whether writers may enter; one that may not hands its write to the main thread
 *   inside    writers that have entered and not left
 *   lock      guards the index, the log and what follows; held for microseconds, unless the disk stalls
 *   logged    entries in the log
 *   leaves    leaves of the index that are in use
 *   append    first sector of the data file that no write has taken
 *   end       first sector behind all data that the log's entries map to
 *   generation  of the entries in the log, counted from 0: see PendingFile
 *   dirty     1 when something was written since the last flush began
 */
const GATE = 0;
const INSIDE = 1;
const LOCK = 2;
const LOGGED = 3;
const LEAVES = 4;
const APPEND = 5;
const END = 6;
const DIRTY = 7;
const GENERATION = 8;
const WORDS = 16;

/**
 * open: anybody may write. closed: not now. retired: never again, and the map must not be read
 * either, as another has taken its place.
 */
export const gateStates = { open: 0, closed: 1, retired: 2 } as const;

const FREE = 0;
const HELD = 1;
const HELD_AND_WAITED_FOR = 2;
/** A lock is held so shortly that looking again is mostly cheaper than sleeping. */
const SPINS = 200;

/** One thread's view of the shared words. */
export class UpperState {
  readonly #words: Int32Array<SharedArrayBuffer>;
  /** The same words: sectors of the data file need all 32 bits. */
  readonly #sectors: Uint32Array<SharedArrayBuffer>;

  constructor(state: SharedArrayBuffer) {
    this.#words = new Int32Array(state);
    this.#sectors = new Uint32Array(state);
  }

  static allocate(): SharedArrayBuffer {
    return new SharedArrayBuffer(WORDS * 4);
  }

  get gate(): number {
    return Atomics.load(this.#words, GATE);
  }

  set gate(state: (typeof gateStates)[keyof typeof gateStates]) {
    Atomics.store(this.#words, GATE, state);
  }

  get isRetired(): boolean {
    return this.gate === gateStates.retired;
  }

  /** Writers that have entered and not left. */
  get inside(): number {
    return Atomics.load(this.#words, INSIDE);
  }

  /** Whether the caller may write now; then it has to leave afterwards. */
  enter(): boolean {
    Atomics.add(this.#words, INSIDE, 1);
    if (this.gate === gateStates.open) return true;
    Atomics.sub(this.#words, INSIDE, 1);
    return false;
  }

  /** After the last change: a flush that began before it does not cover it. */
  leave(): void {
    if (Atomics.load(this.#words, DIRTY) === 0) Atomics.store(this.#words, DIRTY, 1);
    Atomics.sub(this.#words, INSIDE, 1);
  }

  /** Waits for the lock. Not re-entrant. */
  lock(): void {
    const words = this.#words;
    for (let spin = 0; spin < SPINS; spin += 1) {
      if (Atomics.compareExchange(words, LOCK, FREE, HELD) === FREE) return;
    }
    while (Atomics.exchange(words, LOCK, HELD_AND_WAITED_FOR) !== FREE) {
      const outcome = Atomics.wait(words, LOCK, HELD_AND_WAITED_FOR, upperLimits.lockMsMax);
      assert.notEqual(outcome, 'timed-out', 'a thread ended while it held the lock of a layer');
    }
  }

  unlock(): void {
    if (Atomics.exchange(this.#words, LOCK, FREE) === HELD_AND_WAITED_FOR) {
      Atomics.notify(this.#words, LOCK, 1);
    }
  }

  get logged(): number {
    return this.#words[LOGGED];
  }

  set logged(entries: number) {
    this.#words[LOGGED] = entries;
  }

  get generation(): number {
    return this.#words[GENERATION];
  }

  set generation(count: number) {
    this.#words[GENERATION] = count;
  }

  get leaves(): number {
    return this.#words[LEAVES];
  }

  set leaves(count: number) {
    this.#words[LEAVES] = count;
  }

  get end(): number {
    return this.#sectors[END];
  }

  set end(sector: number) {
    this.#sectors[END] = sector;
  }

  get append(): number {
    return Atomics.load(this.#sectors, APPEND);
  }

  set append(sector: number) {
    Atomics.store(this.#sectors, APPEND, sector);
  }

  /** Takes room at the data file's end; its first sector, or -1 when the file would grow too large. */
  reserve(sectors: number, sectorMax: number): number {
    for (;;) {
      const at = this.append;
      if (at + sectors > sectorMax) return -1;
      if (Atomics.compareExchange(this.#sectors, APPEND, at, at + sectors) === at) return at;
    }
  }

  /** Forgets that something was written; whether something was. */
  takeDirty(): boolean {
    return Atomics.exchange(this.#words, DIRTY, 0) !== 0;
  }
}
