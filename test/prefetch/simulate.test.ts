import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import fc from 'fast-check';
import { simulateLimits } from '../../src/base/limits.ts';
import { ColdStart } from '../../src/prefetch/simulate/cold-start.ts';
import { packedWins } from '../../src/prefetch/packed-rule.ts';
import { HOST_COST, HOST_COST_NONE } from '../../src/prefetch/simulate/host-cost.ts';
import { EventLine, EventQueue } from '../../src/prefetch/simulate/event-queue.ts';
import {
  prepareSimulation,
  simulate,
  simulateColdStart,
} from '../../src/prefetch/simulate/simulate.ts';
import {
  SIMULATION_POLICIES,
  type SimulatedLink,
  type SimulationOptions,
} from '../../src/prefetch/simulate/types.ts';
import { makeWorkload } from '../../src/prefetch/simulate/workload.ts';
import { decodeTrace } from '../../src/trace/decode.ts';
import type { Trace } from '../../src/trace/trace.ts';
import { random, recordsOf, syntheticLayers, traceOf } from '../trace/synthetic.ts';

// Goal: a simulated start takes what arithmetic says where arithmetic can say it, and never less than
// the bound. Method: small plans with closed forms; all orders of a few ranges; random plans for what
// must hold of any.

interface Planned {
  blob: number;
  offset: number;
  length: number;
  dueMs: number;
}

const BLOB_BYTES = 2 ** 26;
const KIB = 1024;

function traceWith(ranges: readonly Planned[], blobs = 8): Trace {
  const layers = syntheticLayers(blobs, BLOB_BYTES);
  return {
    ...traceOf(recordsOf([]), layers),
    plan: {
      count: ranges.length,
      blob: Uint16Array.from(ranges, (range) => range.blob),
      offset: Float64Array.from(ranges, (range) => range.offset),
      length: Float64Array.from(ranges, (range) => range.length),
      dueUs: Float64Array.from(ranges, (range) => range.dueMs * 1000),
    },
  };
}

const near = (actual: number, expected: number): void =>
  assert.ok(Math.abs(actual - expected) < 1e-6 * expected, `${actual}, expected ${expected}`);

test('events happen in order of time, and of when they were planned', () => {
  fc.assert(
    fc.property(fc.array(fc.tuple(fc.nat(2), fc.nat(3)), { maxLength: 200 }), (planned) => {
      const events = new EventQueue();
      const seen: number[] = [];
      const happen = (_: null, index: number): number => seen.push(index);
      const lines = [0, 1, 2].map(() => new EventLine<null>(events, happen));
      const lastMs = [0, 0, 0];
      const times = planned.map(([line, stepMs]) => (lastMs[line] += stepMs));
      for (const [index, [line]] of planned.entries()) lines[line].at(times[index], null, index);
      while (events.step());
      const expected = [...times.keys()].sort((a, b) => times[a] - times[b] || a - b);
      assert.deepEqual(seen, expected);
    }),
  );
});

test('without prefetch a start takes its warm time and every miss', () => {
  const link = { bytesPerSecond: 1e6, roundTripMs: 30 };
  // Each in a blob of its own, none larger than what a fresh connection sends at once.
  const ranges = [0, 1, 2, 3, 4].map((i) => ({
    ...{ blob: i, offset: 40_960 * i, length: i % 2 === 0 ? 4096 : 12_288 },
    dueMs: 100 * (i + 1),
  }));
  const options = { link, policy: 'none', readAhead: false, warmMs: 700 } as const;
  const result = simulateColdStart(traceWith(ranges), options);
  const bytes = ranges.reduce((sum, { length }) => sum + length, 0);
  near(result.predictedMs, 2 * 30 + 700 + 5 * 30 + bytes / 1000);
  assert.equal(result.stalls, 5);
  assert.equal(result.requests.demand, 5);
  assert.equal(result.coverage, 0);
  assert.equal(result.timeliness, null);
});

