import { vhostUserLimits } from './limits.ts';
import type { Turns, TurnTaker } from './turns.ts';

/** Data that a device's unanswered requests hold; queues take no more while it is too much. */
export class OutstandingBytes {
  readonly #turns: Turns;
  readonly #waiting = new Set<TurnTaker>();
  #bytes = 0;

  constructor(turns: Turns) {
    this.#turns = turns;
  }

  /** True when another request of the largest size would be too much. */
  get isFull(): boolean {
    const room = vhostUserLimits.outstandingBytesMax - this.#bytes;
    return room < vhostUserLimits.requestBytesMax;
  }

  add(bytes: number): void {
    this.#bytes += bytes;
  }

  remove(bytes: number): void {
    this.#bytes -= bytes;
    if (this.isFull || this.#waiting.size === 0) return;
    for (const taker of this.#waiting) this.#turns.ask(taker);
    this.#waiting.clear();
  }

  /** Gives it a turn when there is room again. */
  wait(taker: TurnTaker): void {
    this.#waiting.add(taker);
  }
}
