import type { TestContext } from 'node:test';
import type { Clock } from '../../src/base/clock.ts';
import { GRANULE_BYTES } from '../../src/base/limits.ts';
import type { Lane, ManyRangesSource, RangeSource } from '../../src/blob/blob.ts';
import { openMemoryCache } from '../../src/blob/cache/blob-cache.ts';
import type { RemoteBlob } from '../../src/blob/fetch/remote-blob.ts';
import { createFetcher, type Fetcher, type FetcherOptions } from '../../src/blob/fetcher.ts';
import { digestOf, patternBytes, settle } from './support.ts';

interface Timer {
  atMs: number;
  fire: () => void;
}

/** Time that passes only when a test says so. */
export class FakeClock implements Clock {
  #nowMs = 0;
  #timers: Timer[] = [];

  nowMs(): number {
    return this.#nowMs;
  }

  wallMs(): number {
    return 1_700_000_000_000 + this.#nowMs;
  }

  sleep(ms: number, signal?: AbortSignal): Promise<void> {
    return new Promise((resolve, reject) => {
      if (signal?.aborted === true) return reject(signal.reason);
      const timer = { atMs: this.#nowMs + ms, fire: resolve };
      this.#timers.push(timer);
      signal?.addEventListener('abort', () => {
        this.#timers = this.#timers.filter((other) => other !== timer);
        reject(signal.reason);
      });
    });
  }

  /** Lets `ms` pass, one timer after the other. */
  async advance(ms: number): Promise<void> {
    const untilMs = this.#nowMs + ms;
    for (;;) {
      await settle();
      const next = this.#timers.toSorted((a, b) => a.atMs - b.atMs).at(0);
      if (next === undefined || next.atMs > untilMs) break;
      this.#nowMs = Math.max(this.#nowMs, next.atMs);
      this.#timers = this.#timers.filter((other) => other !== next);
      next.fire();
    }
    this.#nowMs = untilMs;
    await settle();
  }
}

/** One request that a scripted source received, for the test to answer. */
export class ScriptedRequest {
  readonly offset: number;
  readonly length: number;
  readonly lane: Lane;
  readonly signal: AbortSignal;
  readonly #content: Uint8Array;
  readonly #onData: (chunk: Uint8Array) => void;
  readonly #done = Promise.withResolvers<void>();
  #sent = 0;
  isOver = false;

  constructor(
    content: Uint8Array,
    offset: number,
    length: number,
    options: { lane: Lane; signal: AbortSignal; onData: (chunk: Uint8Array) => void },
  ) {
    this.#content = content;
    this.offset = offset;
    this.length = length;
    this.lane = options.lane;
    this.signal = options.signal;
    this.#onData = options.onData;
  }

  get done(): Promise<void> {
    return this.#done.promise;
  }

  /** In granules, which read better. */
  get granules(): [first: number, count: number] {
    return [this.offset / GRANULE_BYTES, Math.ceil(this.length / GRANULE_BYTES)];
  }

  async send(bytes: number): Promise<void> {
    const from = this.offset + this.#sent;
    this.#sent += bytes;
    this.#onData(this.#content.subarray(from, from + bytes));
    await settle();
  }

  /** Sends what remains and ends well. */
  async finish(): Promise<void> {
    if (this.#sent < this.length) await this.send(this.length - this.#sent);
    await this.end();
  }

  /** Ends well, whatever was sent. */
  async end(): Promise<void> {
    this.isOver = true;
    this.#done.resolve();
    await settle();
  }

  async fail(error: unknown): Promise<void> {
    this.isOver = true;
    this.#done.reject(error);
    await settle();
  }
}

/** A source whose answers the test writes by hand. */
export class ScriptedSource implements RangeSource {
  readonly name = 'https://registry.example/blob';
  readonly requests: ScriptedRequest[] = [];
  /** Set by tests of requests for several ranges. */
  many?: ManyRangesSource;
  readonly #content: Uint8Array;
  isClosed = false;

  constructor(content: Uint8Array) {
    this.#content = content;
  }

  size(): Promise<number> {
    return Promise.resolve(this.#content.length);
  }

  fetch(
    offset: number,
    length: number,
    options: { lane: Lane; signal: AbortSignal; onData: (chunk: Uint8Array) => void },
  ): Promise<void> {
    const request = new ScriptedRequest(this.#content, offset, length, options);
    this.requests.push(request);
    return request.done;
  }

  /** The request that is not over, when there is exactly one such. */
  get only(): ScriptedRequest {
    const open = this.requests.filter((request) => !request.isOver);
    if (open.length !== 1) throw new Error(`expected one open request, found ${open.length}`);
    return open[0];
  }

  close(): Promise<void> {
    this.isClosed = true;
    return Promise.resolve();
  }
}

export interface FetchBench {
  clock: FakeClock;
  fetcher: Fetcher;
  source: ScriptedSource;
  blob: RemoteBlob;
  content: Uint8Array;
}

/** A fetcher, and one blob of so many granules (and a bit) behind a memory cache. */
export async function fetchBench(
  t: TestContext,
  granules: number,
  options: FetcherOptions = {},
): Promise<FetchBench> {
  const clock = new FakeClock();
  const content = patternBytes(granules * GRANULE_BYTES + 100);
  const cache = openMemoryCache({ quotaBytes: 1024 * 1024 * 1024, clock });
  const fetcher = createFetcher({ clock, random: () => 0.5, ...options });
  const source = new ScriptedSource(content);
  const blob = fetcher.remoteBlob(await cache.blob(digestOf('remote'), content.length), source);
  blob.readAhead = 'off';
  t.after(async () => {
    await blob.close();
    fetcher.close();
    await cache.close();
  });
  return { clock, fetcher, source, blob, content };
}

/** How a promise stands, without waiting for it. */
export async function stateOf(promise: Promise<unknown>): Promise<'pending' | 'done' | 'failed'> {
  const settled = promise.then(
    () => 'done' as const,
    () => 'failed' as const,
  );
  await settle();
  return Promise.race([settled, Promise.resolve('pending' as const)]);
}
