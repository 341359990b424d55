import assert from 'node:assert/strict';
import { existsSync, utimesSync } from 'node:fs';
import { test } from 'node:test';
import { encodeTrace } from '../../src/trace/encode.ts';
import { imageKey, TraceStore } from '../../src/trace/store.ts';
import { updateFacts } from '../../src/trace/store-catalog.ts';
import type { StoredTraceFacts } from '../../src/trace/store-describe.ts';
import { workloadOfWords } from '../../src/trace/workload.ts';
import { cli, cliJson, cliOutput } from '../support/cli.ts';
import { scratchOf } from '../support/scratch.ts';
import { bootLikeRecords, syntheticLayers, traceOf } from '../trace/synthetic.ts';

// Goal: the store's commands do what they say and no more: a pinned trace outlives them, a dry run removes
// nothing, and words of a trace cannot write to the terminal what they want.
// Method: the commands in processes of their own, on a store of three traces.

test('ls, pin, gc, rm and unpin on a store', async (t) => {
  const scratch = scratchOf(t);
  const store = new TraceStore(scratch.path('traces'));
  const dir = ['--trace-dir', store.folder];
  const layer = { digest: `sha256:${'a'.repeat(64)}`, sizeBytes: 2 ** 30, diffId: null };
  const trace = traceOf(bootLikeRecords(5, 1), [layer]);
  const image = imageKey(trace.image);
  const paths: string[] = [];
  for (const word of ['one', 'two', 'three\u001b[31m']) {
    const workload = workloadOfWords({ workload: [word] });
    const path = await store.put(image, workload.key, encodeTrace({ ...trace, workload }));
    // Neither the file's time nor the recording's is of today.
    utimesSync(path, 1, 1);
    paths.push(path);
  }
  const text = await cliOutput(scratch, ['trace', 'ls', ...dir]);
  assert.ok(text.includes('three?[31m') && !text.includes('\u001b'), text);
  const listed = await cliJson<StoredTraceFacts[]>(scratch, ['trace', 'ls', ...dir]);
  const keyOf = (word: string): string =>
    listed.find(({ workload }) => workload === word)?.key ?? assert.fail(word);
  assert.equal(listed.length, 3);
  assert.deepEqual(listed[0].records, trace.records.count);

  await cliOutput(scratch, ['trace', 'pin', ...dir, keyOf('one')]);
  interface Collected {
    removed: StoredTraceFacts[];
    keptTraces: number;
  }
  const gc = ['trace', 'gc', ...dir];
  assert.equal((await cliJson<Collected>(scratch, gc)).removed.length, 0, 'no bound, no loss');
  const bound = [...gc, '--max-age', '1d', '--keep-runs', '0'];
  const would = await cliJson<Collected>(scratch, [...bound, '--dry-run']);
  assert.deepEqual([would.removed.length, would.keptTraces], [2, 1]);
  assert.ok(paths.every((path) => existsSync(path)));

  const refused = await cli(scratch, ['trace', 'rm', ...dir, keyOf('two'), keyOf('one')]);
  assert.equal(refused.code, 1);
  assert.match(refused.stderr, /ERR_TRACE_PINNED/);
  assert.ok(
    paths.every((path) => existsSync(path)),
    'nothing was removed',
  );
  await cliOutput(scratch, ['trace', 'rm', ...dir, keyOf('two')]);
  assert.deepEqual(
    paths.map((path) => existsSync(path)),
    [true, false, true],
  );
  await cliOutput(scratch, bound);
  assert.deepEqual(
    paths.map((path) => existsSync(path)),
    [true, false, false],
  );
  await cliOutput(scratch, ['trace', 'unpin', ...dir, keyOf('one')]);
  await cliOutput(scratch, [...gc, '--max-bytes', '0']);
  assert.deepEqual(await cliJson(scratch, ['trace', 'ls', ...dir]), []);
});

test("an image's traces are found with and without a scheme, and nothing is removed of another", async (t) => {
  const scratch = scratchOf(t);
  const store = new TraceStore(scratch.path('traces'));
  const dir = ['--trace-dir', store.folder];
  const trace = traceOf(bootLikeRecords(5, 1), syntheticLayers(1));
  const [image, workload] = [imageKey(trace.image), trace.workload.key];
  await store.put(image, workload, encodeTrace(trace));
  const named = 'http://r.example/team/app:v1';
  await updateFacts(store, image, workload, (facts) => ({ ...facts, image: named }));
  for (const name of [named, 'r.example/team/app:v1', 'https://r.example/team/app:v1']) {
    const listed = await cliJson<unknown[]>(scratch, ['trace', 'ls', '--local', name, ...dir]);
    assert.equal(listed.length, 1, name);
  }
  const rm = ['trace', 'rm', ...dir, '--image'];
  const absent = await cli(scratch, [...rm, 'r.example/team/app:v2']);
  assert.deepEqual([absent.code, absent.stdout], [1, '']);
  assert.match(absent.stderr, /app:v2, found none.*ERR_TRACE_NOT_FOUND/);
  await cliOutput(scratch, [...rm, 'r.example/team/app:v1']);
  assert.deepEqual(await cliJson(scratch, ['trace', 'ls', ...dir]), []);
});

test('what says nothing, or too much, is wrong usage', async (t) => {
  const scratch = scratchOf(t);
  const dir = ['--trace-dir', scratch.path('none')];
  for (const args of [
    ['rm', ...dir],
    ['rm', ...dir, 'abcd', '--image', 'r.example/a'],
    ['rm', '--remote', 'r.example/a'],
    ['gc', ...dir, '--max-age', '30'],
  ]) {
    assert.equal((await cli(scratch, ['trace', ...args])).code, 2, args.join(' '));
  }
  const absent = await cli(scratch, ['trace', 'pin', ...dir, 'abcd']);
  assert.match(absent.stderr, /ERR_TRACE_NOT_FOUND/);
});
