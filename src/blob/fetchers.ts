import { fetchLimits } from '../base/limits.ts';
import type { RangeSource } from './blob.ts';
import type { CachedBlob } from './cache/cached-blob.ts';
import type { Flow } from './fetch/fair-share.ts';
import { addFetchStats, newFetchStats, type FetchStats } from './fetch/fetch-stats.ts';
import type { RemoteBlob } from './fetch/remote-blob.ts';
import { createFetcher, type Fetcher, type FetcherOptions } from './fetcher.ts';

/**
 * A fetcher for each origin that blobs come from, so that requests to one that hangs fill no lane but
 * its own, and each link is measured by itself. Those without an open blob are kept, with what
 * they learned of their link, as long as there are few.
 */
export class Fetchers {
  readonly #options: FetcherOptions;
  /** Least recently asked for first. */
  readonly #fetchers = new Map<string, Fetcher>();
  readonly #owners = new WeakMap<RemoteBlob, Fetcher>();
  /** What fetchers did that are gone. */
  #past = newFetchStats();

  constructor(options: FetcherOptions = {}) {
    this.#options = options;
  }

  /**
   * The process's counters: sums over all origins, but for the round trip, which is the least, and the
   * rate and window, which are sums over those that are still known.
   */
  get stats(): FetchStats {
    return [...this.#fetchers.values()].reduce(
      (sum, fetcher) => addFetchStats(sum, fetcher.stats),
      this.#past,
    );
  }

  /** See Fetcher.remoteBlob. Blobs that share a flow have one origin. */
  remoteBlob(origin: string, cached: CachedBlob, source: RangeSource, flow?: Flow): RemoteBlob {
    const fetcher = this.#fetcherOf(origin);
    const blob = fetcher.remoteBlob(cached, source, flow);
    this.#owners.set(blob, fetcher);
    return blob;
  }

  /** The fetcher that a blob came from; undefined for a blob from elsewhere. */
  of(blob: RemoteBlob): Fetcher | undefined {
    return this.#owners.get(blob);
  }

  close(): void {
    for (const fetcher of this.#fetchers.values()) fetcher.close();
  }

  #fetcherOf(origin: string): Fetcher {
    const fetcher = this.#fetchers.get(origin) ?? createFetcher(this.#options);
    this.#fetchers.delete(origin);
    this.#fetchers.set(origin, fetcher);
    this.#dropIdle(origin);
    return fetcher;
  }

  #dropIdle(wanted: string): void {
    for (const [origin, fetcher] of this.#fetchers) {
      if (this.#fetchers.size <= fetchLimits.originsKept) return;
      if (origin === wanted || !fetcher.isIdle) continue;
      const { stats } = fetcher;
      const link = { bytesPerSecond: 0, roundTripMs: 0, windowBytes: 0 };
      this.#past = addFetchStats(this.#past, { ...stats, ...link });
      fetcher.close();
      this.#fetchers.delete(origin);
    }
  }
}
