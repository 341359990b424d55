const BUCKETS_PER_DOUBLING = 8;
const BUCKETS = 256;

export type LatencyBucket = readonly [upToMs: number, count: number];

/**
 * Latencies in logarithmic buckets from 1 us to about 70 minutes; a percentile is at most 9 % too
 * large. Adding allocates nothing.
 */
export class LatencyHistogram {
  readonly #counts = new Float64Array(BUCKETS);
  #count = 0;
  #sumMs = 0;
  #maxMs = 0;

  get count(): number {
    return this.#count;
  }

  get sumMs(): number {
    return this.#sumMs;
  }

  get maxMs(): number {
    return this.#maxMs;
  }

  add(latencyMs: number): void {
    const us = Math.max(latencyMs * 1000, 1);
    const bucket = Math.min(Math.ceil(Math.log2(us) * BUCKETS_PER_DOUBLING), BUCKETS - 1);
    this.#counts[bucket] += 1;
    this.#count += 1;
    this.#sumMs += latencyMs;
    this.#maxMs = Math.max(this.#maxMs, latencyMs);
  }

  /** What is in the buckets, ascending: a bucket's upper end in ms and its count; empty ones left out. */
  buckets(): LatencyBucket[] {
    const found: LatencyBucket[] = [];
    for (const [bucket, count] of this.#counts.entries()) {
      if (count > 0) found.push([2 ** (bucket / BUCKETS_PER_DOUBLING) / 1000, count]);
    }
    return found;
  }

  /** The latency in ms that a part `quantile` (0 to 1) does not exceed; 0 when empty. */
  percentileMs(quantile: number): number {
    const rank = Math.max(1, Math.ceil(quantile * this.#count));
    let seen = 0;
    for (let bucket = 0; bucket < BUCKETS; bucket += 1) {
      seen += this.#counts[bucket];
      if (this.#count > 0 && seen >= rank) {
        return Math.min(2 ** (bucket / BUCKETS_PER_DOUBLING) / 1000, this.#maxMs);
      }
    }
    return 0;
  }
}
