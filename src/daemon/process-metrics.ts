import { Counter, Gauge, type Registry } from 'prom-client';
import type { BlobCacheStats } from '../blob/cache/blob-cache.ts';
import type { FetchStats } from '../blob/fetch/fetch-stats.ts';

const LANES = ['demand', 'prefetch'] as const;

/** What the process's devices share, as its fetcher and its cache tell it. */
export interface ProcessStats {
  fetcher: { readonly stats: FetchStats };
  cache: { readonly stats: BlobCacheStats };
}

/** Registers the metrics that are the process's and not one device's: they carry no device. */
export function registerProcessMetrics(registry: Registry, { fetcher, cache }: ProcessStats): void {
  new Gauge({
    name: 'replaybd_inflight_bytes',
    help: 'Bytes asked of the origin that have not arrived',
    labelNames: ['lane'],
    registers: [registry],
    collect() {
      const { stats } = fetcher;
      for (const lane of LANES) this.set({ lane }, stats[lane].activeBytes);
    },
  });
  const gauges: [string, string, (stats: BlobCacheStats) => number][] = [
    ['used', 'Room that granules take on disk', (stats) => stats.usedBytes],
    ['quota', 'Most room that granules may take', (stats) => stats.quotaBytes],
    ['spilled', 'Kept in memory because the disk refused it', (stats) => stats.spilledBytes],
  ];
  for (const [name, help, bytes] of gauges) {
    new Gauge({
      name: `replaybd_cache_${name}_bytes`,
      help,
      registers: [registry],
      collect() {
        this.set(bytes(cache.stats));
      },
    });
  }
  new Counter({
    name: 'replaybd_cache_evicted_bytes_total',
    help: 'Forgotten to stay within the quota',
    registers: [registry],
    collect() {
      this.reset();
      this.inc(cache.stats.evictedBytes);
    },
  });
}
