import assert from 'node:assert/strict';
import type { Lane, RangeSource } from '../blob/blob.ts';
import { abandonable } from '../base/abandonable.ts';
import type { Clock } from '../base/clock.ts';
import type { BlobRoute } from './blob-route.ts';
import { publicUrl, RegistryError } from './errors.ts';
import { header } from './headers.ts';
import { RegistryManyRanges, type RangeSupport } from './many-ranges.ts';
import { RangeBeyondBlobError, RangeSink } from './range-sink.ts';
import { Remembered } from './remembered.ts';
import { withHeadTap } from './session.ts';
import { statusError } from './status-error.ts';
import type { BodySink, ResponseHead } from './transport.ts';

/** Origins of one blob whose ETags are compared. */
const ORIGINS_MAX = 16;

/** Ranges of one registry blob. Many sources may share a route; closing one leaves it to others. */
export class RegistryBlobSource implements RangeSource {
  readonly name: string;
  readonly many: RegistryManyRanges;
  readonly #route: BlobRoute;
  readonly #digest: string;
  readonly #clock: Clock;
  readonly #etags = new Remembered<string>(ORIGINS_MAX);
  readonly #closed = new AbortController();
  readonly #underWay = new Set<AbortController>();
  #sizeBytes: number | null;
  #sizePending: Promise<number> | null = null;

  constructor(
    route: BlobRoute,
    digest: string,
    sizeBytes: number | null,
    { clock, support }: { clock: Clock; support: RangeSupport },
  ) {
    this.name = publicUrl(route.url);
    this.#route = route;
    this.#digest = digest;
    this.#sizeBytes = sizeBytes;
    this.#clock = clock;
    this.many = new RegistryManyRanges({
      route,
      support,
      sizeBytes: () => this.#sizeBytes,
      digest,
      exchange: (range, options, sink) => this.#exchange(range, options, sink),
      errorOf: (head, body) => statusError(head.url, head, body, clock.wallMs()),
    });
  }

  /** The size, asked with a request for the first byte when nothing has told it before. */
  async size(signal?: AbortSignal): Promise<number> {
    if (this.#sizeBytes !== null) return this.#sizeBytes;
    this.#sizePending ??= this.#askSize().finally(() => (this.#sizePending = null));
    return await abandonable(this.#sizePending, signal);
  }

  async fetch(
    offset: number,
    length: number,
    options: { lane: Lane; signal: AbortSignal; onData: (chunk: Uint8Array) => void },
  ): Promise<void> {
    assert(Number.isSafeInteger(offset) && offset >= 0, `offset ${offset}`);
    assert(Number.isSafeInteger(length) && length > 0, `length ${length}`);
    assert(this.#sizeBytes === null || offset + length <= this.#sizeBytes, 'range beyond the blob');
    const expected = { offset, length, sizeBytes: this.#sizeBytes, digest: this.#digest };
    const sink = new RangeSink(this.#route.url, expected, options.onData);
    const range = { range: `bytes=${offset}-${offset + length - 1}` };
    const head = await this.#exchange(range, options, sink);
    if (head.status !== 206 && head.status !== 200) {
      throw statusError(head.url, head, sink.otherBody, this.#clock.wallMs());
    }
    sink.finish();
    this.#sizeBytes ??= sink.learnedSizeBytes;
  }

  async close(): Promise<void> {
    const reason = `${this.name}: the blob was closed.`;
    const error = new RegistryError('ERR_BLOB_CLOSED', reason);
    this.#closed.abort(error);
    for (const request of this.#underWay) request.abort(error);
  }

  #exchange(
    headers: Record<string, string>,
    { lane, signal }: { lane: Lane; signal: AbortSignal },
    sink: BodySink,
  ): Promise<ResponseHead> {
    const tapped = withHeadTap(sink, (head) => this.#checkEtag(head));
    return this.#untilClosed(signal, (until) =>
      this.#route.exchange({ headers, lane, signal: until }, tapped),
    );
  }

  /** As AbortSignal.any, which costs more than all else that a request needs before it leaves. */
  async #untilClosed<T>(signal: AbortSignal, work: (until: AbortSignal) => Promise<T>): Promise<T> {
    const until = new AbortController();
    const onAbort = (): void => until.abort(signal.reason);
    if (this.#closed.signal.aborted) until.abort(this.#closed.signal.reason);
    else if (signal.aborted) onAbort();
    signal.addEventListener('abort', onAbort);
    this.#underWay.add(until);
    try {
      return await work(until.signal);
    } finally {
      this.#underWay.delete(until);
      signal.removeEventListener('abort', onAbort);
    }
  }

  async #askSize(): Promise<number> {
    const signal = this.#closed.signal;
    try {
      await this.fetch(0, 1, { lane: 'demand', signal, onData: () => undefined });
    } catch (error) {
      const isEmpty = error instanceof RangeBeyondBlobError && error.totalBytes === 0;
      if (!isEmpty) throw error;
      this.#sizeBytes = 0;
    }
    assert(this.#sizeBytes !== null);
    return this.#sizeBytes;
  }

  /** Strong ETags of one origin must agree: the bytes of a digest never change. */
  #checkEtag(head: ResponseHead): void {
    const etag = header(head.headers, 'etag');
    if (etag === null || etag.startsWith('W/') || (head.status !== 200 && head.status !== 206)) {
      return;
    }
    const first = this.#etags.getOrCreate(head.url.origin, () => etag);
    if (first === etag) return;
    throw new RegistryError(
      'ERR_BLOB_CHANGED',
      `${this.name}: expected the ETag of the first answer, found another. ` +
        'A blob never changes; a cache before the registry is broken.',
    );
  }
}
