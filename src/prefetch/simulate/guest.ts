import { EventLine, type EventQueue } from './event-queue.ts';
import type { OutcomeLog } from './outcomes.ts';
import type { UnitStates } from './unit-states.ts';
import type { Accesses, Workload } from './workload.ts';

export interface GuestOptions {
  readonly events: EventQueue;
  readonly states: UnitStates;
  /** Factor on the time between accesses. */
  readonly think: number;
  /** When the start is over, on the warm axis. */
  readonly warmMs: number;
  /** Fetches what is wanted of an access's units. */
  readonly demand: (firstUnit: number, endUnit: number) => void;
  /** A unit that was read ahead is used. */
  readonly onAheadUsed: (unit: number) => void;
  /** Something changed: a curve may want a point. */
  readonly onStep: () => void;
  readonly onEnd: () => void;
  /** Told what each access meets with, if somebody wants to know. */
  readonly log: OutcomeLog | null;
}

/** Bytes first touched, by where they were found, as in docs/metrics.md. */
export interface Touched {
  prefetched: number;
  late: number;
  demand: number;
}

/**
 * What runs: one line of accesses. Each is made when a warm run would make it, later by all that was
 * waited before it, and the next one waits until it has its bytes. (Threads that read beside each other
 * are one line too: when one of them waits, all do.)
 */
export class Guest {
  readonly touched: Touched = { prefetched: 0, late: 0, demand: 0 };
  readonly #options: GuestOptions;
  readonly #workload: Workload;
  readonly #accesses: Accesses;
  /** Accesses until the start is over. */
  readonly #count: number;
  /** The next access, or the end behind the last. */
  readonly #turns: EventLine<null>;
  #next = 0;
  #startMs = 0;
  /** For how long others had the processor while it was ready to run. */
  #heldMs = 0;
  #isRunning = false;
  /** Units that the access under way lacks. */
  #missing = 0;
  #stallStartMs = 0;
  stalls = 0;
  stalledMs = 0;

  constructor(options: GuestOptions) {
    this.#options = options;
    this.#workload = options.states.workload;
    this.#accesses = this.#workload.accesses;
    const { count, dueMs } = this.#accesses;
    const firstBehind = dueMs
      .subarray(0, count)
      .findIndex((timeMs) => timeMs * options.think > options.warmMs);
    this.#count = firstBehind < 0 ? count : firstBehind;
    this.#turns = new EventLine(options.events, () => this.#run());
  }

  get touchedBytes(): number {
    const { prefetched, late, demand } = this.touched;
    return prefetched + late + demand;
  }

  /** How long it waited until now, the wait under way included. */
  get stalledUntilNowMs(): number {
    const isWaiting = this.#missing > 0;
    return this.stalledMs + (isWaiting ? this.#options.events.nowMs - this.#stallStartMs : 0);
  }

  /** `aheadMs`: so much of its warm time has passed already. */
  start(aheadMs: number): void {
    this.#startMs = this.#options.events.nowMs - aheadMs;
    this.#isRunning = true;
    this.#plan();
  }

  /** Others have the processor for a while. */
  hold(ms: number): void {
    if (this.#isRunning && this.#missing === 0) this.#heldMs += ms;
  }

  /** A unit of the access under way has arrived; others do not matter. */
  onPresent(unit: number): void {
    if (this.#missing === 0) return;
    const { firstUnit, endUnit } = this.#accesses;
    if (unit < firstUnit[this.#next] || unit >= endUnit[this.#next]) return;
    this.#missing -= 1;
    if (this.#missing > 0) return;
    const { events, log } = this.#options;
    const stallMs = events.nowMs - this.#stallStartMs;
    this.stalledMs += stallMs;
    log?.waited(stallMs);
    this.#next += 1;
    this.#plan();
  }

  /** Plans the next access, or the end. */
  #plan(): void {
    this.#turns.at(this.#turnMs(), null);
  }

  /** Makes accesses until one waits, or until something else happens before the next. */
  #run(): void {
    const { events, onEnd } = this.#options;
    if (this.#turnMs() > events.nowMs) {
      // It was held since its turn was planned.
      this.#plan();
      return;
    }
    if (this.#next === this.#count) {
      onEnd();
      return;
    }
    do {
      if (!this.#access()) return;
      this.#next += 1;
    } while (this.#next < this.#count && events.skipTo(this.#nextMs()));
    this.#plan();
  }

  /** Of the next access, or of the end. */
  #turnMs(): number {
    return this.#next === this.#count ? this.#atMs(this.#options.warmMs) : this.#nextMs();
  }

  #nextMs(): number {
    return this.#atMs(this.#accesses.dueMs[this.#next] * this.#options.think);
  }

  #atMs(dueMs: number): number {
    return Math.max(
      this.#startMs + dueMs + this.stalledMs + this.#heldMs,
      this.#options.events.nowMs,
    );
  }

  /** Whether all of an access is there; if not, it is sent for. */
  #access(): boolean {
    const { states, demand, onStep, log } = this.#options;
    const firstUnit = this.#accesses.firstUnit[this.#next];
    const endUnit = this.#accesses.endUnit[this.#next];
    log?.add(states, firstUnit, endUnit);
    let missing = 0;
    for (let unit = firstUnit; unit < endUnit; unit += 1) {
      this.#touch(unit);
      if (!states.isPresent(unit)) missing += 1;
    }
    onStep();
    if (missing === 0) return true;
    this.stalls += 1;
    this.#missing = missing;
    this.#stallStartMs = this.#options.events.nowMs;
    demand(firstUnit, endUnit);
    return false;
  }

  #touch(unit: number): void {
    const { states, onAheadUsed } = this.#options;
    const bytes = this.#workload.length[unit];
    const isOurs = !states.isWanted(unit) && states.isPrefetched(unit);
    if (!isOurs) this.touched.demand += bytes;
    else if (states.isPresent(unit)) this.touched.prefetched += bytes;
    else this.touched.late += bytes;
    if (states.takeAhead(unit)) onAheadUsed(unit);
  }
}
