import { systemClock, type Clock } from '../base/clock.ts';
import { silentLogger, type Logger } from '../base/log.ts';
import { openBlobCache, openMemoryCache, type BlobCache } from '../blob/cache/blob-cache.ts';
import type { FetchEvent } from '../blob/fetch/fetch-stats.ts';
import type { Flow } from '../blob/fetch/fair-share.ts';
import type { RemoteBlob } from '../blob/fetch/remote-blob.ts';
import { Fetchers } from '../blob/fetchers.ts';
import type { LowerLocation } from '../image/config.ts';
import { PrefetchMetrics } from '../prefetch/metrics.ts';
import {
  createRegistryClient,
  type RegistryClient,
  type RegistryClientOptions,
} from '../registry/client.ts';
import { parseRepositoryAddress } from '../registry/reference.ts';
import { DEFAULT_RENEWAL, type RenewalPolicy } from '../trace/store-renewal.ts';
import { TraceStore } from '../trace/store.ts';
import { returnFreedMemory, shareOneHeap } from '../../native/free-memory.ts';
import type { OtlpSpans } from './otlp.ts';
import { registerProcessMetrics } from './process-metrics.ts';
import { SharedStacks } from './shared-stacks.ts';
import { Ticker } from './ticker.ts';
import type { TraceFrom } from './trace-from.ts';
import { WriteMetrics } from './write-counts.ts';

export interface RuntimeOptions {
  /** Where blobs are kept; null keeps them in memory, for as long as a device is open. */
  cacheFolder: string | null;
  quotaBytes: number;
  traceFolder?: string;
  /** Where traces are looked for that nobody named; 'any' when absent. */
  traceFrom?: TraceFrom;
  /** When mode auto records a trace anew. */
  renewal?: Partial<RenewalPolicy>;
  /** A demand read that is not answered by then fails with EIO. */
  readDeadlineMs?: number;
  /** Requests under way at once, of each lane of each origin. */
  demandConcurrency?: number;
  prefetchConcurrency?: number;
  registry?: RegistryClientOptions;
  /** Where spans of attaching are sent: the URL of an OpenTelemetry collector's OTLP/HTTP. */
  otlpEndpoint?: string;
  clock?: Clock;
  log?: Logger;
}

/** A lower whose bytes are in a registry. */
export type RemoteLower = LowerLocation & { kind: 'remote' };

/** How often memory that is not needed is given back. */
const TRIM_MS = 5000;

type FetchListener = (event: FetchEvent) => void;

/** What all devices of a process share: the registry client, the cache, the fetchers, the traces. */
export class Runtime {
  readonly client: RegistryClient;
  readonly cache: BlobCache;
  readonly fetchers: Fetchers;
  readonly traces: TraceStore;
  readonly traceFrom: TraceFrom;
  readonly renewal: RenewalPolicy;
  /** Traces that some device of this process is recording anew: one is enough. */
  readonly renewing = new Set<string>();
  readonly stacks: SharedStacks = new SharedStacks();
  readonly metrics: PrefetchMetrics = new PrefetchMetrics();
  readonly writeMetrics: WriteMetrics = new WriteMetrics(this.metrics.registry);
  /** Null when nobody asked for spans. */
  readonly spans: OtlpSpans | null;
  readonly clock: Clock;
  readonly log: Logger;
  /** Has devices looked after. */
  readonly ticker: Ticker;
  readonly #fetchListeners = new Set<FetchListener>();
  readonly #trimmer = setInterval(() => this.#returnMemory(), TRIM_MS).unref();
  #closing: Promise<void> | null = null;

  /** `Runtime.open` calls this. */
  constructor(options: RuntimeOptions, cache: BlobCache, spans: OtlpSpans | null = null) {
    const { clock = systemClock, log = silentLogger } = options;
    const { readDeadlineMs, demandConcurrency, prefetchConcurrency } = options;
    this.clock = clock;
    this.log = log;
    this.ticker = new Ticker(() => clock.nowMs());
    this.cache = cache;
    this.spans = spans;
    this.client = createRegistryClient({ clock, ...options.registry });
    this.traces = new TraceStore(options.traceFolder);
    this.traceFrom = options.traceFrom ?? 'any';
    this.renewal = { ...DEFAULT_RENEWAL, ...options.renewal };
    this.fetchers = new Fetchers({
      clock,
      log,
      ...(readDeadlineMs === undefined ? {} : { readDeadlineMs }),
      ...(demandConcurrency === undefined ? {} : { demandConcurrency }),
      ...(prefetchConcurrency === undefined ? {} : { prefetchConcurrency }),
      onFetch: (event) => {
        for (const listener of this.#fetchListeners) listener(event);
      },
    });
    registerProcessMetrics(this.metrics.registry, { fetcher: this.fetchers, cache: this.cache });
  }

  /** Throws ERR_CACHE_LOCKED when another process uses the cache folder. */
  static async open(options: RuntimeOptions): Promise<Runtime> {
    const { cacheFolder, quotaBytes, clock = systemClock, log = silentLogger } = options;
    shareOneHeap();
    const { otlpEndpoint } = options;
    // Not even loaded unless it is asked for.
    const otlp = otlpEndpoint === undefined ? null : await import('./otlp.ts');
    const cache =
      cacheFolder === null
        ? openMemoryCache({ quotaBytes, clock, log })
        : await openBlobCache(cacheFolder, { quotaBytes, clock, log });
    const spans = otlp === null ? null : otlp.openOtlp(otlpEndpoint ?? '', log);
    return new Runtime(options, cache, spans);
  }

  /** Tells of every request that ended, until the returned function is called. */
  onFetch(listener: FetchListener): () => void {
    this.#fetchListeners.add(listener);
    return () => this.#fetchListeners.delete(listener);
  }

  /**
   * A lower that lives in a registry, behind the cache, as one of a device whose lowers share a flow.
   * The caller closes it. The signal ends asking for its size.
   */
  async openRemoteBlob(lower: RemoteLower, flow?: Flow, signal?: AbortSignal): Promise<RemoteBlob> {
    const repository = parseRepositoryAddress(lower.url.slice(0, lower.url.lastIndexOf('/')));
    const source = this.client.blobSource(repository, lower.digest, lower.size);
    try {
      const sizeBytes = lower.size ?? (await source.size(signal));
      const cached = await this.cache.blob(lower.digest, sizeBytes);
      return this.fetchers.remoteBlob(this.client.blobOrigin(repository), cached, source, flow);
    } catch (error) {
      await source.close();
      throw error;
    }
  }

  /** All devices must be closed before. */
  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  #returnMemory(): void {
    returnFreedMemory();
    this.cache.unloadPages();
  }

  async #close(): Promise<void> {
    clearInterval(this.#trimmer);
    this.fetchers.close();
    await Promise.all([this.client.close(), this.spans?.close()]);
    await this.cache.close();
  }
}
