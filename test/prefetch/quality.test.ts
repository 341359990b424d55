import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import type { TouchedBytes } from '../../src/blob/blob.ts';
import { boundRatio, coldStartBoundMs, gapClosure } from '../../src/prefetch/bound.ts';
import { LatencyHistogram } from '../../src/prefetch/histogram.ts';
import { PrefetchMetrics } from '../../src/prefetch/metrics.ts';
import { formatQuality, QualityMeter, touchStack } from '../../src/prefetch/quality.ts';
import { noReplayCounters } from '../../src/prefetch/replay.ts';
import type { TracePlan } from '../../src/trace/trace.ts';

// Goal: coverage, accuracy, timeliness, percentiles and the bound mean what their definitions say.
// Method: small cases computed by hand, and a sorted list as the histogram's model.

const nothing: TouchedBytes = { cached: 0, prefetched: 0, late: 0, demand: 0 };

function scriptedMeter(touches: Partial<TouchedBytes>[]): QualityMeter {
  const queue = [...touches];
  return new QualityMeter(() => ({ ...nothing, ...queue.shift() }));
}

test('the ratios of a run computed by hand', () => {
  const meter = scriptedMeter([
    { prefetched: 6000 },
    { late: 2000, prefetched: 500 },
    { demand: 1000, late: 500 },
    { cached: 10_000 },
    {},
  ]);
  meter.onFetch('prefetch', 12_000, 12_000);
  meter.onFetch('demand', 1000, 1000);
  meter.onAccess(0, 4096, true);
  assert.equal(meter.onMiss(0, 4096), 'late');
  assert.equal(meter.onMiss(0, 4096), 'demand');
  meter.onAccess(0, 4096, false);
  meter.onAccess(0, 4096, true);
  assert.equal(meter.onMiss(0, 4096), 'repeat');
  meter.onMissDone(20, null, 'demand');
  meter.onMissDone(10, new Error('EIO'), 'late');
  const quality = meter.snapshot();
  assert.deepEqual(quality.touchedBytes, {
    cached: 10_000,
    prefetched: 6500,
    late: 2500,
    demand: 1000,
  });
  assert.equal(quality.coverage, 9000 / 20_000);
  assert.equal(quality.accuracy, 9000 / 12_000);
  assert.equal(quality.timeliness, 6500 / 9000);
  assert.ok(Math.abs((quality.overFetch ?? 0) - 0.3) < 1e-9);
  assert.equal(quality.hits, 2);
  assert.equal(quality.misses, 3);
  assert.equal(quality.missErrors, 1);
  assert.equal(quality.missLatencyMs.mean, 15);
  assert.equal(quality.missLatencyMs.max, 20);
  assert.match(formatQuality(quality), /^coverage {5}45\.0 %$/m);
});

test('ratios of nothing are null, and print as such', () => {
  const quality = scriptedMeter([]).snapshot();
  for (const ratio of ['coverage', 'accuracy', 'timeliness', 'overFetch'] as const) {
    assert.equal(quality[ratio], null);
  }
  assert.match(formatQuality(quality), /^accuracy {5}n\/a$/m);
});

test('a request that fails counts as failed, and only what arrived as bytes', () => {
  const meter = scriptedMeter([]);
  meter.onFetch('demand', 500, 500);
  meter.onFetch('demand', 1000, 300);
  assert.deepEqual(meter.snapshot().lanes.demand, { requests: 2, failed: 1, bytes: 800 });
});

test('a stack is touched through what serves each piece', () => {
  const touched: string[] = [];
  const touch = touchStack(
    {
      locate: (lba, sectors) => [
        { lba, sectors: 1, layer: 0, lsmtOffset: 0 },
        { lba: lba + 1, sectors: sectors - 1, layer: 1, lsmtOffset: 512 },
      ],
      blobRangeOf: ({ layer, lsmtOffset, sectors }) => ({
        offset: layer * 10_000 + lsmtOffset,
        length: sectors * 100,
      }),
    },
    (layer) => ({
      touch: (offset, length) => {
        touched.push(`${layer}: ${offset}+${length}`);
        return { ...nothing, demand: length, cached: 1 };
      },
    }),
  );
  assert.deepEqual(touch(4096, 4096), { ...nothing, demand: 800, cached: 2 });
  assert.deepEqual(touched, ['0: 0+100', '1: 10512+700']);
});

