import { EventLine, type EventQueue } from './event-queue.ts';
import type { ConnectionPool } from './network.ts';
import type { BlobRange, UnitStates } from './unit-states.ts';

export interface FifoLanesOptions {
  readonly events: EventQueue;
  readonly states: UnitStates;
  readonly pool: ConnectionPool;
  /** In the order of the trace; as the plan has them. */
  readonly ranges: Iterator<BlobRange>;
  readonly concurrency: number;
  /** Blobs are fetched in aligned units of so many bytes. */
  readonly refillBytes: number;
}

/**
 * The original's way (overlaybd's prefetch.cpp over its file cache): readers take the trace's reads one
 * by one, and a read of bytes that are not there fetches the whole refill units it lies in, from the
 * first missing to the last. Whoever reads a unit that is under way waits for it. Guest and readers are
 * alike.
 */
export class FifoLanes {
  readonly #options: FifoLanesOptions;
  /** By blob and number of the unit: those who wait for it, or null once it is there. */
  readonly #refills = new Map<string, (() => void)[] | null>();
  /** Readers that are done with a range. */
  readonly #done: EventLine<null>;
  readonly requests = { demand: 0, prefetch: 0 };

  constructor(options: FifoLanesOptions) {
    this.#options = options;
    this.#done = new EventLine(options.events, () => this.#readNext());
  }

  /** Starts the readers. */
  start(): void {
    for (let reader = 0; reader < this.#options.concurrency; reader += 1) this.#readNext();
  }

  /** A guest reads a range. */
  demand(range: BlobRange): void {
    this.#read(range, 'demand', () => undefined);
  }

  #readNext(): void {
    const { value: range, done } = this.#options.ranges.next();
    if (done === true) return;
    // Not at once: a range that is there already must not make the stack deeper.
    this.#read(range, 'prefetch', () => this.#done.after(0, null));
  }

  #read(range: BlobRange, lane: 'demand' | 'prefetch', onDone: () => void): void {
    const { refillBytes } = this.#options;
    const { blob } = range;
    const first = Math.floor(range.offset / refillBytes);
    const end = Math.ceil((range.offset + range.length) / refillBytes);
    let firstMissing = -1;
    let lastMissing = -1;
    let left = 1;
    const settle = (): void => {
      left -= 1;
      if (left === 0) onDone();
    };
    for (let unit = first; unit < end; unit += 1) {
      const waiters = this.#refills.get(keyOf(blob, unit));
      if (waiters === undefined) {
        if (firstMissing < 0) firstMissing = unit;
        lastMissing = unit;
      } else if (waiters !== null) {
        left += 1;
        waiters.push(settle);
      }
    }
    if (firstMissing >= 0) {
      left += 1;
      this.#refill(blob, [firstMissing, lastMissing + 1], lane, settle);
    }
    settle();
  }

  #refill(
    blob: number,
    [first, end]: readonly [number, number],
    lane: 'demand' | 'prefetch',
    onDone: () => void,
  ): void {
    const { states, pool, refillBytes } = this.#options;
    const keys: string[] = [];
    for (let unit = first; unit < end; unit += 1) {
      const key = keyOf(blob, unit);
      if (this.#refills.has(key)) continue;
      this.#refills.set(key, []);
      keys.push(key);
    }
    const offset = first * refillBytes;
    const length = Math.min(end * refillBytes, states.workload.blobSizes[blob]) - offset;
    const landing = states.landing();
    states.activate(landing, { blob, offset, length }, lane);
    this.requests[lane] += 1;
    pool.request({
      bytes: length,
      onFirstByte: () => undefined,
      onBytes: (bytes) => states.land(landing, bytes),
      onEnd: () => {
        for (const key of keys) {
          const waiters = this.#refills.get(key) ?? [];
          this.#refills.set(key, null);
          for (const waiter of waiters) waiter();
        }
        onDone();
      },
    });
  }
}

function keyOf(blob: number, unit: number): string {
  return `${blob}/${unit}`;
}
