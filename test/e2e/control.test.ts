import assert from 'node:assert/strict';
import { existsSync, statSync } from 'node:fs';
import { after, before, test } from 'node:test';
import type { AttachmentReport } from '../../src/daemon/attachment.ts';
import { controlRequest } from '../../src/daemon/control-client.ts';
import { startEmbeddedRegistry } from '../../src/registry/embedded/server.ts';
import { blobFault } from '../registry/harness.ts';
import { Attached } from '../support/attached.ts';
import { cli, CliProcess, cliJson, serveRegistry } from '../support/cli.ts';
import { NbdReader } from '../../src/demo/nbd-client.ts';
import { writeWholeDiskList, type PlayOutput } from '../support/play.ts';
import { Scratch, scratchOf } from '../support/scratch.ts';
import { makeTestImage, type TestImage } from '../support/test-image.ts';

// Goal: a device can be watched, its recording ended and itself detached from outside; and a process
// that is told to end does so whatever it waits for.
// Method: `attach --frontend nbd`, its control socket, and signals at awkward moments.

const fixture = new Scratch();
let image: TestImage;

before(async () => {
  const url = await serveRegistry(fixture, fixture.path('registry'));
  image = await makeTestImage(fixture, url);
});
after(() => fixture.close());

function attachArgs(scratch: Scratch, target = image.reference): string[] {
  return [
    ...[target, '--frontend', 'nbd', '--id', 'disk', '--nbd-socket', scratch.path('nbd')],
    ...['--cache', scratch.path('cache'), '--trace-dir', scratch.path('traces')],
    ...['--socket', scratch.path('control')],
  ];
}

async function readSome(scratch: Scratch): Promise<void> {
  const reader = await NbdReader.connect(scratch.path('nbd'));
  for (let offset = 0; offset < 2 ** 23; offset += 2 ** 18) await reader.read(offset, 2 ** 18);
  await reader.close();
}