test('a fresh connection doubles what it has under way with each round trip', () => {
  const link = { bytesPerSecond: Infinity, roundTripMs: 100, segmentBytes: 1000 };
  for (const [length, trips] of [
    [8192, 1],
    [28_672, 2],
    [69_632, 3],
    [147_456, 4],
  ]) {
    const trace = traceWith([{ blob: 0, offset: 0, length, dueMs: 1000 }]);
    const { predictedMs } = simulateColdStart(trace, { link, policy: 'none', readAhead: false });
    near(predictedMs, 200 + 1000 + trips * 100);
  }
});

test('with all the bandwidth there is, a start takes its warm time and the first round trips', () => {
  const link = { bytesPerSecond: Infinity, roundTripMs: 40 };
  for (const dueMs of [5, 40, 500]) {
    const trace = traceWith([
      { blob: 0, offset: 0, length: 4096, dueMs },
      { blob: 1, offset: 0, length: 4096, dueMs: dueMs + 90 },
    ]);
    const { predictedMs, boundMs } = simulateColdStart(trace, { link });
    near(predictedMs, 80 + Math.max(40, dueMs) + 90);
    assert.ok(boundMs <= predictedMs);
  }
});

test('what fetches takes the processor from a guest that runs, and not from one that waits', () => {
  const link = { bytesPerSecond: Infinity, roundTripMs: 40 };
  const host = { attachMs: 7, requestMs: 2, mibMs: 16 };
  const takenMs = 2 + 16 / 256;
  const lazy = { link, host, policy: 'none', readAhead: false } as const;
  const misses = [100, 300, 500].map((dueMs, blob) => {
    return { blob, offset: 0, length: 4096, dueMs };
  });
  const waited = simulateColdStart(traceWith(misses), lazy);
  near(waited.predictedMs, 80 + 7 + 500 + 3 * (40 + takenMs));
  // Everything lands while the guest runs towards its first access.
  const ran = simulateColdStart(traceWith(misses), { link, host });
  near(ran.predictedMs, 80 + 7 + 500 + ran.requests.prefetch * 2 + (3 * 16) / 256);
  // Nothing is there in time: the guest waits for the last byte, and is not held by it again.
  const [early] = misses;
  const late = simulateColdStart(traceWith([{ ...early, dueMs: 1 }]), { link, host });
  near(late.predictedMs, 80 + 7 + 40 + takenMs);
  for (const { boundMs } of [waited, ran]) near(boundMs, 500 + 20);
});

test('the bound has no processor time in it, and a warm run may have its own setup in its times', () => {
  const link = { bytesPerSecond: Infinity, roundTripMs: 40 };
  const trace = traceWith([{ blob: 0, offset: 0, length: 4096, dueMs: 500 }]);
  const free = simulateColdStart(trace, { link });
  const host = { attachMs: 100, requestMs: 1, mibMs: 10 };
  assert.equal(simulateColdStart(trace, { link, host }).boundMs, free.boundMs);
  near(simulateColdStart(trace, { link, warmSetupRoundTrips: 2 }).predictedMs, 500);
  near(free.predictedMs, 580);
});

test('on one link, first-access order is at the bound, and no other order is better', () => {
  const link = { bytesPerSecond: 1e6, roundTripMs: 0 };
  const range = fc.record({ granules: fc.integer({ min: 1, max: 12 }), gapMs: fc.nat(40) });
  fc.assert(
    fc.property(fc.array(range, { minLength: 1, maxLength: 5 }), (rows) => {
      let dueMs = 1;
      const trace = traceWith(
        rows.map(({ granules, gapMs }, blob) => {
          dueMs += gapMs + 1;
          return { blob, offset: 0, length: granules * 4096, dueMs };
        }),
      );
      const workload = makeWorkload(trace, 64 * KIB);
      const start = (order: readonly number[]): number => {
        const { plan } = workload;
        const ordered = { ...plan, blob: Uint16Array.from(order, (i) => plan.blob[i]) };
        ordered.length = Float64Array.from(order, (i) => plan.length[i]);
        ordered.dueUs = Float64Array.from(order, (i) => plan.dueUs[i]);
        return new ColdStart({
          ...{ workload: { ...workload, plan: ordered }, link, policy: 'first-access' },
          ...{
            concurrency: 1,
            rangeBytes: null,
            rangesPerRequest: 20,
            refillBytes: 256 * KIB,
            readAhead: true,
          },
          ...{ think: 1, warmMs: dueMs, setupMs: 0, warmSetupMs: 0, host: HOST_COST_NONE },
        }).run().predictedMs;
      };
      const orders = permutations([...rows.keys()]);
      const bestMs = start(orders[0]);
      let neededBytes = 0;
      let delayMs = 0;
      for (const [i, { granules }] of rows.entries()) {
        neededBytes += granules * 4096;
        delayMs = Math.max(delayMs, neededBytes / 1000 - workload.accesses.dueMs[i]);
      }
      near(bestMs, dueMs + delayMs);
      for (const order of orders) assert.ok(start(order) >= bestMs - 1e-6, order.join(' '));
    }),
    { numRuns: 30 },
  );
});

