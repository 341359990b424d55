import assert from 'node:assert/strict';

const CAPACITY_START = 16;

/**
 * Events of one kind, each of a subject and a number, in the order in which they happen: what takes the
 * same time for all begins and ends in the same order, so that no two of them have to be sorted.
 */
export class EventLine<T> {
  readonly #queue: EventQueue;
  readonly #index: number;
  readonly #happen: (subject: T, value: number) => void;
  /** Rings of one size, a power of two, from #head on. */
  #timesMs = new Float64Array(CAPACITY_START);
  #orders = new Float64Array(CAPACITY_START);
  #values = new Float64Array(CAPACITY_START);
  #subjects: T[] = [];
  #head = 0;
  #count = 0;
  #lastMs = 0;

  constructor(queue: EventQueue, happen: (subject: T, value: number) => void) {
    this.#queue = queue;
    this.#happen = happen;
    this.#index = queue.addLine(this);
  }

  /** Plans an event that is no earlier than those in line. */
  at(timeMs: number, subject: T, value = 0): void {
    const queue = this.#queue;
    assert(timeMs >= queue.nowMs && timeMs >= this.#lastMs, 'an event is planned in order');
    this.#lastMs = timeMs;
    if (this.#count === this.#timesMs.length) this.#grow();
    const place = (this.#head + this.#count) & (this.#timesMs.length - 1);
    const order = queue.nextOrder();
    this.#timesMs[place] = timeMs;
    this.#orders[place] = order;
    this.#values[place] = value;
    this.#subjects[place] = subject;
    this.#count += 1;
    if (this.#count === 1) queue.setHead(this.#index, timeMs, order);
  }

  after(delayMs: number, subject: T, value = 0): void {
    this.at(this.#queue.nowMs + delayMs, subject, value);
  }

  /** Takes the first event out of the line, and lets it happen. */
  take(): void {
    const place = this.#head;
    this.#head = (place + 1) & (this.#timesMs.length - 1);
    this.#count -= 1;
    if (this.#count === 0) this.#queue.setHead(this.#index, Infinity, Infinity);
    else this.#queue.setHead(this.#index, this.#timesMs[this.#head], this.#orders[this.#head]);
    this.#happen(this.#subjects[place], this.#values[place]);
  }

  #grow(): void {
    const from = this.#head;
    const turned = (ring: Float64Array): Float64Array<ArrayBuffer> => {
      const wide = new Float64Array(2 * ring.length);
      wide.set(ring.subarray(from));
      wide.set(ring.subarray(0, from), ring.length - from);
      return wide;
    };
    this.#timesMs = turned(this.#timesMs);
    this.#orders = turned(this.#orders);
    this.#values = turned(this.#values);
    this.#subjects = [...this.#subjects.slice(from), ...this.#subjects.slice(0, from)];
    this.#head = 0;
  }
}

/**
 * What is going to happen, earliest first, and of one time in the order it was planned; and the clock
 * that it turns. There are few lines, whose first events are looked through:
 *
 *   sent     |--*
 *   arrived  |-----*--*--*---*
 *   guest    |----*                     next: the one of `sent`
 */
export class EventQueue {
  readonly #lines: { take(): void }[] = [];
  /** Of the first event of each line; Infinity for an empty one. */
  readonly #headsMs: number[] = [];
  readonly #headOrders: number[] = [];
  #planned = 0;
  #nowMs = 0;

  get nowMs(): number {
    return this.#nowMs;
  }

  /** Of lines: takes one in, and gives its index. */
  addLine(line: { take(): void }): number {
    this.#headsMs.push(Infinity);
    this.#headOrders.push(Infinity);
    return this.#lines.push(line) - 1;
  }

  /** Of lines: tells which event is the first of one. */
  setHead(index: number, timeMs: number, order: number): void {
    this.#headsMs[index] = timeMs;
    this.#headOrders[index] = order;
  }

  /** Of lines: an event is planned. */
  nextOrder(): number {
    this.#planned += 1;
    return this.#planned;
  }

  /**
   * Moves the clock to a time before which, and at which, nothing else is going to happen; else false.
   * For the end of an event only: what is left of it happens then.
   */
  skipTo(timeMs: number): boolean {
    const first = this.#first();
    if (first >= 0 && this.#headsMs[first] <= timeMs) return false;
    this.#nowMs = timeMs;
    return true;
  }

  /** Lets the earliest event happen; false when there is none. */
  step(): boolean {
    const first = this.#first();
    if (first < 0) return false;
    this.#nowMs = this.#headsMs[first];
    this.#lines[first].take();
    return true;
  }

  /** Index of the line with the earliest event; -1 when there is none. */
  #first(): number {
    let first = -1;
    let firstMs = Infinity;
    let firstOrder = Infinity;
    for (let i = 0; i < this.#headsMs.length; i += 1) {
      const timeMs = this.#headsMs[i];
      if (timeMs > firstMs) continue;
      if (timeMs === firstMs && this.#headOrders[i] >= firstOrder) continue;
      first = i;
      firstMs = timeMs;
      firstOrder = this.#headOrders[i];
    }
    return first;
  }
}
