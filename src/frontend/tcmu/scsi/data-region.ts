import assert from 'node:assert';

/**
 * The memory that a command's data travels through: some parts, in order, of which a host says
 * where they are. Reused from command to command.
 */
export class DataRegion {
  readonly #parts: Uint8Array[] = [];
  #count = 0;
  #length = 0;

  /** Bytes of all parts. */
  get length(): number {
    return this.#length;
  }

  get partCount(): number {
    return this.#count;
  }

  part(index: number): Uint8Array {
    assert(index < this.#count);
    return this.#parts[index];
  }

  clear(): void {
    this.#count = 0;
    this.#length = 0;
  }

  add(bytes: Uint8Array): void {
    this.#parts[this.#count] = bytes;
    this.#count += 1;
    this.#length += bytes.length;
  }

  /** The region's first `length` bytes as one piece of memory, without a copy; null if scattered. */
  contiguous(length: number): Uint8Array | null {
    if (this.#count === 0) return null;
    const first = this.#parts[0];
    if (first.length === length) return first;
    return first.length > length ? first.subarray(0, length) : null;
  }

  /** Puts `bytes` at byte `at`; what does not fit is left out. Returns how many bytes did. */
  put(bytes: Uint8Array, at = 0): number {
    let done = 0;
    this.#eachPart(at, bytes.length, (part) => {
      part.set(bytes.subarray(done, done + part.length));
      done += part.length;
    });
    return done;
  }

  /** Zeroes everything from byte `at` on: no earlier command's data leaves with this one's. */
  zeroFrom(at: number): void {
    this.#eachPart(at, this.#length, (part) => part.fill(0));
  }

  /** Fills `into` with the bytes at `at`; all of them have to be there. */
  take(into: Uint8Array, at = 0): void {
    assert(at + into.length <= this.#length);
    let done = 0;
    this.#eachPart(at, into.length, (part) => {
      into.set(part, done);
      done += part.length;
    });
  }

  /** A copy of `length` bytes at `at`; fewer when there are fewer. */
  copy(length: number, at = 0): Uint8Array {
    const bytes = new Uint8Array(Math.max(0, Math.min(length, this.#length - at)));
    this.take(bytes, at);
    return bytes;
  }

  /** Calls back with the memory of up to `length` bytes at `at`, part by part. */
  #eachPart(at: number, length: number, visit: (part: Uint8Array) => void): void {
    let position = 0;
    let left = length;
    for (let i = 0; i < this.#count && left > 0; i += 1) {
      const part = this.#parts[i];
      const skip = Math.max(0, at - position);
      position += part.length;
      if (skip >= part.length) continue;
      const take = Math.min(part.length - skip, left);
      visit(part.subarray(skip, skip + take));
      left -= take;
    }
  }
}
