import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { checkAgainst, checkImage, checkSoundness, type Criterion } from '../../src/trace/check.ts';
import { TraceMerger } from '../../src/trace/merge.ts';
import { emptyPlan, type Trace, type TracePlan } from '../../src/trace/trace.ts';
import { granulesOf, jitteredRuns, runs } from './lab-support.ts';
import { recordsOf, syntheticLayers, traceOf } from './synthetic.ts';

// Goal: a check tells a trace that serves fresh runs from one that does not, in exact bytes.
// Method: plans made by hand; recordings of random accesses, whose granules are counted one by one.

const BLOB_BYTES = 10 * 4096 + 100;
const layers = syntheticLayers(2, BLOB_BYTES);

function planOf(...ranges: [blob: number, granule: number, granules: number][]): TracePlan {
  const end = ([, granule, granules]: [number, number, number]): number =>
    Math.min((granule + granules) * 4096, BLOB_BYTES);
  return {
    count: ranges.length,
    blob: Uint16Array.from(ranges, ([blob]) => blob),
    offset: Float64Array.from(ranges, ([, granule]) => granule * 4096),
    length: Float64Array.from(ranges, (range) => end(range) - range[1] * 4096),
    dueUs: new Float64Array(ranges.length),
  };
}

function traceWith(plan: TracePlan, image = layers): Trace {
  const records = recordsOf([{ timeUs: 0, lba: 0, sectors: 8, layer: 0 }]);
  return { ...traceOf(records, image), plan };
}

const named = (trace: Trace, i: number) => ({ ...trace, name: `run${i}` });

/** Of each criterion, what was found and whether that is good. */
function found(criteria: readonly Criterion[]): Record<string, [number, boolean]> {
  return Object.fromEntries(
    criteria.map(({ name, run, found: value, ok }) => [
      run === null ? name : `${name} ${run}`,
      [value, ok],
    ]),
  );
}

test('coverage is by run, waste is what no run needs', () => {
  const trace = traceWith(planOf([0, 0, 4], [1, 8, 3]));
  const fresh = [planOf([0, 2, 4]), planOf([1, 10, 1], [0, 0, 1])].map((plan, i) =>
    named(traceWith(plan), i),
  );
  const wanted = { coverageMin: 0.6, wasteBytesMax: 3 * 4096 };
  assert.deepEqual(found(checkAgainst(trace, fresh, wanted)), {
    'coverage run0': [0.5, false],
    'coverage run1': [1, true],
    waste: [3 * 4096, true],
  });
  const strict = checkAgainst(trace, fresh, { coverageMin: 0.5, wasteBytesMax: 3 * 4096 - 1 });
  assert.deepEqual(
    strict.map(({ ok }) => ok),
    [true, true, false],
  );
  const untold = checkAgainst(trace, fresh, { coverageMin: 0.5, wasteBytesMax: null });
  assert.ok(untold.every(({ ok }) => ok));
});

test("a run's layers are matched by digest", () => {
  const trace = traceWith(planOf([0, 0, 4], [1, 0, 2]));
  const turned = traceWith(planOf([1, 0, 4]), layers.toReversed());
  assert.deepEqual(
    found(checkAgainst(trace, [named(turned, 0)], { coverageMin: 1, wasteBytesMax: 8192 })),
    { 'coverage run0': [1, true], waste: [8192, true] },
  );
});

test('coverage and waste are those of the granules, one by one', () => {
  fc.assert(
    fc.property(runs, fc.array(runs, { minLength: 1, maxLength: 4 }), (trace, fresh) => {
      const wanted = { coverageMin: 0, wasteBytesMax: null };
      const checked = found(checkAgainst(trace, fresh.map(named), wanted));
      const bytesOf = (granules: string[]): number =>
        // The blobs' last granules are the only short ones.
        granules.reduce((sum, g) => sum + (g.endsWith('/1464') ? 6_000_077 % 4096 : 4096), 0);
      const has = granulesOf(trace);
      const touched = new Set<string>();
      for (const [i, run] of fresh.entries()) {
        const needs = [...granulesOf(run).keys()];
        for (const granule of needs) touched.add(granule);
        const covered = bytesOf(needs.filter((granule) => has.has(granule)));
        assert.equal(checked[`coverage run${i}`][0], covered / bytesOf(needs));
      }
      const waste = bytesOf([...has.keys()].filter((granule) => !touched.has(granule)));
      assert.equal(checked.waste[0], waste);
    }),
    { numRuns: 60 },
  );
});

test('a merged trace passes against a run that it has not seen, one of another start does not', () => {
  const [unseen, ...seen] = jitteredRuns(6);
  const merger = new TraceMerger();
  for (const trace of seen) merger.add(trace, 'run');
  const { trace } = merger.merge();
  const wanted = { coverageMin: 0.95, wasteBytesMax: null };
  const [coverage] = checkAgainst(trace, [named(unseen, 0)], wanted);
  assert.ok(coverage.ok, String(coverage.found));
  const [foreign] = checkAgainst(jitteredRuns(1, 99)[0], [named(unseen, 0)], wanted);
  assert.ok(!foreign.ok, String(foreign.found));
});

test('a trace is measured against an image by the layers of its plan', () => {
  const trace = traceWith(planOf([0, 0, 3], [1, 9, 2]));
  assert.deepEqual(found(checkImage(trace, { layers }, 1)), {
    "planned of the image's layers": [1, true],
    'planned beyond their end': [0, true],
  });
  const stale = found(checkImage(trace, { layers: layers.slice(0, 1) }, 0.9));
  assert.deepEqual(stale["planned of the image's layers"], [12_288 / (12_288 + 4196), false]);
  const shorter = [layers[0], { ...layers[1], sizeBytes: 9 * 4096 + 96 }];
  const outside = found(checkImage(trace, { layers: shorter }, 0.9));
  assert.deepEqual(outside['planned beyond their end'], [4100, false]);
  const planless = found(checkImage(traceWith(emptyPlan), { layers }, 0.5));
  assert.deepEqual(planless["planned of the image's layers"], [0, false]);
});

test('a trace by itself names something, and nothing twice', () => {
  const sound = checkSoundness(jitteredRuns(1)[0]);
  assert.ok(sound.every(({ ok }) => ok));
  assert.ok(checkSoundness(traceWith(emptyPlan)).some(({ ok }) => !ok));
  const twice = recordsOf([
    { timeUs: 0, lba: 0, sectors: 8, layer: 0 },
    { timeUs: 1, lba: 4, sectors: 8, layer: 0 },
    { timeUs: 1, lba: 4, sectors: 8, layer: 1 },
  ]);
  const plan = planOf([0, 0, 2], [0, 1, 3]);
  assert.deepEqual(found(checkSoundness({ ...traceOf(twice, layers), plan })), {
    records: [3, true],
    'plan ranges': [2, true],
    'recorded twice': [2048, false],
    'planned twice': [4096, false],
  });
});

test('a run without a plan cannot be checked against', () => {
  const run = named(traceWith(emptyPlan), 0);
  assert.throws(() => checkAgainst(run, [run], { coverageMin: 0, wasteBytesMax: null }), {
    code: 'ERR_TRACE_PLAN',
    message: /^run0: /,
  });
});
