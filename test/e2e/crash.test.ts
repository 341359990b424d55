import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { existsSync, mkdirSync, readdirSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import type { AttachmentReport } from '../../src/daemon/attachment.ts';
import { controlRequest } from '../../src/daemon/control-client.ts';
import { defaultRuntimeDirectory } from '../../src/frontend/fuse/runtime-directory.ts';
import { Attached, leftovers } from '../support/attached.ts';
import { CliProcess, cliJson, cliOutput, serveRegistry } from '../support/cli.ts';
import { needs } from '../support/needs.ts';
import { writeWholeDiskList, type PlayOutput } from '../support/play.ts';
import { Scratch, scratchOf } from '../support/scratch.ts';
import { makeTestImage, sha256OfFile, type TestImage } from '../support/test-image.ts';

// Goal: a process that is killed at any time costs nothing but its work: the next one clears away what
// it left, trusts only what is sound in its cache and its traces, and serves the right bytes.
// Method: SIGKILL while recording, while filling the cache, and while replaying, each over a link slow
// enough to be met half way; then the whole disk by its digest, from the same cache.

const skip = needs('root', 'dd');
/** Slow enough that the image's layers take some seconds. */
const SLOW = ['--latency', '2', '--rate', '1000000'];
const fixture = new Scratch();
let url = '';
let slowUrl = '';
let image: TestImage;

before(async () => {
  const root = fixture.path('registry');
  url = await serveRegistry(fixture, root);
  image = await makeTestImage(fixture, url);
  slowUrl = await serveRegistry(fixture, root, ...SLOW);
  writeWholeDiskList(fixture.path('whole-disk'), image.virtualSizeBytes);
});
after(() => fixture.close());

function folders(scratch: Scratch): string[] {
  return ['--cache', scratch.path('cache'), '--trace-dir', scratch.path('traces')];
}

/** The control socket's place stays the same, so that a killed process's file is in the way. */
function attachArgs(scratch: Scratch, mount: string): string[] {
  const socket = ['--socket', scratch.path('control')];
  return ['--frontend', 'fuse', ...folders(scratch), '--mount', mount, ...socket];
}

/** The same image by the slow link. */
function slowReference(): string {
  return image.reference.replace(url, slowUrl);
}

/** Reads the whole disk with the cache that a killed process left. */
async function assertDiskIsSound(scratch: Scratch): Promise<PlayOutput> {
  const played = await cliJson<PlayOutput>(scratch, [
    ...['play', image.reference, ...folders(scratch)],
    ...['--reads', fixture.path('whole-disk'), '--concurrency', '4'],
  ]);
  assert.equal(played.sha256, image.sha256);
  assert.equal(played.report.quality.missErrors, 0);
  return played;
}

/** Bytes that a cache folder takes on disk. */
function allocatedBytes(folder: string): number {
  if (!existsSync(folder)) return 0;
  const names = readdirSync(folder, { recursive: true, encoding: 'utf8' });
  return names.reduce((sum, name) => sum + statSync(join(folder, name)).blocks * 512, 0);
}

test('killed while it fills the cache, again and again', async (t) => {
  const scratch = scratchOf(t);
  const cache = scratch.path('cache');
  const args = ['play', slowReference(), ...folders(scratch), '--reads'];
  for (const filledBytes of [100_000, 600_000, 1_200_000]) {
    const filling = new CliProcess(scratch, [...args, fixture.path('whole-disk')]);
    while (allocatedBytes(cache) < filledBytes) await sleep(10);
    filling.kill('SIGKILL');
    assert.equal((await filling.ended).signal, 'SIGKILL', 'it was not done before');
  }
  await assertDiskIsSound(scratch);
});

test('killed while it records: mount and loop go, the trace stays', { skip }, async (t) => {
  const scratch = scratchOf(t);
  const mount = scratch.path('mount');
  mkdirSync(mount);
  const common = attachArgs(scratch, mount);
  const trace = scratch.path('run.trace');
  const recording = await Attached.start(scratch, [
    ...[slowReference(), ...common, '--mode', 'record', '--trace', trace],
  ]);
  const reader = readWithoutEnd(scratch, recording.ready.path);
  // The first checkpoint is due after two seconds.
  while (!existsSync(trace)) await sleep(20);
  await recording.crash();
  await reader;
  const facts = await cliJson<{ records: number }>(scratch, ['trace', 'verify', trace]);
  assert.ok(facts.records > 0);
  await assertRecovered(scratch, recording, mount, common);
  // A checkpoint is a trace like any other.
  const replayed = await cliJson<PlayOutput>(scratch, [
    ...['play', image.reference, '--cache', 'none', '--mode', 'replay', '--trace', trace],
    ...['--reads', fixture.path('whole-disk')],
  ]);
  assert.equal(replayed.report.mode, 'replay');
  assert.equal(replayed.sha256, image.sha256);
});

test('killed while it replays', { skip }, async (t) => {
  const scratch = scratchOf(t);
  const mount = scratch.path('mount');
  mkdirSync(mount);
  const trace = scratch.path('run.trace');
  await cliOutput(scratch, [
    ...['play', image.reference, '--cache', 'none', '--mode', 'record', '--trace', trace],
    ...['--reads', fixture.path('whole-disk')],
  ]);
  const common = attachArgs(scratch, mount);
  const replaying = await Attached.start(scratch, [
    ...[slowReference(), ...common, '--mode', 'replay', '--trace', trace],
  ]);
  const { control, id } = replaying.ready;
  const path = `/v1/devices/${id}/stats`;
  let stats: AttachmentReport;
  do {
    await sleep(20);
    stats = (await controlRequest(control, 'GET', path)) as AttachmentReport;
  } while (stats.quality.lanes.prefetch.bytes < 500_000);
  assert.equal(stats.replay?.end, null, 'the replay is under way');
  await replaying.crash();
  await assertRecovered(scratch, replaying, mount, common);
});

/** Reads a device from its start until it ends or fails. */
async function readWithoutEnd(scratch: Scratch, device: string): Promise<void> {
  const reader = spawn('dd', [`if=${device}`, 'of=/dev/null', 'bs=64k'], { stdio: 'ignore' });
  scratch.atEnd(() => reader.kill('SIGKILL'));
  await new Promise((resolve) => reader.once('exit', resolve));
}

/** The next attach, of whatever device, removes what a killed one left and mounts in its place. */
async function assertRecovered(
  scratch: Scratch,
  killed: Attached,
  mount: string,
  common: readonly string[],
): Promise<void> {
  const runtimeFolder = `${defaultRuntimeDirectory()}/${killed.process.pid}-${killed.ready.id}`;
  // Another test may attach a device at this very moment.
  const isRecovered = (): boolean => !existsSync(runtimeFolder);
  const isLeft = leftovers(mount, runtimeFolder).length > 0 || isRecovered();
  assert.ok(isLeft, 'a kill leaves a mount and a loop device');
  const next = await Attached.start(scratch, [image.reference, ...common, '--mode', 'off']);
  assert.deepEqual(leftovers(runtimeFolder), []);
  assert.ok(isRecovered());
  assert.equal(leftovers(mount).length, 1, 'only the new file system is mounted there');
  assert.ok(existsSync(join(mount, 'modules/eslint/package.json')));
  assert.equal(await sha256OfFile(next.ready.path), image.sha256);
  await next.detach();
  assert.deepEqual(leftovers(mount), []);
}
