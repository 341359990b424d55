import type { Blob, Lane, TouchedBytes } from '../blob/blob.ts';
import type { ByteRange } from '../base/range.ts';
import { SECTOR_BYTES } from '../base/limits.ts';
import type { LocatedPiece, PlanResolver } from '../trace/build-plan.ts';
import { LatencyHistogram, type LatencyBucket } from './histogram.ts';

/**
 * What a miss waited for: 'demand' a fetch of its own, 'late' only prefetches in flight, 'repeat'
 * granules that were touched before (they were evicted, or are being fetched by another read).
 */
export type MissSource = 'demand' | 'late' | 'repeat';
export const MISS_SOURCES: readonly MissSource[] = ['demand', 'late', 'repeat'];

/** Accounts a device range with its blobs: the sum of `Blob.touch` over what serves it. */
export type Toucher = (offset: number, length: number) => TouchedBytes;

export interface LaneCounts {
  requests: number;
  failed: number;
  /** Bytes received. */
  bytes: number;
}

/** How well prefetch did, as numbers for programs; all of it is what `--json` prints. */
export interface QualitySnapshot {
  /** First-touched compressed bytes by where they were found. */
  readonly touchedBytes: TouchedBytes;
  /** (prefetched + late) / all first-touched; null before anything was touched. */
  readonly coverage: number | null;
  /** (prefetched + late) / bytes the prefetch lane received; null before it received any. */
  readonly accuracy: number | null;
  /** prefetched / (prefetched + late); null when neither. */
  readonly timeliness: number | null;
  /** Received by both lanes / (prefetched + late + demand) - 1, at least 0; null likewise. */
  readonly overFetch: number | null;
  readonly lanes: Readonly<Record<Lane, Readonly<LaneCounts>>>;
  readonly hits: number;
  readonly misses: number;
  readonly missErrors: number;
  /** Latency of misses in ms; hits cost microseconds and are not timed. */
  readonly missLatencyMs: { p50: number; p95: number; p99: number; max: number; mean: number };
}

/** Counts what a device's reads and its fetcher's lanes did. One a device. */
export class QualityMeter {
  readonly #touch: Toucher;
  readonly #onLatency: (source: MissSource, latencyMs: number) => void;
  readonly #touched: TouchedBytes = { cached: 0, prefetched: 0, late: 0, demand: 0 };
  readonly #lanes: Record<Lane, LaneCounts> = { demand: emptyLane(), prefetch: emptyLane() };
  readonly #latency = new LatencyHistogram();
  #hits = 0;
  #misses = 0;
  #missErrors = 0;

  /** `onLatency` is told of every miss, for a metrics library's own histogram. */
  constructor(
    touch: Toucher,
    onLatency: (source: MissSource, latencyMs: number) => void = () => undefined,
  ) {
    this.#touch = touch;
    this.#onLatency = onLatency;
  }

  /** An entry of the tap. Misses were accounted when they happened. */
  onAccess(offset: number, length: number, hit: boolean): void {
    if (!hit) return;
    this.#hits += 1;
    this.#account(offset, length);
  }

  /** A read that found something missing; to be called before anything is fetched for it. */
  onMiss(offset: number, length: number): MissSource {
    this.#misses += 1;
    const touched = this.#account(offset, length);
    if (touched.demand > 0) return 'demand';
    return touched.late > 0 ? 'late' : 'repeat';
  }

  onMissDone(latencyMs: number, error: unknown, source: MissSource = 'demand'): void {
    if (error !== null) this.#missErrors += 1;
    this.#latency.add(latencyMs);
    this.#onLatency(source, latencyMs);
  }

  /** A lane's request ended: of the bytes it asked for, so many arrived. */
  onFetch(lane: Lane, askedBytes: number, receivedBytes: number): void {
    const counts = this.#lanes[lane];
    counts.requests += 1;
    counts.bytes += receivedBytes;
    if (receivedBytes < askedBytes) counts.failed += 1;
  }

  /** All bytes that were touched for the first time so far. */
  get touchedBytes(): number {
    const { cached, prefetched, late, demand } = this.#touched;
    return cached + prefetched + late + demand;
  }

