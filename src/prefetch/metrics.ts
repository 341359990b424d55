import { Counter, Gauge, Histogram, Registry } from 'prom-client';
import type { Lane } from '../blob/blob.ts';
import {
  MISS_SOURCES,
  type MissSource,
  type QualityMeter,
  type QualitySnapshot,
} from './quality.ts';

const LANES: readonly Lane[] = ['demand', 'prefetch'];
const OUTCOMES = ['prefetched', 'late'] as const;
const TOUCH_SOURCES = ['cached', 'prefetched', 'late', 'demand'] as const;
const LATENCY_BUCKETS = [
  0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30,
];

/** The Prometheus metrics of prefetch, of every device that was added. */
export class PrefetchMetrics {
  readonly registry: Registry;
  readonly #meters = new Map<string, QualityMeter>();
  readonly #demandRead: Histogram<'device' | 'source'>;
  readonly #ready: Gauge<'device'>;

  constructor(registry: Registry = new Registry()) {
    this.registry = registry;
    this.#demandRead = new Histogram({
      name: 'replaybd_demand_read_seconds',
      help: 'Time guests waited for reads that were not local, by what they waited for',
      labelNames: ['device', 'source'],
      buckets: LATENCY_BUCKETS,
      registers: [registry],
    });
    this.#ready = new Gauge({
      name: 'replaybd_device_ready_seconds',
      help: 'Time from the request to attach a device until it could serve reads',
      labelNames: ['device'],
      registers: [registry],
    });
    this.#registerRatios();
    this.#registerBytes();
    this.#registerLanes();
  }

  /** From now on `device` appears in the metrics. */
  add(device: string, meter: QualityMeter): void {
    this.#meters.set(device, meter);
  }

  /** Forgets a device and all its series. */
  remove(device: string): void {
    this.#meters.delete(device);
    for (const source of MISS_SOURCES) this.#demandRead.remove({ device, source });
    this.#ready.remove({ device });
  }

  observeDemandRead(device: string, source: MissSource, latencyMs: number): void {
    this.#demandRead.observe({ device, source }, latencyMs / 1000);
  }

  setReady(device: string, seconds: number): void {
    this.#ready.set({ device }, seconds);
  }

  #registerRatios(): void {
    const ratios: [string, string, (quality: QualitySnapshot) => number | null][] = [
      ['coverage', 'First-touched bytes that prefetch had / all', (quality) => quality.coverage],
      ['accuracy', 'Prefetched bytes that were touched / all', (quality) => quality.accuracy],
      ['timeliness', 'Covered bytes complete in time / all', (quality) => quality.timeliness],
    ];
    for (const [name, help, value] of ratios) {
      this.#gauge(`replaybd_${name}_ratio`, help, [], (quality, set) => {
        const ratio = value(quality);
        if (ratio !== null) set(ratio);
      });
    }
  }

  #registerBytes(): void {
    const outcomes =
      'Prefetched bytes that were touched: complete before (prefetched) or after (late)';
    this.#counter('replaybd_prefetch_bytes_total', outcomes, ['outcome'], (quality, set) => {
      for (const outcome of OUTCOMES) set(quality.touchedBytes[outcome], { outcome });
    });
    const sources = 'First-touched compressed bytes, by where they were found';
    this.#counter('replaybd_touched_bytes_total', sources, ['source'], (quality, set) => {
      for (const source of TOUCH_SOURCES) set(quality.touchedBytes[source], { source });
    });
  }

  #registerLanes(): void {
    const requests = 'Requests sent to the origin';
    this.#counter('replaybd_requests_total', requests, ['lane'], (quality, set) => {
      for (const lane of LANES) set(quality.lanes[lane].requests, { lane });
    });
    const fetched = 'Bytes received from the origin';
    this.#counter('replaybd_fetched_bytes_total', fetched, ['lane'], (quality, set) => {
      for (const lane of LANES) set(quality.lanes[lane].bytes, { lane });
    });
  }

  #gauge(name: string, help: string, labels: string[], report: Report): void {
    const each = this.#eachDevice(report);
    new Gauge({
      name,
      help,
      labelNames: ['device', ...labels],
      registers: [this.registry],
      collect() {
        this.reset();
        each((values, value) => this.set(values, value));
      },
    });
  }

  #counter(name: string, help: string, labels: string[], report: Report): void {
    const each = this.#eachDevice(report);
    new Counter({
      name,
      help,
      labelNames: ['device', ...labels],
      registers: [this.registry],
      collect() {
        this.reset();
        each((values, value) => this.inc(values, value));
      },
    });
  }

  #eachDevice(report: Report): (put: (labels: Labels, value: number) => void) => void {
    return (put) => {
      for (const [device, meter] of this.#meters) {
        report(meter.snapshot(), (value, labels = {}) => put({ device, ...labels }, value));
      }
    };
  }
}

type Labels = Record<string, string>;
type Report = (quality: QualitySnapshot, set: (value: number, labels?: Labels) => void) => void;
