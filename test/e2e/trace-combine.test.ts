import assert from 'node:assert/strict';
import { readFileSync, writeFileSync } from 'node:fs';
import { after, before, test } from 'node:test';
import { random } from '../trace/synthetic.ts';
import { cli, cliJson, cliOutput, serveRegistry } from '../support/cli.ts';
import type { PlayOutput } from '../support/play.ts';
import { Scratch, scratchOf } from '../support/scratch.ts';
import { makeTestImage, type TestImage } from '../support/test-image.ts';

// Goal: runs recorded from an image are merged into a trace that serves a run not among them; `diff`
// tells them apart, and `check` passes what is good with 0 and the rest with 3.
// Method: reads of a real image in shuffled order, some of them others each time, played and recorded by
// the tool itself; damaged files.

const fixture = new Scratch();
const READ_BYTES = 65_536;
const RUNS = ['a', 'b', 'c', 'fresh'];
let image: TestImage;

before(async () => {
  const url = await serveRegistry(fixture, fixture.path('registry'));
  image = await makeTestImage(fixture, url);
  for (const [i, name] of RUNS.entries()) await record(name, i);
});
after(() => fixture.close());

const traceOf = (name: string): string => fixture.path(`${name}.trace`);

/** Plays the beginning of the disk, neighbours in another order and one read in 20 left out. */
async function record(name: string, seed: number): Promise<void> {
  const next = random(seed + 1);
  const count = Math.floor(image.virtualSizeBytes / READ_BYTES / 2);
  const reads = Array.from({ length: count }, (_, i) => ({ offset: i * READ_BYTES, at: i }))
    .filter(() => next() > 0.05)
    .map((read) => ({ ...read, at: read.at + next() * 8 }))
    .sort((a, b) => a.at - b.at);
  const lines = reads.map(({ offset }) => `${offset} ${READ_BYTES}\n`);
  const path = fixture.path(`${name}.reads`);
  writeFileSync(path, lines.join(''));
  await cliOutput(fixture, [
    ...['play', image.reference, '--cache', 'none', '--reads', path],
    ...['--mode', 'record', '--trace', traceOf(name)],
  ]);
}

interface Merged {
  traces: number;
  runs: number;
  records: number;
  recordedBytes: number;
  planBytes: number;
  leftOutBytes: { byWeight: number; byBudget: number };
}

function merge(scratch: Scratch, output: string, ...more: string[]): Promise<Merged> {
  const inputs = RUNS.slice(0, 3).map(traceOf);
  return cliJson<Merged>(scratch, ['trace', 'merge', ...inputs, '-o', output, ...more]);
}

interface Checked {
  ok: boolean;
  criteria: { name: string; found: number; ok: boolean }[];
}

test('a merged trace serves a run that is not in it', async (t) => {
  const scratch = scratchOf(t);
  const output = scratch.path('merged.trace');
  const merged = await merge(scratch, output);
  assert.deepEqual([merged.traces, merged.runs], [3, 3]);
  assert.deepEqual(merged.leftOutBytes, { byWeight: 0, byBudget: 0 });
  await cliOutput(scratch, ['trace', 'verify', output]);
  const fresh = fixture.path('fresh.trace');
  const check = ['trace', 'check', output, '--against', fresh];
  const { ok, criteria } = await cliJson<Checked>(scratch, [...check, '--max-waste', '4MB']);
  assert.ok(ok, JSON.stringify(criteria));
  const played = await cliJson<PlayOutput>(scratch, [
    ...['play', image.reference, '--cache', 'none', '--reads', fixture.path('fresh.reads')],
    ...['--mode', 'replay', '--trace', output],
  ]);
  assert.equal(played.report.replay?.foreignRanges, 0);
  assert.equal(played.report.quality.missErrors, 0);
  const again = scratch.path('again.trace');
  await merge(scratch, again);
  assert.deepEqual(readFileSync(again), readFileSync(output));
});

test('weight and budget leave out, and an image has the plan built anew', async (t) => {
  const scratch = scratchOf(t);
  const output = scratch.path('merged.trace');
  const all = await merge(scratch, output);
  const often = await merge(scratch, output, '--min-weight', '3');
  assert.ok(often.leftOutBytes.byWeight > 0 && often.recordedBytes < all.recordedBytes);
  const small = await merge(scratch, output, '--budget', '1');
  assert.ok(small.planBytes <= 2 ** 20 && small.leftOutBytes.byBudget > 0);
  for (const reference of [image.reference, image.config]) {
    const built = await merge(scratch, output, '--image', reference, '--cache', 'none');
    assert.deepEqual(
      [built.records, built.planBytes],
      [all.records, all.planBytes],
      'every range of a run is needed by a record of it',
    );
  }
  const text = await cliOutput(scratch, ['trace', 'merge', traceOf('a'), '-o', output]);
  assert.match(text, /records of 1 runs/);
});

