import assert from 'node:assert/strict';
import { ReplaybdError } from '../../base/errors.ts';
import { GRANULE_BYTES } from '../../base/limits.ts';
import { rangeEnd, type ByteRange } from '../../base/range.ts';

export interface GranuleWriterOptions {
  /** For messages. */
  name: string;
  /** Granule-aligned; may end at the blob's end instead. */
  range: ByteRange;
  /** Takes whole granules in order. */
  store: (bytes: Uint8Array, offset: number) => void;
  /** All bytes of the range below `upTo` are stored. */
  onGranules: (upTo: number) => void;
}

/** Cuts a stream of chunks of any size into whole granules, and stores each as it completes. */
export class GranuleWriter {
  readonly #options: GranuleWriterOptions;
  readonly #end: number;
  readonly #partial = new Uint8Array(GRANULE_BYTES);
  #partialLength = 0;
  #storedEnd: number;

  constructor(options: GranuleWriterOptions) {
    assert.equal(options.range.offset % GRANULE_BYTES, 0);
    this.#options = options;
    this.#end = rangeEnd(options.range);
    this.#storedEnd = options.range.offset;
  }

  /** Everything of the range below this offset is stored. */
  get storedEnd(): number {
    return this.#storedEnd;
  }

  get isComplete(): boolean {
    return this.#storedEnd === this.#end;
  }

  /** The chunk may be reused afterwards. Throws ERR_SOURCE_OVERRUN past the range's end. */
  write(chunk: Uint8Array): void {
    const before = this.#storedEnd;
    if (before + this.#partialLength + chunk.length > this.#end) {
      throw new ReplaybdError(
        'ERR_SOURCE_OVERRUN',
        `${this.#options.name}: sent more than the ${this.#options.range.length} bytes at ` +
          `${this.#options.range.offset} it was asked for. The server or a proxy is faulty.`,
      );
    }
    let rest = this.#completePartial(chunk);
    const wholeBytes = this.#wholeBytes(rest.length);
    if (wholeBytes > 0) this.#store(rest.subarray(0, wholeBytes));
    rest = rest.subarray(wholeBytes);
    this.#partial.set(rest, this.#partialLength);
    this.#partialLength += rest.length;
    if (this.#storedEnd > before) this.#options.onGranules(this.#storedEnd);
  }

  #completePartial(chunk: Uint8Array): Uint8Array {
    if (this.#partialLength === 0) return chunk;
    const granuleBytes = Math.min(GRANULE_BYTES, this.#end - this.#storedEnd);
    const taken = Math.min(granuleBytes - this.#partialLength, chunk.length);
    this.#partial.set(chunk.subarray(0, taken), this.#partialLength);
    this.#partialLength += taken;
    if (this.#partialLength === granuleBytes) {
      this.#partialLength = 0;
      this.#store(this.#partial.subarray(0, granuleBytes));
    }
    return chunk.subarray(taken);
  }

  /** Of `length` bytes that follow what is stored, how many make whole granules. */
  #wholeBytes(length: number): number {
    if (this.#partialLength > 0) return 0;
    return this.#storedEnd + length === this.#end ? length : length - (length % GRANULE_BYTES);
  }

  #store(bytes: Uint8Array): void {
    this.#options.store(bytes, this.#storedEnd);
    this.#storedEnd += bytes.length;
  }
}
