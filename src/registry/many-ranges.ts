import assert from 'node:assert/strict';
import { registryLimits } from '../base/limits.ts';
import type { ByteRange } from '../base/range.ts';
import type { ManyRangesSource } from '../blob/blob.ts';
import type { BlobRoute } from './blob-route.ts';
import { ByterangesError, byterangesBoundary, ByterangesReader } from './byteranges.ts';
import { CollectingSink } from './collect.ts';
import { publicUrl, RegistryError } from './errors.ts';
import { header } from './headers.ts';
import { Remembered } from './remembered.ts';
import type { BodySink, ResponseHead } from './transport.ts';

/** Statuses of servers that want nothing to do with several ranges; 200 is the whole blob. */
const REFUSALS = new Set([200, 206, 400, 416, 501]);

/**
 * What is known of the origins that serve blobs:
 *
 *   unknown --(a first request)--> asking --(multipart answer)--> many
 *      '<------(no answer)-----------'  '----(any other)--------> one
 */
export class RangeSupport {
  readonly #states = new Remembered<'asking' | 'many' | 'one'>(registryLimits.rememberedMax);

  rangesMax(origin: string): number {
    const state = this.#states.get(origin) ?? 'many';
    return state === 'many' ? registryLimits.requestRangesMax : 1;
  }

  isKnown(origin: string): boolean {
    const state = this.#states.get(origin);
    return state === 'many' || state === 'one';
  }

  onAsked(origin: string): void {
    if (this.#states.get(origin) === undefined) this.#states.set(origin, 'asking');
  }

  onMultipart(origin: string): void {
    if (this.#states.get(origin) !== 'one') this.#states.set(origin, 'many');
  }

  onRefusal(origin: string): void {
    this.#states.set(origin, 'one');
  }

  onFailure(origin: string): void {
    if (this.#states.get(origin) === 'asking') this.#states.delete(origin);
  }
}

export interface ManyRangesOptions {
  route: BlobRoute;
  support: RangeSupport;
  /** Null until it is known: then one range at a time is all there is. */
  sizeBytes: () => number | null;
  digest: string;
  /** Exchanges with the route: the source's own rules for heads and its closing included. */
  exchange: (
    headers: Record<string, string>,
    options: Parameters<ManyRangesSource['fetch']>[1],
    sink: BodySink,
  ) => Promise<ResponseHead>;
  /** What a status that is neither success nor refusal becomes. */
  errorOf: (head: ResponseHead, body: Uint8Array) => RegistryError;
}

/** Several ranges of a registry blob in one request, where whoever serves it goes along with that. */
export class RegistryManyRanges implements ManyRangesSource {
  readonly #options: ManyRangesOptions;

  constructor(options: ManyRangesOptions) {
    this.#options = options;
  }

  get rangesMax(): number {
    const { route, support, sizeBytes } = this.#options;
    return sizeBytes() === null ? 1 : support.rangesMax(route.servingOrigin);
  }

  get isRangesMaxKnown(): boolean {
    const { route, support } = this.#options;
    return support.isKnown(route.servingOrigin);
  }

  async fetch(
    ranges: readonly ByteRange[],
    options: Parameters<ManyRangesSource['fetch']>[1],
  ): Promise<void> {
    const { route, support, exchange, errorOf, digest } = this.#options;
    const sizeBytes = this.#options.sizeBytes();
    assert(sizeBytes !== null && ranges.length > 1);
    const origin = route.servingOrigin;
    const value = ranges.map(({ offset, length }) => `${offset}-${offset + length - 1}`).join(',');
    const sink = new ManyRangesSink(route.url, {
      ranges,
      sizeBytes,
      digest,
      onMultipart: () => support.onMultipart(origin),
      onData: options.onData,
    });
    support.onAsked(origin);
    try {
      const head = await exchange({ range: `bytes=${value}` }, options, sink);
      if (REFUSALS.has(head.status)) sink.finish(head);
      else throw errorOf(head, sink.otherBody);
    } catch (error) {
      if (error instanceof RangesRefusedError) support.onRefusal(origin);
      else support.onFailure(origin);
      throw error;
    }
  }
}

/** ERR_RANGES_REFUSED: asking for one range at a time may help. */
class RangesRefusedError extends RegistryError {
  constructor(url: URL, found: string) {
    super(
      'ERR_RANGES_REFUSED',
      `${publicUrl(url)}: expected several ranges, found ${found}. ` +
        'From now on each is asked for by itself.',
      { retryable: true },
    );
  }
}

interface Expectation {
  ranges: readonly ByteRange[];
  sizeBytes: number;
  digest: string;
  /** The answer has begun, and has the form wanted. */
  onMultipart: () => void;
  onData: (chunk: Uint8Array, index: number) => void;
}

class ManyRangesSink implements BodySink {
  readonly #url: URL;
  readonly #expected: Expectation;
  readonly #other: CollectingSink;
  #reader: ByterangesReader | null = null;

  constructor(url: URL, expected: Expectation) {
    this.#url = url;
    this.#expected = expected;
    this.#other = new CollectingSink(url, registryLimits.answerBytesMax);
  }

  get otherBody(): Uint8Array {
    return this.#other.bytes();
  }

  onHead(head: ResponseHead): void {
    this.#other.onHead(head);
    if (head.status === 200) throw this.#refused('status 200, the whole blob');
    if (head.status !== 206) return;
    const boundary = byterangesBoundary(header(head.headers, 'content-type') ?? '');
    if (boundary === null) throw this.#refused('an answer with one range');
    const encoding = header(head.headers, 'content-encoding') ?? 'identity';
    if (encoding !== 'identity') throw this.#refused(`Content-Encoding ${encoding.slice(0, 40)}`);
    const { ranges, sizeBytes, digest, onMultipart, onData } = this.#expected;
    const found = header(head.headers, 'docker-content-digest') ?? digest;
    if (found !== digest) throw this.#refused(`Docker-Content-Digest ${found.slice(0, 100)}`);
    this.#reader = new ByterangesReader(boundary, ranges, sizeBytes, onData);
    onMultipart();
  }

  onData(chunk: Uint8Array): void {
    if (this.#reader === null) this.#other.onData(chunk);
    else this.#read(() => this.#reader?.push(chunk));
  }

  /** To be called after the exchange: every range must have arrived whole. */
  finish(head: ResponseHead): void {
    if (this.#reader === null) throw this.#refused(`status ${head.status}`);
    this.#read(() => this.#reader?.finish());
  }

  #read(step: () => void): void {
    try {
      step();
    } catch (error) {
      if (!(error instanceof ByterangesError)) throw error;
      throw this.#refused(error.found, { expected: error.expected });
    }
  }

  #refused(found: string, more: { expected?: string } = {}): RangesRefusedError {
    const where = more.expected === undefined ? found : `${found} in place of ${more.expected}`;
    return new RangesRefusedError(this.#url, where);
  }
}