/** All orders, the rising one first. */
function permutations(items: readonly number[]): number[][] {
  if (items.length <= 1) return [[...items]];
  return items.flatMap((first) =>
    permutations(items.filter((item) => item !== first)).map((rest) => [first, ...rest]),
  );
}

test('a hot blob is read in few requests, and wins where the rule says so', () => {
  const next = random(5);
  const scattered = (bytes: number, count = 1000): Trace => {
    const places = Array.from({ length: count }, (_, i) => i).sort(() => next() - 0.5);
    return traceWith(
      places.map((place, i) => ({
        blob: i % 4,
        offset: place * (count > 1000 ? 16 : 64) * KIB,
        length: bytes,
        dueMs: 1 + i / 100,
      })),
    );
  };
  for (const bytes of [4096, 32 * KIB]) {
    const trace = scattered(bytes);
    for (const bytesPerSecond of [3e6, 12.5e6, 125e6]) {
      for (const roundTripMs of [1, 20, 100]) {
        const link = { bytesPerSecond, roundTripMs };
        const packed = simulateColdStart(trace, { link, policy: 'packed' });
        for (const rangesPerRequest of [1, 20]) {
          const own = simulateColdStart(trace, { link, rangesPerRequest });
          if (rangesPerRequest === 1) {
            assert.ok(packed.requests.prefetch < own.requests.prefetch / 3);
          }
          const where = `${bytes} ${bytesPerSecond} ${roundTripMs} ${rangesPerRequest}`;
          if (!packedWins(trace.plan, { ...link, rangesPerRequest })) continue;
          assert.ok(packed.predictedMs < own.predictedMs, `${where}: it wins`);
        }
      }
    }
    const wide = { bytesPerSecond: 125e6, roundTripMs: 100 };
    assert.ok(packedWins(trace.plan, { ...wide, rangesPerRequest: 1 }));
    assert.ok(packedWins(trace.plan, { ...wide, rangesPerRequest: null }), 'not known yet');
    const narrow = { bytesPerSecond: 3e6, roundTripMs: 1 };
    for (const rangesPerRequest of [1, 20, null]) {
      assert.ok(!packedWins(trace.plan, { ...narrow, rangesPerRequest }));
    }
  }
  const wide = { bytesPerSecond: 125e6, roundTripMs: 100, rangesPerRequest: 20 };
  assert.ok(!packedWins(scattered(32 * KIB).plan, wide), 'many ranges a request fill the link');
  assert.ok(!packedWins(scattered(4096).plan, wide), 'or bring all of it at once');
  assert.ok(packedWins(scattered(4096, 4000).plan, wide), 'but not where they are many and short');
});

test('the original fetches whole units, each once, and a guest waits for one under way', () => {
  const link = { bytesPerSecond: 1e6, roundTripMs: 10 };
  const trace = traceWith([
    { blob: 0, offset: 300 * KIB, length: 4 * KIB, dueMs: 1 },
    { blob: 0, offset: 400 * KIB, length: 4 * KIB, dueMs: 2 },
    { blob: 0, offset: 760 * KIB, length: 16 * KIB, dueMs: 3 },
    { blob: 0, offset: 404 * KIB, length: 4 * KIB, dueMs: 5000 },
  ]);
  const result = simulateColdStart(trace, { link, policy: 'overlaybd-fifo' });
  assert.equal(result.requests.demand + result.requests.prefetch, 2);
  assert.equal(result.fetchedBytes, (256 + 512) * KIB);
  assert.ok(result.stalls >= 2);
});

