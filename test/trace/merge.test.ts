import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { buildPlan } from '../../src/trace/build-plan.ts';
import { encodeTrace } from '../../src/trace/encode.ts';
import { TraceMerger, type MergeOptions } from '../../src/trace/merge.ts';
import { describeWorkload, emptyPlan, type Trace } from '../../src/trace/trace.ts';
import {
  granulesOf,
  jitteredRuns,
  recordRun,
  runs,
  sectorsOf,
  stripedImage,
  stripedLayers,
  waiting,
} from './lab-support.ts';
import { recordsOf, syntheticLayers, traceOf } from './synthetic.ts';

// Goal: a merged trace names what its runs read, each sector once, with the right weight and time;
// whatever the order of the runs; and covers a run that is not among them.
// Method: recordings of random accesses on a striped image, against a model sector by sector; reruns
// with jitter; traces made by hand for what has a known answer.

function merge(traces: readonly Trace[], options?: MergeOptions): Trace {
  const merger = new TraceMerger();
  for (const [i, trace] of traces.entries()) merger.add(trace, `run ${i}`);
  return merger.merge(options).trace;
}

const opened = { ...stripedImage, layers: stripedLayers, name: 'the image' };
const severalRuns = fc.array(runs, { minLength: 1, maxLength: 7 });

/** The nearest-rank 25th percentile. */
function early(times: number[]): number {
  return times.sort((a, b) => a - b)[Math.ceil(times.length / 4) - 1];
}

test('every sector of every run is there once, with its weight and early time', () => {
  fc.assert(
    fc.property(severalRuns, fc.integer({ min: 1, max: 3 }), (traces, weightMin) => {
      const model = new Map<string, number[]>();
      for (const trace of traces) {
        for (const [sector, { timeUs }] of sectorsOf(trace)) {
          model.set(sector, [...(model.get(sector) ?? []), timeUs]);
        }
      }
      const merged = merge(traces, { weightMin });
      const found = sectorsOf(merged);
      const wanted = [...model].filter(([, times]) => times.length >= weightMin);
      assert.equal(found.size, wanted.length);
      assert.equal(
        merged.records.sectors.reduce((sum, n) => sum + n, 0),
        found.size,
        'no sector occurs twice',
      );
      for (const [sector, times] of wanted) {
        const { timeUs, weight } = found.get(sector) ?? { timeUs: NaN, weight: NaN };
        assert.equal(weight, times.length);
        const earlyUs = early(times) - timeUs;
        assert.ok(earlyUs >= 0 && earlyUs <= 2000, `${sector} is ${earlyUs} us early`);
      }
      assert.equal(merged.runs, traces.length);
      encodeTrace(merged);
    }),
    { numRuns: 40 },
  );
});

test('the order of the runs makes no difference', () => {
  fc.assert(
    fc.property(severalRuns, fc.nat(1000), fc.boolean(), (traces, turn, hasBudget) => {
      const facts = traces.map((trace, i) => ({
        ...trace,
        image: { ...trace.image, manifestDigest: i % 3 === 0 ? null : trace.image.manifestDigest },
        recording: { ...trace.recording, startedAtMs: 1000 - i, durationUs: 10 ** 6 + i },
      }));
      const turned = [...facts.slice(turn % facts.length), ...facts.slice(0, turn % facts.length)];
      const options = hasBudget ? { budgetBytes: 40_000 } : {};
      const bytes = encodeTrace(merge(facts, options));
      assert.deepEqual(encodeTrace(merge(turned, options)), bytes);
      assert.deepEqual(encodeTrace(merge(facts.toReversed(), options)), bytes);
    }),
    { numRuns: 40 },
  );
});

test('a trace merged with itself is the same with twice the weights and runs', () => {
  fc.assert(
    fc.property(severalRuns, (traces) => {
      const once = merge(traces);
      const twice = merge([once, once]);
      assert.equal(twice.runs, once.runs * 2);
      const doubled = { ...once.records, weight: once.records.weight.map((weight) => weight * 2) };
      assert.deepEqual(twice.records, doubled);
      assert.deepEqual(twice.plan, once.plan);
      const [first] = traces;
      assert.deepEqual([...sectorsOf(merge([first, first])).keys()], [...sectorsOf(first).keys()]);
    }),
    { numRuns: 40 },
  );
});

