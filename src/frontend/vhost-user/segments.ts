import type { GuestRegion } from './guest-memory.ts';

/**
 * Pieces of guest memory, in order, as if they were one. Made once and filled again and again: only its
 * tables' growth allocates.
 */
export class Segments {
  readonly #regions: GuestRegion[] = [];
  readonly #offsets: number[] = [];
  readonly #lengths: number[] = [];
  #count = 0;
  /** Of all pieces, in bytes. */
  totalBytes = 0;

  clear(): void {
    this.#count = 0;
    this.totalBytes = 0;
  }

  /** A piece that continues the last one becomes part of it. */
  push(region: GuestRegion, offset: number, length: number): void {
    if (length === 0) return;
    this.totalBytes += length;
    const last = this.#count - 1;
    if (last >= 0 && this.#regions[last] === region) {
      const end = this.#offsets[last] + this.#lengths[last];
      if (end === offset) {
        this.#lengths[last] += length;
        return;
      }
    }
    this.#regions[this.#count] = region;
    this.#offsets[this.#count] = offset;
    this.#lengths[this.#count] = length;
    this.#count += 1;
  }

  /** The same pieces, for a request that outlives its turn. */
  copy(): Segments {
    const copy = new Segments();
    for (let i = 0; i < this.#count; i += 1) {
      copy.push(this.#regions[i], this.#offsets[i], this.#lengths[i]);
    }
    return copy;
  }

  /** Writes all of `from` to the guest, starting at byte `at` of the pieces. */
  scatter(from: Buffer, at = 0): void {
    let done = 0;
    for (let i = 0; i < this.#count && done < from.length; i += 1) {
      const length = this.#lengths[i];
      if (at >= length) {
        at -= length;
        continue;
      }
      const take = Math.min(length - at, from.length - done);
      from.copy(this.#regions[i].bytes, this.#offsets[i] + at, done, done + take);
      done += take;
      at = 0;
    }
  }

  /** Fills all of `into` from the guest, starting at byte `at` of the pieces. */
  gather(into: Buffer, at = 0): void {
    let done = 0;
    for (let i = 0; i < this.#count && done < into.length; i += 1) {
      const length = this.#lengths[i];
      if (at >= length) {
        at -= length;
        continue;
      }
      const take = Math.min(length - at, into.length - done);
      const from = this.#offsets[i] + at;
      this.#regions[i].bytes.copy(into, done, from, from + take);
      done += take;
      at = 0;
    }
  }

  /** The first `length` bytes where they are one piece: a view of guest memory; null where not. */
  contiguous(length: number): Buffer | null {
    if (this.#count === 0 || this.#lengths[0] < length) return null;
    return this.#regions[0].bytes.subarray(this.#offsets[0], this.#offsets[0] + length);
  }

  /** Sets the last byte. */
  setLastByte(value: number): void {
    const last = this.#count - 1;
    this.#regions[last].bytes[this.#offsets[last] + this.#lengths[last] - 1] = value;
  }
}
