import type { EventQueue } from './event-queue.ts';
import type { UnitStates } from './unit-states.ts';
import type { Access, Workload } from './workload.ts';

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
  readonly #accesses: readonly Access[];
  #next = 0;
  #startMs = 0;
  /** Units that the access under way lacks. */
  #missing = 0;
  #stallStartMs = 0;
  stalls = 0;
  stalledMs = 0;

  constructor(options: GuestOptions) {
    this.#options = options;
    this.#workload = options.states.workload;
    this.#accesses = this.#workload.accesses.filter(
      ({ dueMs }) => dueMs * options.think <= options.warmMs,
    );
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

  start(): void {
    this.#startMs = this.#options.events.nowMs;
    this.#plan();
  }

  /** A unit of the access under way has arrived; others do not matter. */
  onPresent(unit: number): void {
    if (this.#missing === 0) return;
    const { firstUnit, endUnit } = this.#accesses[this.#next];
    if (unit < firstUnit || unit >= endUnit) return;
    this.#missing -= 1;
    if (this.#missing > 0) return;
    this.stalledMs += this.#options.events.nowMs - this.#stallStartMs;
    this.#next += 1;
    this.#plan();
  }

  /** Plans the next access, or the end. */
  #plan(): void {
    const isOver = this.#next === this.#accesses.length;
    const { events, onEnd } = this.#options;
    if (isOver) events.at(this.#atMs(this.#options.warmMs), onEnd);
    else events.at(this.#nextMs(), () => this.#run());
  }

  /** Makes accesses until one waits, or until something else happens before the next. */
  #run(): void {
    const { events } = this.#options;
    do {
      if (!this.#access()) return;
      this.#next += 1;
    } while (this.#next < this.#accesses.length && events.skipTo(this.#nextMs()));
    this.#plan();
  }

  #nextMs(): number {
    return this.#atMs(this.#accesses[this.#next].dueMs * this.#options.think);
  }

  #atMs(dueMs: number): number {
    return Math.max(this.#startMs + dueMs + this.stalledMs, this.#options.events.nowMs);
  }

  /** Whether all of an access is there; if not, it is sent for. */
  #access(): boolean {
    const { states, demand, onStep } = this.#options;
    const { firstUnit, endUnit } = this.#accesses[this.#next];
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
    const isOurs = !states.isWanted(unit) && states.laneOf(unit) === 'prefetch';
    if (!isOurs) this.touched.demand += bytes;
    else if (states.isPresent(unit)) this.touched.prefetched += bytes;
    else this.touched.late += bytes;
    if (states.takeAhead(unit)) onAheadUsed(unit);
  }
}
