import assert from 'node:assert';

const ENTRIES_FIRST = 32;

/**
 * The entries between a ring's tail and what was fetched: where each begins and ends, as it was
 * when it was read, and whether it is a command that needs an answer.
 */
export class EntryQueue {
  readonly #entriesMax: number;
  #starts = new Uint32Array(ENTRIES_FIRST);
  #ends = new Uint32Array(ENTRIES_FIRST);
  #isCommand = new Uint8Array(ENTRIES_FIRST);
  #first = 0;
  #count = 0;

  constructor(entriesMax: number) {
    this.#entriesMax = entriesMax;
  }

  get count(): number {
    return this.#count;
  }

  get isFull(): boolean {
    return this.#count >= this.#entriesMax;
  }

  push(start: number, end: number, isCommand: boolean): void {
    assert(!this.isFull);
    if (this.#count === this.#starts.length) this.#grow();
    const slot = (this.#first + this.#count) % this.#starts.length;
    this.#starts[slot] = start;
    this.#ends[slot] = end;
    this.#isCommand[slot] = isCommand ? 1 : 0;
    this.#count += 1;
  }

  /** Twice the room, with the oldest entry first: most devices are idle and need little. */
  #grow(): void {
    const [starts, ends, isCommand] = [this.#starts, this.#ends, this.#isCommand];
    this.#starts = new Uint32Array(starts.length * 2);
    this.#ends = new Uint32Array(starts.length * 2);
    this.#isCommand = new Uint8Array(starts.length * 2);
    for (let i = 0; i < this.#count; i += 1) {
      const from = (this.#first + i) % starts.length;
      this.#starts[i] = starts[from];
      this.#ends[i] = ends[from];
      this.#isCommand[i] = isCommand[from];
    }
    this.#first = 0;
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
