import assert from 'node:assert/strict';

interface Event {
  readonly timeMs: number;
  /** Events of one time happen in the order they were planned. */
  readonly order: number;
  readonly run: () => void;
}

/** What is going to happen, earliest first: a binary heap, and the clock that it turns. */
export class EventQueue {
  readonly #heap: Event[] = [];
  #planned = 0;
  #nowMs = 0;

  get nowMs(): number {
    return this.#nowMs;
  }

  at(timeMs: number, run: () => void): void {
    assert(timeMs >= this.#nowMs, `an event at ${timeMs}, which is before ${this.#nowMs}`);
    const event = { timeMs, order: this.#planned, run };
    this.#planned += 1;
    let index = this.#heap.length;
    while (index > 0) {
      const parent = (index - 1) >> 1;
      if (!isBefore(event, this.#heap[parent])) break;
      this.#heap[index] = this.#heap[parent];
      index = parent;
    }
    this.#heap[index] = event;
  }

  after(delayMs: number, run: () => void): void {
    this.at(this.#nowMs + delayMs, run);
  }

  /**
   * Moves the clock to a time before which, and at which, nothing else is going to happen; else false.
   * For the end of an event only: what is left of it happens then.
   */
  skipTo(timeMs: number): boolean {
    if (this.#heap.length > 0 && this.#heap[0].timeMs <= timeMs) return false;
    this.#nowMs = timeMs;
    return true;
  }

  /** Lets the earliest event happen; false when there is none. */
  step(): boolean {
    const [first] = this.#heap;
    const last = this.#heap.pop();
    if (last === undefined) return false;
    if (last !== first) this.#sink(last);
    this.#nowMs = first.timeMs;
    first.run();
    return true;
  }

  #sink(event: Event): void {
    const heap = this.#heap;
    let index = 0;
    for (let child = 1; child < heap.length; child = 2 * index + 1) {
      if (child + 1 < heap.length && isBefore(heap[child + 1], heap[child])) child += 1;
      if (!isBefore(heap[child], event)) break;
      heap[index] = heap[child];
      index = child;
    }
    heap[index] = event;
  }
}

function isBefore(a: Event, b: Event): boolean {
  return a.timeMs < b.timeMs || (a.timeMs === b.timeMs && a.order < b.order);
}
