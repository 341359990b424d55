/** Chunks already taken that may stay referenced, so that dropping them costs little each. */
const SPENT_CHUNKS_MAX = 64;

/**
 * Bytes of a stream in order of arrival, taken out in the sizes a parser needs. The chunks may be
 * cut anywhere; a copy is made only of what spans several.
 */
export class ByteQueue {
  #chunks: Buffer[] = [];
  /** The first chunk that still has bytes, and where in it they begin. */
  #first = 0;
  #position = 0;
  #length = 0;

  get length(): number {
    return this.#length;
  }

  push(chunk: Buffer): void {
    if (chunk.length === 0) return;
    this.#chunks.push(chunk);
    this.#length += chunk.length;
  }

  /** The next `count` bytes in one piece, or null while there are fewer. */
  take(count: number): Buffer | null {
    if (this.#length < count) return null;
    const chunk = this.#chunks[this.#first];
    if (chunk !== undefined && chunk.length - this.#position >= count) {
      const bytes = chunk.subarray(this.#position, this.#position + count);
      this.#advance(chunk, count);
      return bytes;
    }
    const bytes = Buffer.allocUnsafe(count);
    this.copyInto(bytes);
    return bytes;
  }

  /** Moves bytes to the front of `target`, as many as both have; returns how many. */
  copyInto(target: Uint8Array): number {
    return this.#consume(target.length, (part, at) => target.set(part, at));
  }

  /** Drops up to `count` bytes; returns how many. */
  skip(count: number): number {
    return this.#consume(count, () => undefined);
  }

  #consume(count: number, use: (part: Buffer, at: number) => void): number {
    const total = Math.min(count, this.#length);
    let done = 0;
    while (done < total) {
      const chunk = this.#chunks[this.#first];
      if (chunk === undefined) break;
      const size = Math.min(total - done, chunk.length - this.#position);
      use(chunk.subarray(this.#position, this.#position + size), done);
      this.#advance(chunk, size);
      done += size;
    }
    return done;
  }

  #advance(chunk: Buffer, count: number): void {
    this.#position += count;
    this.#length -= count;
    if (this.#position < chunk.length) return;
    this.#position = 0;
    this.#first += 1;
    if (this.#first < this.#chunks.length && this.#first < SPENT_CHUNKS_MAX) return;
    this.#chunks = this.#chunks.slice(this.#first);
    this.#first = 0;
  }
}
