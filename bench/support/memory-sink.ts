import type { PatchableSink } from '../../src/image/byte-sink.ts';

/** Keeps what is written to it. */
export class MemorySink implements PatchableSink {
  #bytes = Buffer.alloc(64 * 1024);
  #length = 0;

  async write(bytes: Uint8Array): Promise<void> {
    const end = this.#length + bytes.length;
    if (end > this.#bytes.length) {
      this.#bytes = Buffer.concat([this.#bytes], Math.max(end, this.#bytes.length * 2));
    }
    this.#bytes.set(bytes, this.#length);
    this.#length = end;
  }

  async patch(offset: number, bytes: Uint8Array): Promise<void> {
    if (offset + bytes.length > this.#length) throw new RangeError('patch behind the end');
    this.#bytes.set(bytes, offset);
  }

  get bytes(): Buffer {
    return this.#bytes.subarray(0, this.#length);
  }
}