test('a merged plan has what the records need, in time, and metadata first', () => {
  fc.assert(
    fc.property(severalRuns, fc.integer({ min: 1, max: 3 }), (traces, weightMin) => {
      const merged = merge(traces, { weightMin });
      const built = merge(traces, { weightMin, image: opened });
      assert.deepEqual(merged.records, built.records);
      const exact = buildPlan({ ...stripedImage, records: built.records, layers: stripedLayers });
      assert.deepEqual(built.plan, exact);
      const found = granulesOf(merged);
      for (const granule of granulesOf(built).keys()) assert.ok(found.has(granule), granule);
      if (weightMin === 1) assert.equal(found.size, granulesOf(built).size);
      assert.equal(merged.plan.dueUs[0], 0);
      // What is not needed by kept records is in the plans of enough runs all the same.
      for (const [granule, dueUs] of found) {
        const inRuns = traces.filter((trace) => granulesOf(trace).has(granule)).length;
        assert.ok(dueUs === 0 || inRuns >= weightMin, `${granule} in ${inRuns} runs`);
      }
    }),
    { numRuns: 40 },
  );
});

test('a larger budget keeps all that a smaller one does, and none is exceeded', () => {
  const budget = fc.integer({ min: 1, max: 300_000 });
  fc.assert(
    fc.property(severalRuns, budget, budget, fc.boolean(), (traces, a, b, hasImage) => {
      const image = hasImage ? { image: opened } : {};
      const [small, large] = [Math.min(a, b), Math.max(a, b)].map((budgetBytes) =>
        merge(traces, { ...image, budgetBytes }),
      );
      for (const [trace, bytesMax] of [
        [small, Math.min(a, b)],
        [large, Math.max(a, b)],
      ] as const) {
        assert.ok(trace.plan.length.reduce((sum, n) => sum + n, 0) <= bytesMax);
        encodeTrace(trace);
        const needs = buildPlan({ ...stripedImage, records: trace.records, layers: stripedLayers });
        const planned = granulesOf(trace);
        if (trace.records.count === 0) continue;
        for (const granule of granulesOf({ ...trace, plan: needs }).keys()) {
          assert.ok(planned.has(granule), `${granule} of a kept record is planned`);
        }
      }
      const kept = sectorsOf(large);
      for (const sector of sectorsOf(small).keys()) assert.ok(kept.has(sector));
      const planned = granulesOf(large);
      for (const granule of granulesOf(small).keys()) assert.ok(planned.has(granule));
    }),
    { numRuns: 60 },
  );
});

test('a merged trace covers nine tenths of a run that it has not seen', () => {
  for (const seed of [1, 2, 3]) {
    const [unseen, ...seen] = jitteredRuns(6, seed);
    for (const weightMin of [1, 2, 3]) {
      const merged = merge(seen, { weightMin });
      const sectors = sectorsOf(merged);
      const granules = granulesOf(merged);
      const share = (wanted: Iterable<string>, has: (key: string) => boolean): number => {
        const all = [...wanted];
        return all.filter(has).length / all.length;
      };
      const ofSectors = share(sectorsOf(unseen).keys(), (key) => sectors.has(key));
      const ofGranules = share(granulesOf(unseen).keys(), (key) => granules.has(key));
      assert.ok(ofSectors >= 0.9, `weight ${weightMin}: ${ofSectors} of the sectors`);
      assert.ok(ofGranules >= 0.9, `weight ${weightMin}: ${ofGranules} of the granules`);
      assert.notDeepEqual(sectorsOf(unseen), sectorsOf(seen[0]), 'runs differ');
    }
  }
});

