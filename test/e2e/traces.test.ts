import assert from 'node:assert/strict';
import { copyFileSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { after, before, test } from 'node:test';
import { decodeTrace } from '../../src/trace/decode.ts';
import { waitedUs, warmTimeUs } from '../../src/trace/trace.ts';
import { cli, cliJson, cliOutput, serveRegistry } from '../support/cli.ts';
import { writeWholeDiskList, type PlayOutput } from '../support/play.ts';
import { Scratch, scratchOf } from '../support/scratch.ts';
import { makeTestImage, type TestImage } from '../support/test-image.ts';

// Goal: a trace can only help. One that is damaged, of another image or larger than the budget changes
// how fast bytes come, and never which.
// Method: one recording of the whole disk, spoilt in different ways, and replayed with a cold cache.

const fixture = new Scratch();
let url = '';
let image: TestImage;

before(async () => {
  url = await serveRegistry(fixture, fixture.path('registry'));
  image = await makeTestImage(fixture, url);
  writeWholeDiskList(fixture.path('whole-disk'), image.virtualSizeBytes);
  await cliOutput(fixture, playArgs('--mode', 'record', '--trace', fixture.path('good.trace')));
});
after(() => fixture.close());

function playArgs(...more: string[]): string[] {
  const list = ['--reads', fixture.path('whole-disk')];
  return ['play', image.reference, '--cache', 'none', ...list, ...more];
}

async function replay(scratch: Scratch, trace: string, ...more: string[]): Promise<PlayOutput> {
  const args = playArgs('--mode', 'replay', '--trace', trace, ...more);
  const played = await cliJson<PlayOutput>(scratch, args);
  assert.equal(played.sha256, image.sha256);
  assert.equal(played.report.quality.missErrors, 0);
  return played;
}

test('a good trace fetches everything ahead or in time', async (t) => {
  const { report } = await replay(scratchOf(t), fixture.path('good.trace'));
  assert.equal(report.mode, 'replay');
  assert.ok((report.quality.coverage ?? 0) > 0.5, JSON.stringify(report.quality));
});

test('a recording tells what was waited for the network, and a warm one waits for nothing', async (t) => {
  const scratch = scratchOf(t);
  const [cold, warm] = [scratch.path('cold.trace'), scratch.path('warm.trace')];
  const reads = ['--reads', fixture.path('whole-disk'), '--cache', scratch.path('cache')];
  for (const trace of [cold, warm]) {
    await cliOutput(scratch, [
      ...['play', image.reference, ...reads, '--mode', 'record', '--trace', trace],
    ]);
  }
  const traces = [cold, warm].map((path) => decodeTrace(readFileSync(path), path));
  const [coldUs, warmUs] = traces.map(({ records }) => waitedUs(records));
  assert.ok(coldUs > 0, 'the cold run waited');
  assert.equal(warmUs, 0);
  for (const { records, plan } of traces) {
    const lastUs = warmTimeUs(records, records.count - 1);
    assert.ok(plan.dueUs[plan.count - 1] <= lastUs, 'the plan is on the warm axis');
  }
  assert.match(await cliOutput(scratch, ['trace', 'show', cold]), /waited [\d.]+ s for bytes/);
});

test('a damaged trace is told and not used', async (t) => {
  const scratch = scratchOf(t);
  const good = readFileSync(fixture.path('good.trace'));
  const damaged: Record<string, Buffer> = {
    cut: good.subarray(0, good.length / 2),
    empty: Buffer.of(),
    flipped: Buffer.from(good.map((byte, i) => (i === good.length >> 1 ? byte ^ 1 : byte))),
    other: Buffer.from('{"lowers":[]}'),
  };
  for (const [name, bytes] of Object.entries(damaged)) {
    const path = scratch.path(`${name}.trace`);
    writeFileSync(path, bytes);
    assert.equal((await cli(scratch, ['trace', 'verify', path])).code, 1);
    const { code, stdout, stderr } = await cli(scratch, [
      ...playArgs('--mode', 'replay', '--trace', path, '--json'),
    ]);
    assert.equal(code, 0, stderr);
    assert.ok(stderr.includes(path) && /ERR_TRACE_\w+/.test(stderr), 'the file is named');
    const played = JSON.parse(stdout) as PlayOutput;
    assert.equal(played.report.mode, 'off');
    assert.equal(played.sha256, image.sha256);
  }
});

test("another image's trace does no harm", async (t) => {
  const scratch = scratchOf(t);
  const rootfs = scratch.path('rootfs');
  mkdirSync(rootfs);
  copyFileSync(process.execPath, `${rootfs}/node`);
  const reference = `${url}/e2e/other:v1`;
  await cliOutput(scratch, ['image', 'build', '--rootfs', rootfs, '--push', reference]);
  const trace = scratch.path('other.trace');
  writeFileSync(scratch.path('reads'), '0 1048576\n33554432 1048576\n');
  await cliOutput(scratch, [
    ...['play', reference, '--cache', 'none', '--reads', scratch.path('reads')],
    ...['--mode', 'record', '--trace', trace],
  ]);
  const { report } = await replay(scratch, trace);
  assert.equal(report.quality.lanes.prefetch.bytes, 0, 'no layer of the trace is in the image');
});

test('a replay keeps its budget', async (t) => {
  const { report } = await replay(scratchOf(t), fixture.path('good.trace'), '--budget', '1');
  assert.equal(report.replay?.end, 'budget');
  assert.ok(report.quality.lanes.prefetch.bytes <= 2 ** 20);
  assert.ok(report.quality.lanes.demand.bytes > 0, 'the rest is fetched on demand');
});