test('diff tells what two runs have in common', async (t) => {
  const scratch = scratchOf(t);
  interface Diff {
    similarity: number;
    kept: { bytes: number };
    lost: { bytes: number };
    new: { bytes: number };
    largest: { lost: unknown[] };
    files: { path: string; lostBytes: number; newBytes: number; movedBytes: number }[] | null;
  }
  const same = await cliJson<Diff>(scratch, ['trace', 'diff', traceOf('a'), traceOf('a')]);
  assert.equal(same.similarity, 1);
  const diff = ['trace', 'diff', traceOf('a'), traceOf('b'), '--top', '2'];
  const found = await cliJson<Diff>(scratch, diff);
  assert.ok(found.similarity > 0.5 && found.similarity < 1);
  assert.ok(found.lost.bytes > 0 && found.new.bytes > 0 && found.kept.bytes > found.lost.bytes);
  assert.ok(found.largest.lost.length <= 2);
  const text = await cliOutput(scratch, diff);
  assert.match(text, /^similarity 0\.\d+: /);
  assert.match(text, /LAYER +IN +KEPT +MOVED +LOST +NEW/);
  assert.equal(found.files, null);
  const byFile = [...diff, '--image', image.config, '--cache', 'none'];
  const { files } = await cliJson<Diff>(scratch, byFile);
  assert.equal(files?.length, 2);
  const changed = files.map((file) => file.lostBytes + file.newBytes + file.movedBytes);
  assert.ok(changed[0] > 0 && changed[0] >= changed[1], 'what changed most is first');
  assert.match(await cliOutput(scratch, byFile), /LOST +NEW +FILE\n.* [/<]/);
});

test('a check that fails is exit code 3, and names what failed', async (t) => {
  const scratch = scratchOf(t);
  const against = [traceOf('a'), '--against', traceOf('b')];
  const strict = ['--min-coverage', '1', '--max-waste', '0'];
  const failed = await cli(scratch, ['trace', 'check', ...against, ...strict]);
  assert.equal(failed.code, 3, failed.stderr);
  assert.match(failed.stdout, /coverage of \S+b\.trace +at least 100\.00 % +\d+\.\d+ % +FAILED/);
  assert.match(failed.stdout, /records +at least 1 +\d+ +ok/);
  const lenient = ['--min-coverage', '0.5', '--max-waste', '1GiB'];
  const passed = await cli(scratch, ['trace', 'check', ...against, ...lenient]);
  assert.equal(passed.code, 0, passed.stdout);
  const ours = [traceOf('a'), '--image', image.config, '--cache', 'none'];
  const { criteria } = await cliJson<Checked>(scratch, ['trace', 'check', ...ours]);
  assert.ok(criteria.some(({ name, found }) => name.startsWith('planned of') && found === 1));
  const config = JSON.parse(readFileSync(image.config, 'utf8')) as { lowers: unknown[] };
  writeFileSync(
    scratch.path('base.json'),
    JSON.stringify({ ...config, lowers: config.lowers.slice(0, 1) }),
  );
  const base = ['--image', scratch.path('base.json'), '--cache', 'none', '--min-coverage', '1'];
  const stale = await cli(scratch, ['trace', 'check', traceOf('a'), ...base, '--json']);
  assert.equal(stale.code, 3, stale.stderr);
  assert.equal((JSON.parse(stale.stdout) as Checked).ok, false);
  const merged = await cli(scratch, [
    ...['trace', 'merge', traceOf('a'), '-o', scratch.path('m'), '--cache', 'none'],
    ...['--image', scratch.path('base.json')],
  ]);
  assert.equal(merged.code, 1);
  assert.match(merged.stderr, /base\.json.*ERR_TRACE_IMAGE/s);
});

test('a damaged file is an error of every command, and named', async (t) => {
  const scratch = scratchOf(t);
  const good = readFileSync(traceOf('a'));
  const cut = scratch.path('cut.trace');
  writeFileSync(cut, good.subarray(0, good.length / 2));
  for (const words of [
    ['merge', traceOf('a'), cut, '-o', scratch.path('out')],
    ['diff', traceOf('a'), cut],
    ['check', cut],
    ['check', traceOf('a'), '--against', cut],
  ]) {
    const { code, stderr } = await cli(scratch, ['trace', ...words]);
    assert.equal(code, 1, words.join(' '));
    assert.match(stderr, /cut\.trace.*\(ERR_TRACE_CHECKSUM\)/s);
  }
});
