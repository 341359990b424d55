import assert from 'node:assert';

/**
 * The entries between a ring's tail and what was fetched: where each begins and ends, as it was
 * when it was read, and whether it is a command that needs an answer.
 */
export class EntryQueue {
  readonly #starts: Uint32Array;
  readonly #ends: Uint32Array;
  readonly #isCommand: Uint8Array;
  #first = 0;
  #count = 0;

  constructor(entriesMax: number) {
    this.#starts = new Uint32Array(entriesMax);
    this.#ends = new Uint32Array(entriesMax);
    this.#isCommand = new Uint8Array(entriesMax);
  }

  get count(): number {
    return this.#count;
  }

  get isFull(): boolean {
    return this.#count === this.#starts.length;
  }

  push(start: number, end: number, isCommand: boolean): void {
    assert(!this.isFull);
    const slot = (this.#first + this.#count) % this.#starts.length;
    this.#starts[slot] = start;
    this.#ends[slot] = end;
    this.#isCommand[slot] = isCommand ? 1 : 0;
    this.#count += 1;
  }

  /** The oldest entry waits for an answer. */
  get isCommandFirst(): boolean {
    return this.#count > 0 && this.#isCommand[this.#first] === 1;
  }

  get firstStart(): number {
    assert(this.#count > 0);
    return this.#starts[this.#first];
  }

  /** Where the next entry begins, unless the ring wraps there. */
  get firstEnd(): number {
    assert(this.#count > 0);
    return this.#ends[this.#first];
  }

  drop(): void {
    assert(this.#count > 0);
    this.#first = (this.#first + 1) % this.#starts.length;
    this.#count -= 1;
  }
}
