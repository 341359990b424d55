/** Something that has work to do now and then, a bounded piece at a time. */
export interface TurnTaker {
  /** True when there is more. */
  turn(): boolean;
}

/**
 * Gives work its turns from the event loop: all that asked since the last turn, each once, so that none
 * keeps others, or other parts of the process, waiting.
 */
export class Turns {
  #waiting = new Set<TurnTaker>();
  #isScheduled = false;

  ask(taker: TurnTaker): void {
    this.#waiting.add(taker);
    if (this.#isScheduled) return;
    this.#isScheduled = true;
    setImmediate(this.#run);
  }

  readonly #run = (): void => {
    this.#isScheduled = false;
    const waiting = this.#waiting;
    this.#waiting = new Set();
    for (const taker of waiting) if (taker.turn()) this.ask(taker);
  };
}
