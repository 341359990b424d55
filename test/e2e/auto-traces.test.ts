import assert from 'node:assert/strict';
import { readFileSync, writeFileSync } from 'node:fs';
import { after, before, test } from 'node:test';
import { BOTH, FIRST, onlyTrace, SECOND, runImage, startImage } from '../support/auto-run.ts';
import { cliOutput, serveRegistry } from '../support/cli.ts';
import { nbdRead } from '../support/nbd-read.ts';
import { Scratch, scratchOf } from '../support/scratch.ts';
import { makeTestImage, type TestImage } from '../support/test-image.ts';

// Goal: mode auto looks after its traces by itself: it records when there is none, records anew what has
// become stale, and keeps what is good, pinned, or better than what a start that was broken off gives.
// Method: devices over NBD from a registry of ours, each with a cold cache, reading one part of the disk
// or another; the store is looked into with the trace commands.

const fixture = new Scratch();
let image: TestImage;

before(async () => {
  const url = await serveRegistry(fixture, fixture.path('registry'));
  image = await makeTestImage(fixture, url);
});
after(() => fixture.close());

const WORDS = ['--workload', '/bin/app'];
/** Recording anew ends by itself after 10 s, in which a busy host may not have read all. */
const UNHURRIED = [...WORDS, '--time-limit', '600'];

test('a stale trace is recorded anew beside its replay, a good one is kept', async (t) => {
  const scratch = scratchOf(t);
  const recorded = await runImage(scratch, image, { read: FIRST, args: WORDS });
  assert.equal(recorded.mode, 'record');
  const first = await onlyTrace(scratch);
  assert.equal(first.workload, '/bin/app');
  assert.equal(first.image, image.reference);
  assert.equal(first.origin, 'recorded');
  assert.equal(first.lastUsedAt, null);

  // The workload reads something else than it did, for however long it is measured.
  const poor = await runImage(scratch, image, { read: SECOND, args: WORDS });
  assert.deepEqual([poor.mode, poor.renewal, poor.trace?.source], ['replay', null, 'store']);
  const measured = await onlyTrace(scratch);
  assert.ok((measured.lastPlanned ?? 1) < 0.8, JSON.stringify(measured));
  assert.equal(measured.recordedAt, first.recordedAt);

  const renewed = await runImage(scratch, image, { read: BOTH, args: UNHURRIED });
  assert.deepEqual([renewed.mode, renewed.renewal], ['replay', 'coverage']);
  const second = await onlyTrace(scratch);
  assert.notEqual(second.recordedAt, first.recordedAt);
  assert.deepEqual(second.runs, [], 'how the old trace did is forgotten with it');

  const good = await runImage(scratch, image, { read: BOTH, args: WORDS });
  assert.deepEqual([good.mode, good.renewal], ['replay', null]);
  const last = await onlyTrace(scratch);
  assert.equal(last.recordedAt, second.recordedAt);
  assert.ok((last.lastPlanned ?? 0) >= 0.8, JSON.stringify(last));

  // By age it is stale, but a start that is broken off replaces nothing; nor is what is pinned replaced.
  const old = [...UNHURRIED, '--trace-max-age-days', '0.0000001'];
  const short = { offset: 0, length: 65_536 };
  assert.equal((await runImage(scratch, image, { read: short, args: old })).renewal, 'age');
  assert.equal((await onlyTrace(scratch)).recordedAt, second.recordedAt);
  const off = await runImage(scratch, image, { read: short, args: [...old, '--no-renew'] });
  assert.equal(off.renewal, null);
  await cliOutput(scratch, ['trace', 'pin', '--trace-dir', scratch.path('traces'), last.key]);
  assert.equal((await runImage(scratch, image, { read: BOTH, args: old })).renewal, null);
  assert.equal((await onlyTrace(scratch)).recordedAt, second.recordedAt);
});

test('killed while it records anew: the old trace stays, and a checkpoint is renewed', async (t) => {
  const scratch = scratchOf(t);
  await runImage(scratch, image, { read: FIRST });
  const { path, recordedAt } = await onlyTrace(scratch);
  const bytes = readFileSync(path);
  const attached = await startImage(scratch, image.reference, [
    '--trace-max-age-days',
    '0.0000001',
  ]);
  // What the trace covers: a measured replay of more would make it stale.
  await nbdRead(scratch.path('nbd'), FIRST.offset, FIRST.length);
  await attached.crash();
  assert.deepEqual(readFileSync(path), bytes);
  assert.equal((await runImage(scratch, image, { read: FIRST })).mode, 'replay');
  assert.equal((await onlyTrace(scratch)).recordedAt, recordedAt);
  // Damage beside the trace is no obstacle.
  writeFileSync(path.replace(/\.trace$/, '.json'), '{"version":1,"mark":[]');
  assert.equal((await runImage(scratch, image, { read: FIRST })).mode, 'replay');
  assert.equal((await onlyTrace(scratch)).runs.length, 1);
});

test('a start that reads nothing leaves no trace that a later one would replay', async (t) => {
  const scratch = scratchOf(t);
  const idle = await startImage(scratch, image.reference);
  assert.equal((await idle.detach()).mode, 'record');
  assert.equal((await runImage(scratch, image, { read: FIRST })).mode, 'record');
  assert.equal((await runImage(scratch, image, { read: FIRST })).mode, 'replay');
});