const ranges: fc.Arbitrary<Planned[]> = fc
  .array(
    fc.record({
      blob: fc.nat(3),
      granule: fc.nat(4000),
      granules: fc.integer({ min: 1, max: 100 }),
      gapUs: fc.nat(20_000),
    }),
    { minLength: 1, maxLength: 40 },
  )
  .map((rows) => {
    let dueUs = 0;
    return rows.map(({ blob, granule, granules, gapUs }) => {
      dueUs += gapUs;
      return { blob, offset: granule * 4096, length: granules * 4096, dueMs: dueUs / 1000 };
    });
  });

const options: fc.Arbitrary<SimulationOptions> = fc.record(
  {
    link: fc.record({
      bytesPerSecond: fc.constantFrom(1e4, 3e6, 12.5e6, 125e6, Infinity),
      roundTripMs: fc.constantFrom(0, 1, 20, 300),
    }),
    policy: fc.constantFrom(...SIMULATION_POLICIES),
    concurrency: fc.integer({ min: 1, max: 64 }),
    rangeBytes: fc.constantFrom(4096, 12_288, 65_536, 2 ** 20),
    think: fc.constantFrom(0, 0.5, 1, 3),
    setupRoundTrips: fc.nat(4),
    readAhead: fc.boolean(),
    host: fc.constantFrom(HOST_COST, { attachMs: 0, requestMs: 3, mibMs: 0 }),
    warmSetupRoundTrips: fc.nat(4),
  },
  { requiredKeys: ['link'] },
);

test('any start ends, the same every time, not before the bound, with all that it needs', () => {
  fc.assert(
    fc.property(ranges, options, (planned, chosen) => {
      const trace = traceWith(withoutRepetition(planned), 4);
      const result = simulateColdStart(trace, chosen);
      assert.ok(result.predictedMs >= result.boundMs * (1 - 1e-9), 'the bound holds');
      const prepared = prepareSimulation(trace);
      const other = { ...chosen, link: { ...chosen.link, roundTripMs: 7 } };
      assert.deepEqual(simulate(prepared, other), simulateColdStart(trace, other));
      for (let again = 0; again < 2; again += 1) {
        assert.deepEqual(simulate(prepared, chosen), result);
      }
      const { curve, coverage, timeliness } = result;
      assert.ok(curve.length <= simulateLimits.curvePointsMax);
      assert.equal(curve.at(-1)?.timeMs, result.predictedMs);
      assert.ok(curve.every(({ timeMs }, i) => i === 0 || timeMs >= curve[i - 1].timeMs));
      const needed = trace.plan.length.reduce((sum, length, i) => {
        return sum + (trace.plan.dueUs[i] > 0 ? length : 0);
      }, 0);
      assert.equal(result.touchedBytes, needed);
      assert.ok(result.fetchedBytes >= needed);
      for (const share of [coverage, timeliness])
        assert.ok(share === null || (share >= 0 && share <= 1));
    }),
    { numRuns: 150 },
  );
});

/** What of ranges no earlier one has, as in a plan. */
function withoutRepetition(planned: readonly Planned[]): Planned[] {
  const seen = new Set<string>();
  return planned.filter(({ blob, offset, length }) => {
    const keys = Array.from({ length: length / 4096 }, (_, i) => `${blob}/${offset / 4096 + i}`);
    const isNew = keys.every((key) => !seen.has(key));
    for (const key of keys) seen.add(key);
    return isNew;
  });
}

test('a plan that repeats itself, as a hostile trace may, is simulated all the same', () => {
  fc.assert(
    fc.property(ranges, options, (planned, chosen) => {
      const { predictedMs } = simulateColdStart(
        traceWith([...planned, ...planned.map(later)], 4),
        chosen,
      );
      assert.ok(Number.isFinite(predictedMs));
    }),
    { numRuns: 50 },
  );
});

function later(range: Planned): Planned {
  return { ...range, dueMs: range.dueMs + 1000 };
}

