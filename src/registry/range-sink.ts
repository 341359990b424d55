import { registryLimits } from '../base/limits.ts';
import { publicUrl, RegistryError } from './errors.ts';
import { contentLength, header, parseContentRange } from './headers.ts';
import type { BodySink, ResponseHead } from './transport.ts';

/** One ranged request and what is known of its blob. */
export interface RangeExpectation {
  offset: number;
  length: number;
  /** Null until an answer told. */
  sizeBytes: number | null;
  digest: string;
}

/** ERR_CONTENT_RANGE: the range does not lie in the blob. */
export class RangeBeyondBlobError extends RegistryError {
  /** The blob's true size, where the answer told it. */
  readonly totalBytes: number | null;

  constructor(message: string, totalBytes: number | null) {
    super('ERR_CONTENT_RANGE', message, { status: 416 });
    this.totalBytes = totalBytes;
  }
}

/**
 * Lets exactly the bytes of one range through. Whatever else a server answers to a ranged request
 * is refused before a byte of it is handed on; a body that breaks off has handed on a prefix of the
 * range. Answers that are no success are kept, for the error they become.
 */
export class RangeSink implements BodySink {
  /** The blob's size as the answer told it. */
  learnedSizeBytes: number | null = null;
  readonly #url: URL;
  readonly #expected: RangeExpectation;
  readonly #onData: (chunk: Uint8Array) => void;
  #isRange = false;
  #receivedBytes = 0;
  #otherBody: Uint8Array[] = [];
  #otherLength = 0;

  constructor(url: URL, expected: RangeExpectation, onData: (chunk: Uint8Array) => void) {
    this.#url = url;
    this.#expected = expected;
    this.#onData = onData;
  }

  /** The body of the last answer that was no success. */
  get otherBody(): Uint8Array {
    return Buffer.concat(this.#otherBody);
  }

  onHead(head: ResponseHead): void {
    this.#otherBody = [];
    this.#otherLength = 0;
    // Thrown at once: some registries announce the blob's length here and then break off.
    if (head.status === 416) throw this.#beyondBlob(unsatisfiedTotal(head));
    this.#isRange = head.status === 200 || head.status === 206;
    if (!this.#isRange) return;
    const encoding = header(head.headers, 'content-encoding') ?? 'identity';
    if (encoding !== 'identity') {
      throw this.#error('ERR_CONTENT_ENCODING', 'no Content-Encoding', encoding.slice(0, 40));
    }
    if (head.status === 200) this.#checkWholeBlob(head);
    else this.#checkContentRange(head);
    const announced = contentLength(head.headers);
    if (announced !== null && announced !== this.#expected.length) {
      const found = `Content-Length ${announced}`;
      throw this.#error('ERR_BODY_LENGTH', `${this.#expected.length} bytes`, found);
    }
    const digest = header(head.headers, 'docker-content-digest') ?? this.#expected.digest;
    if (digest !== this.#expected.digest) {
      throw this.#error('ERR_BLOB_CHANGED', this.#expected.digest, digest.slice(0, 100));
    }
  }

  onData(chunk: Uint8Array): void {
    if (!this.#isRange) {
      this.#keepOther(chunk);
      return;
    }
    if (this.#receivedBytes + chunk.length > this.#expected.length) {
      throw this.#error('ERR_BODY_LENGTH', `${this.#expected.length} bytes`, 'a longer body');
    }
    this.#receivedBytes += chunk.length;
    this.#onData(chunk);
  }

  /** To be called after the exchange: the range must have arrived whole. */
  finish(): void {
    if (this.#receivedBytes === this.#expected.length) return;
    const found = `${this.#receivedBytes} bytes`;
    throw this.#error('ERR_BODY_LENGTH', `${this.#expected.length} bytes`, found);
  }

  /** 200 ignores the range; harmless only when the range was the whole blob. */
  #checkWholeBlob(head: ResponseHead): void {
    const { offset, length, sizeBytes } = this.#expected;
    const announced = contentLength(head.headers);
    if (offset === 0 && length === sizeBytes && announced === length) return;
    // An empty file has no ranges; Go's file server then answers with all of it.
    if (sizeBytes === null && announced === 0) throw this.#beyondBlob(0);
    throw this.#error('ERR_RANGE_IGNORED', 'status 206', 'status 200, the whole blob');
  }

  #checkContentRange(head: ResponseHead): void {
    const { offset, length, sizeBytes } = this.#expected;
    const text = header(head.headers, 'content-range') ?? '';
    const range = parseContentRange(text);
    const end = offset + length - 1;
    const isExact =
      range?.kind === 'range' &&
      range.start === offset &&
      range.end === end &&
      range.total !== null &&
      (sizeBytes === null || range.total === sizeBytes);
    if (!isExact) {
      const expected = `Content-Range bytes ${offset}-${end}/${sizeBytes ?? 'size'}`;
      throw this.#error('ERR_CONTENT_RANGE', expected, JSON.stringify(text.slice(0, 80)));
    }
    this.learnedSizeBytes = range.total;
  }

  #keepOther(chunk: Uint8Array): void {
    this.#otherLength += chunk.length;
    if (this.#otherLength > registryLimits.answerBytesMax) {
      const limit = `${registryLimits.answerBytesMax} bytes`;
      throw this.#error('ERR_BODY_LENGTH', `an error of at most ${limit}`, 'a longer body');
    }
    this.#otherBody.push(Uint8Array.from(chunk));
  }

  #beyondBlob(totalBytes: number | null): RangeBeyondBlobError {
    const { offset, length } = this.#expected;
    return new RangeBeyondBlobError(
      `${publicUrl(this.#url)}: bytes ${offset}+${length}: expected a range inside the blob, ` +
        `found ${totalBytes === null ? 'that it is not' : `that the blob has ${totalBytes} bytes`}. ` +
        'The known size is wrong.',
      totalBytes,
    );
  }

  #error(code: `ERR_${string}`, expected: string, found: string): RegistryError {
    const retryable = code === 'ERR_BODY_LENGTH';
    return new RegistryError(
      code,
      `${publicUrl(this.#url)}: bytes ${this.#expected.offset}+${this.#expected.length}: ` +
        `expected ${expected}, found ${found}. ${ADVICE[code] ?? 'Try again.'}`,
      { retryable },
    );
  }
}

function unsatisfiedTotal(head: ResponseHead): number | null {
  const range = parseContentRange(header(head.headers, 'content-range') ?? '');
  return range?.kind === 'unsatisfied' ? range.total : null;
}

const ADVICE: Readonly<Record<string, string>> = {
  ERR_RANGE_IGNORED: 'The registry or a proxy before it does not serve ranges.',
  ERR_CONTENT_RANGE: 'The size in the manifest is wrong, or a proxy answers another range.',
  ERR_CONTENT_ENCODING: 'A proxy re-encodes blobs; it must pass them unchanged.',
  ERR_BLOB_CHANGED: 'A blob never changes; a cache before the registry is broken.',
};
