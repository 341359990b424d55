import type { Touch } from '../../src/daemon/touch-feed.ts';
import type { DeviceSummary } from '../../src/daemon/served-device.ts';
import type { AttachmentReport } from '../../src/daemon/attachment.ts';
import type { FetchStats } from '../../src/blob/fetch/fetch-stats.ts';
import type { LatencyBucket } from '../../src/prefetch/histogram.ts';
import type { OpenedTrace } from './opened-trace.ts';
import { LiveScene } from './live-scene.ts';
import type { Scene } from './scene.ts';

/** What the control API tells of a device. */
export interface LiveStats extends Pick<AttachmentReport, 'quality' | 'replay' | 'trace'> {
  readonly fetcher: FetchStats;
  readonly missLatencyBuckets: readonly LatencyBucket[];
}

/** What happened to a device between two looks. */
export interface LiveSample {
  /** Of the reads; null when nothing was read. */
  readonly hitRate: number | null;
  readonly bytesPerSecond: number;
  /** Percentiles of misses in ms, null without any. */
  readonly p50: number | null;
  readonly p95: number | null;
  readonly p99: number | null;
  /** Of the process: ranges that wait, by lane, and bytes under way. */
  readonly demandQueued: number;
  readonly prefetchQueued: number;
  readonly inFlightBytes: number;
}

export interface LiveDevice {
  readonly summary: DeviceSummary;
  readonly stats: LiveStats | null;
  /** The newest last. */
  readonly samples: readonly LiveSample[];
}

/** Where it is known whether somebody answers. */
export type LiveState = 'connecting' | 'up' | 'down';

const SAMPLES_MAX = 300;

/** What is known of running devices. Told by a poller, looked at by a view. */
export class LiveModel {
  state: LiveState = 'connecting';
  /** Why nobody answers. */
  why = '';
  devices: readonly LiveDevice[] = [];
  #looks = new Map<string, { stats: LiveStats; atMs: number }>();
  #scene = new LiveScene(null);
  #lost = 0;
  #watched: string | null = null;
  #expected: OpenedTrace | null = null;

  /** Nobody answers: what was known stays to be looked at. */
  down(why: string): void {
    this.state = 'down';
    this.why = why;
    this.#looks.clear();
  }

  /** The devices there are now. */
  list(summaries: readonly DeviceSummary[]): void {
    this.state = 'up';
    const known = new Map(this.devices.map((device) => [device.summary.device, device]));
    this.devices = summaries.map((summary) => {
      const before = known.get(summary.device);
      return { stats: null, samples: [], ...before, summary };
    });
  }

  /** A device's counters at a time. */
  told(id: string, stats: LiveStats, atMs: number): void {
    const before = this.#looks.get(id);
    this.#looks.set(id, { stats, atMs });
    this.devices = this.devices.map((device) => {
      if (device.summary.device !== id) return device;
      // A device that was attached anew counts from 0 again.
      const isNew = before === undefined || reads(stats) < reads(before.stats);
      const elapsedMs = isNew ? 0 : atMs - before.atMs;
      if (isNew || elapsedMs <= 0) return { ...device, stats };
      const sample = sampleOf(before.stats, stats, elapsedMs);
      return { ...device, stats, samples: [...device.samples, sample].slice(-SAMPLES_MAX) };
    });
  }

  /** A device whose replay is watched from now on; null for none. */
  watch(id: string | null): void {
    this.#watched = id;
    this.#expected = null;
    this.forgetTouches();
  }

  get watched(): string | null {
    return this.#watched;
  }

  /** The trace that the watched device replays: what will be read, if all goes as it did. */
  expect(trace: OpenedTrace): void {
    this.#expected = trace;
  }

  get expected(): OpenedTrace | null {
    return this.#expected;
  }

  touched(touches: readonly Touch[], lost: number): void {
    this.#scene.add(touches);
    this.#lost += lost;
  }

  /** What was told of touches is void: they are told again from the first. */
  forgetTouches(): void {
    this.#scene = new LiveScene(this.#expected);
    this.#lost = 0;
  }

  get touches(): { count: number; lost: number } {
    return { count: this.#scene.touches, lost: this.#lost };
  }

  /** What the watched device has read, over what it is expected to read. */
  scene(): Scene {
    return this.#scene.scene();
  }
}

function sampleOf(before: LiveStats, now: LiveStats, elapsedMs: number): LiveSample {
  const hits = now.quality.hits - before.quality.hits;
  const all = reads(now) - reads(before);
  const { demand, prefetch } = now.fetcher;
  const bytes = received(now) - received(before);
  const quantiles = percentiles(before.missLatencyBuckets, now.missLatencyBuckets);
  return {
    hitRate: all > 0 ? hits / all : null,
    bytesPerSecond: Math.max(0, (bytes / elapsedMs) * 1000),
    ...quantiles,
    demandQueued: demand.queued + demand.active,
    prefetchQueued: prefetch.queued + prefetch.active,
    inFlightBytes: demand.activeBytes + prefetch.activeBytes,
  };
}

/** Of what came between two looks at a histogram. */
export function percentiles(
  before: readonly LatencyBucket[],
  now: readonly LatencyBucket[],
): Pick<LiveSample, 'p50' | 'p95' | 'p99'> {
  const former = new Map(before);
  const added = now.map(([upToMs, count]) => [upToMs, count - (former.get(upToMs) ?? 0)] as const);
  const total = added.reduce((sum, [, count]) => sum + Math.max(0, count), 0);
  const at = (quantile: number): number | null => {
    let rank = Math.max(1, Math.ceil(quantile * total));
    for (const [upToMs, count] of added) {
      rank -= Math.max(0, count);
      if (rank <= 0) return upToMs;
    }
    return null;
  };
  return { p50: at(0.5), p95: at(0.95), p99: at(0.99) };
}

function reads({ quality }: LiveStats): number {
  return quality.hits + quality.misses;
}

function received({ quality }: LiveStats): number {
  return quality.lanes.demand.bytes + quality.lanes.prefetch.bytes;
}
