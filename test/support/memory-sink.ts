import type { PatchableSink } from '../../src/image/byte-sink.ts';

/** Keeps what is written to it. */
export class MemorySink implements PatchableSink {
  #bytes = Buffer.alloc(0);

  async write(bytes: Uint8Array): Promise<void> {
    this.#bytes = Buffer.concat([this.#bytes, bytes]);
  }

  async patch(offset: number, bytes: Uint8Array): Promise<void> {
    if (offset + bytes.length > this.#bytes.length) throw new RangeError('patch behind the end');
    this.#bytes.set(bytes, offset);
  }

  get bytes(): Buffer {
    return this.#bytes;
  }
}