test('percentiles are those of the sorted latencies, at most 9.1 % larger', () => {
  fc.assert(
    fc.property(
      fc.array(fc.double({ min: 0.001, max: 60_000, noNaN: true }), { minLength: 1 }),
      (latencies) => {
        const histogram = new LatencyHistogram();
        for (const latency of latencies) histogram.add(latency);
        const sorted = [...latencies].sort((a, b) => a - b);
        for (const quantile of [0.5, 0.95, 0.99, 1]) {
          const exact = sorted[Math.max(1, Math.ceil(quantile * sorted.length)) - 1];
          const found = histogram.percentileMs(quantile);
          assert.ok(found >= exact * 0.999_999 && found <= exact * 1.091, `${found} of ${exact}`);
        }
      },
    ),
  );
  assert.equal(new LatencyHistogram().percentileMs(0.5), 0);
});

test('metrics carry every device under its name, and forget it', async () => {
  const metrics = new PrefetchMetrics();
  const meter = scriptedMeter([{ prefetched: 100, late: 50 }]);
  const counters = {
    ...noReplayCounters(),
    ...{ presentBytes: 1, overBudgetBytes: 20, foreignBytes: 300, failedBytes: 7 },
  };
  metrics.add('disk0', meter, {
    replay: { counters, staleRatio: 0.125 },
    untouchedBytes: () => 150,
    traceAgeSeconds: () => 60,
    lastDemandMissSeconds: () => 1.5,
  });
  metrics.add('disk1', scriptedMeter([]));
  meter.onFetch('prefetch', 4000, 300);
  meter.onAccess(0, 512, true);
  metrics.observeDemandRead('disk0', 'late', 3);
  metrics.setReady('disk0', 0.25);
  const text = await metrics.registry.metrics();
  for (const line of [
    'replaybd_prefetch_bytes_total{outcome="used"} 100',
    'replaybd_prefetch_bytes_total{outcome="late"} 50',
    'replaybd_prefetch_bytes_total{outcome="unused"} 0',
    'replaybd_prefetch_bytes_total{outcome="skipped"} 321',
    'replaybd_prefetch_bytes_total{outcome="failed"} 7',
    'replaybd_prefetch_untouched_bytes{device="disk0"} 150',
    'replaybd_trace_stale_ratio{device="disk0"} 0.125',
    'replaybd_trace_age_seconds{device="disk0"} 60',
    'replaybd_last_demand_miss_seconds{device="disk0"} 1.5',
    'replaybd_touched_bytes_total{device="disk0",source="demand"} 0',
    'replaybd_coverage_ratio{device="disk0"} 1',
    'replaybd_accuracy_ratio{device="disk0"} 0.5',
    'replaybd_requests_total{device="disk0",lane="prefetch"} 1',
    'replaybd_fetched_bytes_total{device="disk0",lane="prefetch"} 300',
    'replaybd_demand_read_seconds_bucket{le="0.005",device="disk0",source="late"} 1',
    'replaybd_device_ready_seconds{device="disk0"} 0.25',
  ]) {
    assert.ok(text.includes(`${line}\n`), line);
  }
  assert.equal(await metrics.registry.metrics(), text, 'reading does not add up');
  assert.doesNotMatch(text, /(?:age|stale|last)_[a-z_]+\{device="disk1"\}/, 'what is not known');
  metrics.remove('disk0');
  metrics.remove('disk0');
  const left = await metrics.registry.metrics();
  assert.doesNotMatch(left, /disk0/);
  for (const [outcome, bytes] of Object.entries({ used: 100, late: 50, unused: 150, failed: 7 })) {
    assert.ok(left.includes(`replaybd_prefetch_bytes_total{outcome="${outcome}"} ${bytes}\n`));
  }
});

test('the bound is the latest arrival over all prefixes of a warm run', () => {
  const plan: TracePlan = {
    count: 3,
    blob: Uint16Array.of(0, 0, 0),
    offset: Float64Array.of(0, 4096, 8192),
    length: Float64Array.of(1_000_000, 1_000_000, 4_000_000),
    dueUs: Float64Array.of(0, 900_000, 10_000_000),
  };
  const link = { setupMs: 50, firstByteMs: 20, bytesPerSecond: 1_000_000 };
  // Arrivals: 1070, 2070, 6070 ms; due: 0, 900, 10000: late by 1070, 1170 and not at all.
  assert.equal(coldStartBoundMs(12_000, plan, link), 13_170);
  assert.equal(coldStartBoundMs(12_000, { ...plan, count: 0 }, link), 12_000);
  const times = { lazyMs: 30_000, replayMs: 15_000, warmMs: 10_000, boundMs: 12_000 };
  assert.equal(gapClosure(times), 0.75);
  assert.equal(boundRatio(times), 1.25);
});
