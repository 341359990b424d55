import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import { readFile, stat, truncate } from 'node:fs/promises';
import { test } from 'node:test';
import fc from 'fast-check';
import { ReplaybdError } from '../../src/base/errors.ts';
import { traceStoreLimits } from '../../src/base/limits.ts';
import { encodeTrace } from '../../src/trace/encode.ts';
import { readFacts, updateFacts } from '../../src/trace/store-catalog.ts';
import {
  formatFacts,
  parseFacts,
  type ReplayRun,
  type TraceFacts,
} from '../../src/trace/store-facts.ts';
import { isGoodRecording, lastPlanned, renewalReason } from '../../src/trace/store-renewal.ts';
import { imageKey, TraceStore } from '../../src/trace/store.ts';
import { END_REASONS, type Trace } from '../../src/trace/trace.ts';
import { workloadOfWords } from '../../src/trace/workload.ts';
import { scratchOf } from '../support/scratch.ts';
import { bootLikeRecords, traceOf } from './synthetic.ts';

// Goal: what lives beside a trace can be damaged, absent or of another trace, and is then told again by
// the trace; it stays bounded, and whatever its bytes are, reading it ends in facts or a coded error.
// Method: facts of every kind there and back, arbitrary JSON and text, real files damaged in the store.

const naturals = fc.nat({ max: 2 ** 31 - 1 });
const ratio = fc.option(fc.double({ min: 0, max: 1, noNaN: true }));
const someFacts: fc.Arbitrary<TraceFacts> = fc.record({
  mark: fc.record({ sizeBytes: naturals, crc32c: fc.string({ maxLength: 8 }) }),
  image: fc.string({ maxLength: 40 }),
  repository: fc.string({ maxLength: 40 }),
  manifestDigest: fc.option(fc.string({ maxLength: 80 })),
  workload: fc.string({ maxLength: 40 }),
  records: naturals,
  sectors: naturals,
  durationUs: naturals,
  endReason: fc.constantFrom(...END_REASONS),
  recordedAtMs: naturals,
  lastUsedAtMs: fc.option(naturals),
  origin: fc.constantFrom('recorded', 'pulled', 'unknown'),
  runs: fc.array(
    fc.record({
      atMs: naturals,
      touchedBytes: naturals,
      planned: ratio,
      fetchedBytes: naturals,
      coverage: ratio,
      timeliness: ratio,
      overFetch: ratio,
    }),
    { maxLength: traceStoreLimits.runsMax },
  ),
});

const fullRun: ReplayRun = {
  ...{ atMs: 1, touchedBytes: 2 ** 20, planned: 1, fetchedBytes: 2 ** 20 },
  ...{ coverage: 1, timeliness: 1, overFetch: 0 },
};

test('facts come back as they were written', () => {
  fc.assert(
    fc.property(someFacts, (facts) => {
      // JSON has one zero.
      const plain = JSON.parse(JSON.stringify(facts)) as TraceFacts;
      assert.deepEqual(parseFacts(formatFacts(plain), 'f'), plain);
    }),
  );
});

test('a facts file is bounded, whatever it is made of', () => {
  const long = '\u0000'.repeat(100_000);
  const [sample] = fc.sample(someFacts, { numRuns: 1, seed: 1 });
  const run = { ...fullRun, fetchedBytes: 1, timeliness: null };
  const text = formatFacts({
    ...{ ...sample, image: long, repository: long, workload: long },
    runs: Array.from({ length: 1000 }, (_, i) => ({ ...run, atMs: i })),
  });
  assert.ok(Buffer.byteLength(text) <= traceStoreLimits.factsBytesMax, String(text.length));
  const { runs } = parseFacts(text, 'f');
  assert.deepEqual(
    runs.map(({ atMs }) => atMs),
    [992, 993, 994, 995, 996, 997, 998, 999],
  );
});

test('any text is facts or an error with a code', () => {
  const damaged = someFacts.chain((facts) => {
    const text = formatFacts(facts);
    return fc
      .tuple(fc.nat({ max: text.length }), fc.string({ maxLength: 3 }))
      .map(([at, put]) => text.slice(0, at) + put + text.slice(at + put.length));
  });
  const keys = Object.keys(fc.sample(someFacts, 1)[0]);
  const foreign = fc
    .dictionary(fc.constantFrom(...keys, 'version'), fc.jsonValue())
    .map((value) => JSON.stringify({ version: 1, ...value }));
  fc.assert(
    fc.property(fc.oneof(damaged, foreign, fc.string()), (text) => {
      try {
        parseFacts(text, 'f');
      } catch (error) {
        assert.ok(error instanceof ReplaybdError, String(error));
        assert.match(error.code, /^ERR_(?:CONFIG_JSON|CONFIG_TYPE|TRACE_FACTS)$/);
      }
    }),
    { numRuns: 500 },
  );
});

