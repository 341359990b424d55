import { registryLimits } from '../base/limits.ts';
import { rangeEnd, type ByteRange } from '../base/range.ts';
import { parseContentRange } from './headers.ts';

/** What makes a multipart body unusable: what was expected, and what was found. */
export class ByterangesError extends Error {
  readonly expected: string;
  readonly found: string;

  constructor(expected: string, found: string) {
    super(`expected ${expected}, found ${found}`);
    this.expected = expected;
    this.found = found;
  }
}

/** The boundary of a `multipart/byteranges` Content-Type (RFC 2046, 5.1.1); null for another type. */
export function byterangesBoundary(contentType: string): string | null {
  const match = /^multipart\/byteranges\s*;\s*boundary=(?:"([^"]{1,70})"|([^\s;",]{1,70}))$/i.exec(
    contentType.trim(),
  );
  return match?.[1] ?? match?.[2] ?? null;
}

/**
 * Reads a `multipart/byteranges` body (RFC 9110, 14.6) as it arrives, and lets only what was asked for
 * through: every range, whole, in the order of the request.
 *
 *   [CRLF] --B CRLF  headers CRLF CRLF  bytes  CRLF --B CRLF  headers ...  bytes  CRLF --B-- [...]
 *   '---------- text ---------------'  '-----' '-- text ------------'              '-- text --'
 *
 * A server may by the standard join or reorder ranges; those that do are refused.
 */
export class ByterangesReader {
  readonly #delimiter: string;
  readonly #ranges: readonly ByteRange[];
  readonly #sizeBytes: number;
  readonly #onData: (chunk: Uint8Array, index: number) => void;
  /** The range whose headers or bytes are being read; `#ranges.length` after the last one. */
  #index = -1;
  /** Bytes of it that are still to come. */
  #leftBytes = 0;
  #line = '';
  #textBytes = 0;
  #state: 'delimiter' | 'headers' | 'end' = 'delimiter';
  #hasRange = false;

  /** `onData` gets a range's bytes in order; a chunk is only valid during the call. */
  constructor(
    boundary: string,
    ranges: readonly ByteRange[],
    sizeBytes: number,
    onData: (chunk: Uint8Array, index: number) => void,
  ) {
    this.#delimiter = `--${boundary}`;
    this.#ranges = ranges;
    this.#sizeBytes = sizeBytes;
    this.#onData = onData;
  }

  /** Throws a ByterangesError at the first thing that is not as asked. */
  push(chunk: Uint8Array): void {
    let at = 0;
    while (at < chunk.length && this.#state !== 'end') {
      if (this.#leftBytes === 0) {
        at = this.#readText(chunk, at);
        continue;
      }
      const end = Math.min(chunk.length, at + this.#leftBytes);
      this.#leftBytes -= end - at;
      this.#onData(chunk.subarray(at, end), this.#index);
      at = end;
    }
  }

  /** To be called when the body is over: every range must have arrived. */
  finish(): void {
    if (this.#state === 'delimiter' && this.#leftBytes === 0) this.#onDelimiter(this.#line);
    if (this.#state === 'end') return;
    const found = `an end within part ${this.#index + 1}`;
    throw new ByterangesError(`${this.#ranges.length} parts`, found);
  }

  /** Takes text up to the end of a line or of the chunk; gives where it stopped. */
  #readText(chunk: Uint8Array, at: number): number {
    const feed = chunk.indexOf(0x0a, at);
    const end = feed === -1 ? chunk.length : feed + 1;
    this.#textBytes += end - at;
    if (this.#textBytes > registryLimits.partHeaderBytesMax) {
      const limit = `at most ${registryLimits.partHeaderBytesMax} bytes between ranges`;
      throw new ByterangesError(limit, 'more');
    }
    this.#line += Buffer.from(chunk.buffer, chunk.byteOffset + at, end - at).toString('latin1');
    if (feed === -1) return end;
    const line = this.#line.replace(/\r?\n$/, '');
    this.#line = '';
    if (this.#state === 'headers') this.#onHeader(line);
    else this.#onDelimiter(line);
    return end;
  }

  #onDelimiter(line: string): void {
    if (line === '') return;
    const isLast = this.#index + 1 === this.#ranges.length;
    const expected = isLast ? `${this.#delimiter}--` : this.#delimiter;
    if (line.trimEnd() !== expected) throw new ByterangesError(expected, line.slice(0, 80));
    if (isLast) {
      this.#state = 'end';
      return;
    }
    this.#index += 1;
    this.#state = 'headers';
  }

  #onHeader(line: string): void {
    if (line === '') {
      this.#beginBytes();
      return;
    }
    const value = /^content-range\s*:\s*(.*)$/i.exec(line)?.[1];
    if (value === undefined) return;
    const range = parseContentRange(value);
    const wanted = this.#ranges[this.#index];
    const isExact =
      range?.kind === 'range' &&
      range.start === wanted.offset &&
      range.end === rangeEnd(wanted) - 1 &&
      range.total === this.#sizeBytes;
    if (!isExact) {
      const expected = `bytes ${wanted.offset}-${rangeEnd(wanted) - 1}/${this.#sizeBytes}`;
      throw new ByterangesError(`Content-Range ${expected}`, JSON.stringify(value.slice(0, 80)));
    }
    this.#hasRange = true;
  }

  #beginBytes(): void {
    if (!this.#hasRange) throw new ByterangesError('a Content-Range in each part', 'none');
    this.#leftBytes = this.#ranges[this.#index].length;
    this.#hasRange = false;
    this.#textBytes = 0;
    this.#state = 'delimiter';
  }
}