test('of a recorded trace: more bandwidth or a shorter round trip never hurts much', () => {
  const name = new URL('../../traces/node-service.trace', import.meta.url);
  const trace = decodeTrace(readFileSync(name));
  const start = (link: SimulatedLink, policy: SimulationOptions['policy']): number =>
    simulateColdStart(trace, { link, policy }).predictedMs;
  for (const policy of ['first-access', 'none'] as const) {
    for (const roundTripMs of [5, 20, 50]) {
      const times = [3e6, 12.5e6, 125e6].map((bytesPerSecond) =>
        start({ bytesPerSecond, roundTripMs }, policy),
      );
      assert.ok(times[1] <= times[0] * 1.02 && times[2] <= times[1] * 1.02, times.join(' '));
    }
    for (const bytesPerSecond of [3e6, 125e6]) {
      const times = [5, 20, 50].map((roundTripMs) =>
        start({ bytesPerSecond, roundTripMs }, policy),
      );
      assert.ok(times[0] <= times[1] * 1.02 && times[1] <= times[2] * 1.02, times.join(' '));
    }
  }
});

test('replayed starts of real software are predicted within a tenth, of all but one', () => {
  const text = readFileSync(new URL('../../traces/measured.json', import.meta.url), 'utf8');
  const rows = JSON.parse(text) as {
    workload: string;
    link: { megabitsPerSecond: number; roundTripMs: number };
    lazyMs: number;
    replayMs: number;
    warmMs: number;
  }[];
  const errors = rows.map(({ workload, link, warmMs, lazyMs, replayMs }) => {
    const name = new URL(`../../traces/${workload}.trace`, import.meta.url);
    const trace = decodeTrace(readFileSync(name));
    const { megabitsPerSecond, roundTripMs } = link;
    const predicted = simulateColdStart(trace, {
      link: { bytesPerSecond: megabitsPerSecond * 125_000, roundTripMs, segmentBytes: 8948 },
      // The trace was recorded elsewhere; its accesses are as far apart as those of the measured run.
      ...{ warmMs, think: (warmMs * 1000) / trace.plan.dueUs[trace.plan.count - 1] },
      ...{ warmSetupRoundTrips: 2, host: HOST_COST },
    });
    return {
      where: `${workload}, ${megabitsPerSecond} Mbit/s, ${roundTripMs} ms`,
      lazy: Math.abs(predicted.lazyMs / lazyMs - 1),
      replay: Math.abs(predicted.predictedMs / replayMs - 1),
    };
  });
  assert.equal(errors.length, 28);
  const farOff = errors.filter(({ replay }) => replay > 0.1).map(({ where }) => where);
  assert.deepEqual(farOff, ['node-express, 1000 Mbit/s, 20 ms']);
  const worst = errors.filter(({ lazy, replay }) => Math.max(lazy, replay) > 0.21);
  assert.deepEqual(worst, []);
  assert.ok(errors.filter(({ lazy }) => lazy <= 0.11).length >= 25);
});

test('what the most runs needed comes first within a score step, metadata before all', () => {
  const trace = traceWith([
    { blob: 0, offset: 0, length: 4096, dueMs: 0 },
    ...[1, 2, 3].map((i) => ({ blob: i, offset: 0, length: 64 * KIB, dueMs: i })),
  ]);
  const rows = [1, 2, 3].map((i) => ({
    ...{ timeUs: 1000 * i, lba: 8 * i, sectors: 8, layer: i, weight: i },
  }));
  const weighted = { ...trace, runs: 3, records: recordsOf(rows) };
  const link = { bytesPerSecond: 1e6, roundTripMs: 0 };
  const times = (['first-access', 'score'] as const).map(
    (policy) => simulateColdStart(weighted, { link, policy, concurrency: 1 }).curve,
  );
  assert.notDeepEqual(times[0], times[1], 'the order differs');
  assert.deepEqual([...makeWorkload(weighted, 65_536).weight], [1, 1, 2, 3]);
});

test('a trace that cannot be simulated says so', () => {
  const link = { bytesPerSecond: 1e6, roundTripMs: 10 };
  assert.throws(() => simulateColdStart(traceWith([]), { link }), { code: 'ERR_SIMULATE_PLAN' });
  const huge = { blob: 0, offset: 0, length: simulateLimits.planBytesMax + 4096, dueMs: 1 };
  assert.throws(() => simulateColdStart(traceWith([huge]), { link }), {
    code: 'ERR_SIMULATE_LIMIT',
  });
});