const layers = ['a', 'b', 'c', 'd'].map((digit) => ({
  ...{ digest: `sha256:${digit.repeat(64)}`, sizeBytes: 2 ** 30, diffId: null },
}));

function sample(seed: number): Trace {
  const trace = traceOf(bootLikeRecords(30, layers.length, seed), layers);
  return { ...trace, workload: workloadOfWords({ workload: ['/bin/app'], workloadEnv: ['A=b'] }) };
}

test('damaged, absent and foreign facts are told again by the trace', async (t) => {
  const store = new TraceStore(scratchOf(t).path('store'));
  const [first, second] = [sample(1), sample(2)];
  const [image, workload] = [imageKey(first.image), first.workload.key];
  assert.equal(await readFacts(store, image, workload), null);
  assert.equal(await updateFacts(store, image, workload, (facts) => facts), null);
  await store.put(image, workload, encodeTrace(first));
  const told = await readFacts(store, image, workload);
  assert.equal(told?.workload, 'A=b /bin/app');
  assert.equal(told.records, first.records.count);
  const run = { ...fullRun, fetchedBytes: 9, coverage: 0.25 };
  const change = (facts: TraceFacts): TraceFacts => ({
    ...{ ...facts, image: 'r.example/app:v1', repository: 'r.example/app', lastUsedAtMs: 5 },
    runs: [...facts.runs, run],
  });
  const kept = await updateFacts(store, image, workload, change);
  assert.deepEqual(await readFacts(store, image, workload), kept);
  // Another trace under the same name: a crash came between the two files.
  await store.put(image, workload, encodeTrace(second));
  const after = await readFacts(store, image, workload);
  assert.deepEqual(after?.runs, [], 'how the old trace did says nothing of the new one');
  assert.equal(after.repository, 'r.example/app');
  const path = store.factsPath(image, workload);
  await updateFacts(store, image, workload, change);
  await truncate(path, Math.floor((await stat(path)).size / 2));
  assert.deepEqual((await readFacts(store, image, workload))?.runs, []);
  writeFileSync(path, '{"version":2}');
  assert.equal((await readFacts(store, image, workload))?.image, '');
  // Many at once in one process: none is lost.
  await Promise.all(Array.from({ length: 5 }, () => updateFacts(store, image, workload, change)));
  assert.equal((await readFacts(store, image, workload))?.runs.length, 5);
  assert.deepEqual(await readFile(store.path(image, workload)), Buffer.from(encodeTrace(second)));
});

test('facts of before runs told what was planned say nothing of it', () => {
  const [facts] = fc.sample(someFacts, { numRuns: 1, seed: 3 });
  const { touchedBytes: _, planned: __, ...old } = fullRun;
  const written = JSON.stringify({ version: 1, ...facts, runs: [{ ...old, coverage: 0.1 }] });
  const { runs } = parseFacts(written, 'f');
  assert.deepEqual(runs, [{ ...fullRun, touchedBytes: 0, planned: null, coverage: 0.1 }]);
  assert.equal(lastPlanned(runs), null);
});

test('a trace is stale for what it lacks, its age or its end, and only then', () => {
  const [facts] = fc.sample(someFacts, { numRuns: 1, seed: 2 });
  const good = { ...facts, endReason: 'detach' as const, recordedAtMs: 1000, runs: [] };
  const policy = { renews: true, coverageMin: 0.8, maxAgeMs: 5000 };
  const run = { ...fullRun, planned: 0.79 };
  const fine = { ...fullRun, planned: 0.8, coverage: 0.1 };
  const tiny = { ...run, touchedBytes: 1000 };
  const unknown = { ...run, planned: null };
  assert.equal(renewalReason(good, policy, 6000), null);
  assert.equal(renewalReason({ ...good, runs: [fine, run] }, policy, 2000), 'coverage');
  assert.equal(renewalReason({ ...good, runs: [run, fine] }, policy, 2000), null);
  assert.equal(renewalReason({ ...good, runs: [fine, tiny] }, policy, 2000), null);
  assert.equal(renewalReason({ ...good, runs: [unknown] }, policy, 2000), null);
  assert.equal(renewalReason(good, policy, 6001), 'age');
  assert.equal(renewalReason(good, { ...policy, maxAgeMs: null }, 1e12), null);
  assert.equal(renewalReason({ ...good, endReason: 'checkpoint' }, policy, 2000), 'killed');
  const off = { ...policy, renews: false };
  assert.equal(renewalReason({ ...good, endReason: 'checkpoint', runs: [run] }, off, 1e9), null);
});

test('a recording that was broken off replaces nothing', () => {
  const trace = sample(3);
  const sectors = trace.records.sectors.reduce((sum, one) => sum + one, 0);
  assert.equal(isGoodRecording(trace, sectors * 2), true);
  assert.equal(isGoodRecording(trace, sectors * 2 + 1), false);
  const killed = { ...trace, recording: { ...trace.recording, endReason: 'checkpoint' as const } };
  assert.equal(isGoodRecording(killed, 0), false);
});