test('a recording is watched, ended and replayed', async (t) => {
  const scratch = scratchOf(t);
  const attached = await Attached.start(scratch, [...attachArgs(scratch), '--mode', 'record']);
  const { control } = attached.ready;
  assert.equal(control, scratch.path('control'));
  assert.equal(statSync(control).mode & 0o777, 0o600);
  const health = (await controlRequest(control, 'GET', '/v1/health')) as { pid: number };
  assert.equal(health.pid, attached.process.pid);
  await readSome(scratch);
  const stats = (await controlRequest(
    control,
    'GET',
    '/v1/devices/disk/stats',
  )) as AttachmentReport;
  assert.equal(stats.image, image.reference);
  assert.ok(stats.quality.touchedBytes.demand > 0);

  const metrics = String(await controlRequest(control, 'GET', '/metrics'));
  assert.match(metrics, /^replaybd_device_ready_seconds\{device="disk"\} [0-9.e-]+$/m);
  assert.match(metrics, /^replaybd_demand_read_seconds_count\{.*device="disk".*\} [1-9]/m);
  for (const line of metrics.split('\n')) {
    assert.match(line, /^$|^# (HELP|TYPE) replaybd_|^replaybd_\w+(\{.*\})? \S+$/);
  }

  const stop = () => controlRequest(control, 'POST', '/v1/devices/disk/record/stop');
  const stopped = (await stop()) as { records: number };
  assert.ok(stopped.records > 0);
  const path = stats.trace?.path ?? '';
  const trace = await cliJson<{ records: number; recording: { endReason: string } }>(scratch, [
    ...['trace', 'show', path],
  ]);
  assert.equal(trace.records, stopped.records);
  assert.equal(trace.recording.endReason, 'request');
  const sizeBytes = statSync(path).size;
  await readSome(scratch);
  await assert.rejects(controlRequest(control, 'POST', '/v1/devices/other/detach'), {
    code: 'ERR_DEVICE_UNKNOWN',
  });
  await controlRequest(control, 'POST', '/v1/devices/disk/detach');
  const report = await attached.report();
  assert.equal(report.trace?.records, stopped.records);
  assert.equal(statSync(path).size, sizeBytes, 'what comes after the end is not recorded');
  assert.ok(!existsSync(control) && !existsSync(scratch.path('nbd')));
});

test('a recording ends by itself when nothing new is read', async (t) => {
  const scratch = scratchOf(t);
  const until = ['--mode', 'record', '--until-idle', '0.2'];
  const attached = await Attached.start(scratch, [...attachArgs(scratch), ...until]);
  const { trace } = await attached.detach();
  assert.ok(trace !== null);
  const shown = await cliJson<{ recording: { endReason: string } }>(scratch, [
    ...['trace', 'show', trace.path],
  ]);
  assert.match(shown.recording.endReason, /^(idle|detach)$/);
});

test('a cache folder has one user', async (t) => {
  const scratch = scratchOf(t);
  const attached = await Attached.start(scratch, [...attachArgs(scratch), '--mode', 'off']);
  const list = scratch.path('whole-disk');
  writeWholeDiskList(list, image.virtualSizeBytes);
  const play = ['play', image.reference, '--cache', scratch.path('cache'), '--reads', list];
  const refused = await cli(scratch, play);
  assert.equal(refused.code, 1);
  assert.match(refused.stderr, /ERR_CACHE_LOCKED/);
  assert.ok(refused.stderr.includes(scratch.path('cache')));
  await attached.detach();
  assert.equal((await cliJson<PlayOutput>(scratch, play)).sha256, image.sha256);
});

test('a control socket in use is not taken away', async (t) => {
  const scratch = scratchOf(t);
  const first = await Attached.start(scratch, [...attachArgs(scratch), '--mode', 'off']);
  const second = await cli(scratch, ['attach', ...attachArgs(scratch), '--cache', 'none']);
  assert.equal(second.code, 1);
  assert.match(second.stderr, /ERR_SOCKET_IN_USE/);
  const { control } = first.ready;
  const health = (await controlRequest(control, 'GET', '/v1/health')) as { pid: number };
  assert.equal(health.pid, first.process.pid);
  await first.detach();
});

test('Ctrl-C ends an opening that hangs', async (t) => {
  const scratch = scratchOf(t);
  const registry = await startEmbeddedRegistry({ root: fixture.path('registry') });
  scratch.atEnd(() => registry.close());
  for (const kind of ['blob', 'manifest']) {
    const asked = new Promise<void>((resolve) => {
      registry.setFaults((request) => {
        if (request.kind !== kind) return undefined;
        resolve();
        return { kind: 'delay', ms: 600_000 };
      });
    });
    const target = `${registry.url}/e2e/image:v1`;
    const opening = new CliProcess(scratch, ['attach', ...attachArgs(scratch, target)]);
    await asked;
    opening.kill('SIGINT');
    const { code, stdout, stderr } = await opening.ended;
    assert.equal(code, 130, stderr);
    assert.equal(stdout, '');
    assert.ok(!existsSync(scratch.path('control')));
  }
});

// The time limit is far from what it takes, and below the minute that the server asks for.
test('a throttling registry does not keep an ended process', { timeout: 45_000 }, async (t) => {
  const scratch = scratchOf(t);
  const registry = await startEmbeddedRegistry({ root: fixture.path('registry') });
  scratch.atEnd(() => registry.close());
  const target = `${registry.url}/e2e/image:v1`;
  const attached = await Attached.start(scratch, [
    ...attachArgs(scratch, target),
    ...['--mode', 'off'],
  ]);
  const throttled = new Promise<void>((resolve) => {
    const fault = blobFault({ kind: 'status', status: 429, headers: { 'retry-after': '60' } });
    registry.setFaults((request) => {
      if (request.kind === 'blob') resolve();
      return fault(request);
    });
  });
  const reader = await NbdReader.connect(scratch.path('nbd'));
  const answers = Array.from({ length: 64 }, (_, i) => reader.read(i * 2 ** 20, 2 ** 20));
  const settled = Promise.allSettled(answers);
  await throttled;
  const report = await attached.detach();
  await settled;
  assert.ok(report.quality.misses > 0);
});
