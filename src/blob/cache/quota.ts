import type { Clock } from '../../base/clock.ts';
import { cacheLimits, GRANULE_BYTES } from '../../base/limits.ts';
import type { CacheEntry, EvictableExtent } from './cache-entry.ts';

/** Eviction begins this fraction of the quota (at most the bytes below) before it is reached. */
const SLACK_FRACTION = 1 / 16;
const SLACK_BYTES_MAX = 256 * 1024 * 1024;

/**
 * Keeps what is on disk within a quota by forgetting the least recently used extents.
 *
 *   live <= used: what was forgotten keeps its room until it is given back.
 */
export class Quota {
  readonly quotaBytes: number;
  readonly #entries: () => Iterable<CacheEntry>;
  readonly #onForgotten: (entry: CacheEntry) => void;
  readonly #clock: Clock;
  readonly #slackGranules: number;
  readonly #quotaGranules: number;
  #usedGranules = 0;
  #liveGranules = 0;
  #evictedGranules = 0;
  #restsUntilMs = 0;

  constructor(
    quotaBytes: number,
    clock: Clock,
    entries: () => Iterable<CacheEntry>,
    onForgotten: (entry: CacheEntry) => void,
  ) {
    this.quotaBytes = quotaBytes;
    this.#clock = clock;
    this.#entries = entries;
    this.#onForgotten = onForgotten;
    this.#quotaGranules = Math.floor(quotaBytes / GRANULE_BYTES);
    const slackBytes = Math.min(quotaBytes * SLACK_FRACTION, SLACK_BYTES_MAX);
    this.#slackGranules = Math.ceil(slackBytes / GRANULE_BYTES);
  }

  get usedBytes(): number {
    return this.#usedGranules * GRANULE_BYTES;
  }

  get evictedBytes(): number {
    return this.#evictedGranules * GRANULE_BYTES;
  }

  /** Whether so many more granules fit; evicts when room becomes scarce. */
  admits(granules: number): boolean {
    const wanted = this.#liveGranules + granules - (this.#quotaGranules - this.#slackGranules);
    if (wanted > 0 && this.#clock.nowMs() >= this.#restsUntilMs) {
      const evicted = this.#evict(wanted + this.#slackGranules);
      if (evicted === 0) this.#restsUntilMs = this.#clock.nowMs() + cacheLimits.evictionRestMs;
    }
    return this.#usedGranules + granules <= this.#quotaGranules;
  }

  addUsed(granules: number): void {
    this.#usedGranules += granules;
  }

  addLive(granules: number): void {
    this.#liveGranules += granules;
  }

  #evict(granulesWanted: number): number {
    const victims: EvictableExtent[] = [];
    for (const entry of this.#entries()) victims.push(...entry.evictableExtents());
    victims.sort((a, b) => a.lastUsedMs - b.lastUsedMs);
    let evicted = 0;
    for (const { entry, first, end } of victims) {
      if (evicted >= granulesWanted) break;
      evicted += entry.forgetOnDisk(first, end);
      this.#onForgotten(entry);
    }
    this.#liveGranules -= evicted;
    this.#evictedGranules += evicted;
    return evicted;
  }
}