test('what a run waited for bytes makes no difference', () => {
  fc.assert(
    fc.property(severalRuns, (traces) => {
      const waited = traces.map((trace, i) => waiting(trace, i * 700));
      assert.deepEqual(encodeTrace(merge(waited)), encodeTrace(merge(traces)));
    }),
    { numRuns: 40 },
  );
});

test('records split where runs differ; time is early, then weight decides the order', () => {
  const at = (timeUs: number, lba: number, sectors: number) => ({ timeUs, lba, sectors, layer: 0 });
  const layers = syntheticLayers(1);
  const traces = [
    traceOf(recordsOf([at(0, 100, 16), at(9000, 300, 8), at(50_000, 500, 8)]), layers),
    traceOf(recordsOf([at(9000, 108, 16), at(90_000, 500, 8)]), layers),
    traceOf(recordsOf([at(9000, 108, 8), at(9000, 300, 8)]), layers),
  ];
  const { records } = merge(traces, {
    image: { ...opened, layers: syntheticLayers(1), metadataRanges: [] },
  });
  assert.deepEqual([...records.lba], [108, 100, 300, 116, 500]);
  assert.deepEqual([...records.sectors], [8, 8, 8, 8, 8]);
  assert.deepEqual([...records.weight], [3, 1, 2, 1, 2]);
  assert.deepEqual([...records.timeUs], [0, 0, 9000, 9000, 50_000]);
});

test('runs of other layers, another workload or without a plan are refused', () => {
  const run = recordRun([{ timeUs: 0, lba: 0, sectors: 8 }]);
  const other = { ...run, image: { ...run.image, layers: syntheticLayers(2, 77_777) } };
  const code = (wanted: string) => ({ name: 'ReplaybdError', code: wanted });
  assert.throws(() => merge([run, other]), {
    ...code('ERR_TRACE_IMAGE'),
    message: /run 1.*run 0.*trace rebase/,
  });
  const workload = describeWorkload(['other'], []);
  assert.throws(() => merge([run, { ...run, workload }]), code('ERR_TRACE_WORKLOAD'));
  const planless = { ...run, plan: emptyPlan };
  assert.throws(() => merge([run, planless]), { ...code('ERR_TRACE_PLAN'), message: /--image/ });
  assert.deepEqual(merge([planless], { image: opened }).plan, run.plan);
  const elsewhere = { ...opened, layers: other.image.layers };
  assert.throws(() => merge([run], { image: elsewhere }), {
    ...code('ERR_TRACE_IMAGE'),
    message: /^the image: .*run 0/,
  });
  assert.throws(() => merge([]), code('ERR_TRACE_EMPTY'));
  const many = { ...run, runs: 40_000 };
  assert.throws(() => merge([many, many]), code('ERR_TRACE_LIMIT'));
});

test('the facts of a merged trace are those of its runs together', () => {
  const run = recordRun([{ timeUs: 10, lba: 0, sectors: 8 }]);
  const late = {
    ...run,
    image: { ...run.image, manifestDigest: null },
    recording: {
      ...run.recording,
      startedAtMs: 5,
      durationUs: 77,
      endReason: 'checkpoint' as const,
    },
  };
  const { image, recording, workload } = merge([run, late]);
  assert.equal(image.manifestDigest, null);
  assert.deepEqual(image.layers, run.image.layers);
  assert.deepEqual(workload, run.workload);
  assert.deepEqual(recording, { ...late.recording, startedAtMs: 5 });
});

test('sectors that a trace names twice count once', () => {
  const rows = [
    { timeUs: 0, lba: 100, sectors: 8, layer: 0 },
    { timeUs: 10_000, lba: 90, sectors: 40, layer: 0 },
    { timeUs: 20_000, lba: 100, sectors: 8, layer: 0 },
  ];
  const trace = traceOf(recordsOf(rows), syntheticLayers(1));
  const merged = merge([trace], {
    image: { ...opened, layers: syntheticLayers(1), metadataRanges: [] },
  });
  assert.deepEqual([...merged.records.lba], [100, 90, 108]);
  assert.deepEqual([...merged.records.sectors], [8, 10, 22]);
  assert.deepEqual([...merged.records.weight], [1, 1, 1]);
});
