import { Counter, Gauge, Histogram, Registry } from 'prom-client';
import type { Lane } from '../blob/blob.ts';
import {
  MISS_SOURCES,
  type MissSource,
  type QualityMeter,
  type QualitySnapshot,
} from './quality.ts';
import { noReplayCounters, type Replay } from './replay.ts';

const LANES: readonly Lane[] = ['demand', 'prefetch'];
const OUTCOMES = ['used', 'late', 'unused', 'skipped', 'failed'] as const;
const TOUCH_SOURCES = ['cached', 'prefetched', 'late', 'demand'] as const;
const LATENCY_BUCKETS = [
  0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30,
];

/** What became of bytes that a plan asked for, or of bytes that were fetched ahead of need. */
type Outcome = (typeof OUTCOMES)[number];
type OutcomeBytes = Record<Outcome, number>;

/** What the metrics ask of a device beside its quality. */
export interface DeviceFacts {
  /** Null when nothing is replayed. */
  readonly replay: Pick<Replay, 'counters' | 'staleRatio'> | null;
  /** Bytes fetched ahead of need that no read has touched so far. */
  untouchedBytes(): number;
  /** Since the trace that is replayed was recorded; null without one that says. */
  traceAgeSeconds(): number | null;
  /** From attaching until the last read was answered that prefetch had nothing for; null without. */
  lastDemandMissSeconds(): number | null;
}

interface Device {
  readonly quality: QualityMeter;
  readonly facts: DeviceFacts;
}

const NO_FACTS: DeviceFacts = {
  replay: null,
  untouchedBytes: () => 0,
  traceAgeSeconds: () => null,
  lastDemandMissSeconds: () => null,
};

/** The Prometheus metrics of prefetch, of every device that was added. */
export class PrefetchMetrics {
  readonly registry: Registry;
  readonly #devices = new Map<string, Device>();
  /** Of devices that are gone. */
  readonly #past: OutcomeBytes = noOutcomes();
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
    this.#registerOutcomes();
    this.#registerBytes();
    this.#registerLanes();
    this.#registerFacts();
  }

  /** From now on `device` appears in the metrics. */
  add(device: string, quality: QualityMeter, facts: DeviceFacts = NO_FACTS): void {
    this.#devices.set(device, { quality, facts });
  }

  /** Forgets a device and all its series. What it fetched and did not touch is unused for good. */
  remove(device: string): void {
    const present = this.#devices.get(device);
    if (present !== undefined) {
      addOutcomes(this.#past, outcomesOf(present));
      this.#past.unused += present.facts.untouchedBytes();
    }
    this.#devices.delete(device);
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

  /** The process's: what a device's bytes came to counts on when it is gone. */
  #registerOutcomes(): void {
    const sum = (): OutcomeBytes => {
      const bytes = { ...this.#past };
      for (const device of this.#devices.values()) addOutcomes(bytes, outcomesOf(device));
      return bytes;
    };
    new Counter({
      name: 'replaybd_prefetch_bytes_total',
      help: 'Bytes of prefetch by what became of them; unused ones count when a device is detached',
      labelNames: ['outcome'],
      registers: [this.registry],
      collect() {
        this.reset();
        const bytes = sum();
        for (const outcome of OUTCOMES) this.inc({ outcome }, bytes[outcome]);
      },
    });
  }

  #registerFacts(): void {
    const gauges: [string, string, (facts: DeviceFacts) => number | null][] = [
      [
        'replaybd_prefetch_untouched_bytes',
        'Prefetched bytes that no read has touched so far',
        (facts) => facts.untouchedBytes(),
      ],
      [
        'replaybd_trace_stale_ratio',
        "The share of the plan's bytes that are foreign to the image",
        ({ replay }) => replay?.staleRatio ?? null,
      ],
      [
        'replaybd_trace_age_seconds',
        'Time since the trace that is replayed was recorded',
        (facts) => facts.traceAgeSeconds(),
      ],
      [
        'replaybd_last_demand_miss_seconds',
        'Time from attaching until the last read that prefetch had nothing for was answered',
        (facts) => facts.lastDemandMissSeconds(),
      ],
    ];
    for (const [name, help, value] of gauges) {
      this.#gauge(name, help, [], (_quality, set, facts) => {
        const found = value(facts);
        if (found !== null) set(found);
      });
    }
  }

  #registerBytes(): void {
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
      for (const [device, { quality, facts }] of this.#devices) {
        const set = (value: number, labels: Labels = {}) => put({ device, ...labels }, value);
        report(quality.snapshot(), set, facts);
      }
    };
  }
}

type Labels = Record<string, string>;
type Report = (
  quality: QualitySnapshot,
  set: (value: number, labels?: Labels) => void,
  facts: DeviceFacts,
) => void;

function noOutcomes(): OutcomeBytes {
  return { used: 0, late: 0, unused: 0, skipped: 0, failed: 0 };
}

/** Of an open device; what it has not touched may yet be. */
function outcomesOf({ quality, facts }: Device): OutcomeBytes {
  const { prefetched, late } = quality.snapshot().touchedBytes;
  const counters = facts.replay?.counters ?? noReplayCounters();
  const { presentBytes, overBudgetBytes, foreignBytes, failedBytes } = counters;
  const skipped = presentBytes + overBudgetBytes + foreignBytes;
  return { used: prefetched, late, unused: 0, skipped, failed: failedBytes };
}

function addOutcomes(sum: OutcomeBytes, more: OutcomeBytes): void {
  for (const outcome of OUTCOMES) sum[outcome] += more[outcome];
}