  /** Latencies of misses since the beginning: their differences tell of what happened between two looks. */
  latencyBuckets(): LatencyBucket[] {
    return this.#latency.buckets();
  }

  snapshot(): QualitySnapshot {
    const { cached, prefetched, late, demand } = this.#touched;
    const { demand: demandLane, prefetch: prefetchLane } = this.#lanes;
    const covered = prefetched + late;
    const fetched = covered + demand;
    const overFetch = ratio(demandLane.bytes + prefetchLane.bytes, fetched);
    const latency = this.#latency;
    return {
      touchedBytes: { cached, prefetched, late, demand },
      coverage: ratio(covered, cached + fetched),
      accuracy: ratio(covered, prefetchLane.bytes),
      timeliness: ratio(prefetched, covered),
      overFetch: overFetch === null ? null : Math.max(0, overFetch - 1),
      lanes: { demand: { ...demandLane }, prefetch: { ...prefetchLane } },
      hits: this.#hits,
      misses: this.#misses,
      missErrors: this.#missErrors,
      missLatencyMs: {
        p50: latency.percentileMs(0.5),
        p95: latency.percentileMs(0.95),
        p99: latency.percentileMs(0.99),
        max: latency.maxMs,
        mean: latency.count === 0 ? 0 : latency.sumMs / latency.count,
      },
    };
  }

  #account(offset: number, length: number): TouchedBytes {
    const touched = this.#touch(offset, length);
    this.#touched.cached += touched.cached;
    this.#touched.prefetched += touched.prefetched;
    this.#touched.late += touched.late;
    this.#touched.demand += touched.demand;
    return touched;
  }
}

/** The toucher of an opened stack. */
export function touchStack(
  resolver: PlanResolver,
  blobOf: (layer: number) => Pick<Blob, 'touch'>,
): Toucher {
  return (offset, length) => {
    const sum: TouchedBytes = { cached: 0, prefetched: 0, late: 0, demand: 0 };
    const pieces: readonly LocatedPiece[] = resolver.locate(
      offset / SECTOR_BYTES,
      length / SECTOR_BYTES,
    );
    for (const piece of pieces) {
      const range: ByteRange = resolver.blobRangeOf(piece);
      const touched = blobOf(piece.layer).touch(range.offset, range.length);
      sum.cached += touched.cached;
      sum.prefetched += touched.prefetched;
      sum.late += touched.late;
      sum.demand += touched.demand;
    }
    return sum;
  };
}

/** A snapshot as a few lines for people. */
export function formatQuality(quality: QualitySnapshot): string {
  const { touchedBytes: touched, lanes, missLatencyMs: latency } = quality;
  const row = (name: string, text: string): string => `${name.padEnd(13)}${text}\n`;
  const lane = (counts: LaneCounts): string =>
    `${counts.requests} requests, ${mib(counts.bytes)}, ${counts.failed} failed`;
  const ms = (value: number): string => `${value.toFixed(value < 10 ? 2 : 0)} ms`;
  return (
    row('coverage', percent(quality.coverage)) +
    row('accuracy', percent(quality.accuracy)) +
    row('timeliness', percent(quality.timeliness)) +
    row('over-fetch', percent(quality.overFetch)) +
    row(
      'touched',
      `prefetched ${mib(touched.prefetched)}, late ${mib(touched.late)}, ` +
        `demand ${mib(touched.demand)}, cached ${mib(touched.cached)}`,
    ) +
    row('demand lane', lane(lanes.demand)) +
    row('prefetch', lane(lanes.prefetch)) +
    row('reads', `${quality.hits} hits, ${quality.misses} misses, ${quality.missErrors} errors`) +
    row('miss latency', `p50 ${ms(latency.p50)}, p95 ${ms(latency.p95)}, p99 ${ms(latency.p99)}`)
  );
}

function emptyLane(): LaneCounts {
  return { requests: 0, failed: 0, bytes: 0 };
}

function ratio(part: number, whole: number): number | null {
  return whole === 0 ? null : part / whole;
}

function percent(value: number | null): string {
  return value === null ? 'n/a' : `${(value * 100).toFixed(1)} %`;
}

function mib(bytes: number): string {
  return `${(bytes / 2 ** 20).toFixed(2)} MiB`;
}
