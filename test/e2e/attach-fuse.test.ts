import assert from 'node:assert/strict';
import { cpSync, existsSync, mkdirSync, writeFileSync } from 'node:fs';
import { after, before, test } from 'node:test';
import type { AttachmentReport } from '../../src/daemon/attachment.ts';
import { controlRequest } from '../../src/daemon/control-client.ts';
import { defaultRuntimeDirectory } from '../../src/frontend/fuse/runtime-directory.ts';
import { describeTree, makeTree } from '../image/ext4-tree.ts';
import { Attached, leftovers } from '../support/attached.ts';
import { CliProcess, cliJson, serveRegistry } from '../support/cli.ts';
import { needs } from '../support/needs.ts';
import { output, run } from '../support/programs.ts';
import { Scratch, scratchOf } from '../support/scratch.ts';
import { makeRootfs, makeTestImage, sha256OfFile, type TestImage } from '../support/test-image.ts';

// Goal: an image attached from a registry through FUSE, a loop device and ext4 gives exactly the files
// it was built of; what a recorded run read is there before a replayed one asks; nothing stays behind.
// Method: one of every kind of file and a file laid out by fio, built, pushed and attached by the
// command line tool, in processes of their own.

const skip = needs('root', 'fio', 'setfattr', 'cmp', 'dd');
const fixture = new Scratch();
let image: TestImage;
let expectedTree: string[] = [];

const FIO_FILE = ['--size=2M', '--bs=64k', '--verify=crc32c', '--verify_state_save=0'];

before(async () => {
  if (skip !== false) return;
  const [odd, ...real] = [fixture.path('odd'), ...makeRootfs(fixture)];
  mkdirSync(odd);
  makeTree(odd);
  const target = `${odd}/verified`;
  await output('fio', '--name=lay', `--filename=${target}`, '--rw=write', ...FIO_FILE);
  const url = await serveRegistry(fixture, fixture.path('registry'));
  image = await makeTestImage(fixture, url, [odd, ...real], 128);
  const merged = fixture.path('merged');
  // Every ext4 has one, and it counts among the links of the root.
  mkdirSync(`${merged}/lost+found`, { recursive: true });
  for (const folder of [odd, ...real]) await output('cp', '-a', `${folder}/.`, merged);
  expectedTree = describeTree(merged);
});
after(() => fixture.close());

interface Place {
  cache: string;
  mount: string;
  args: string[];
}

/** Folders of a test, and the arguments that make `attach` use them. */
function placeOf(scratch: Scratch, name: string): Place {
  const [cache, mount] = [scratch.path(`cache-${name}`), scratch.path(`mount-${name}`)];
  mkdirSync(mount);
  const args = ['--cache', cache, '--trace-dir', scratch.path('traces'), '--mount', mount];
  return { cache, mount, args: [image.reference, '--frontend', 'fuse', ...args] };
}

async function untilReplayEnds(attached: Attached): Promise<void> {
  const { control, id } = attached.ready;
  for (;;) {
    const stats = (await controlRequest(
      control,
      'GET',
      `/v1/devices/${id}/stats`,
    )) as AttachmentReport;
    assert.ok(stats.replay !== null, 'a replay is under way');
    if (stats.replay.end !== null) return;
  }
}

function assertSameTree(folder: string): void {
  const found = describeTree(folder);
  const differences = [
    ...expectedTree.filter((line) => !found.includes(line)).map((line) => `- ${line}`),
    ...found.filter((line) => !expectedTree.includes(line)).map((line) => `+ ${line}`),
  ];
  assert.deepEqual(differences.map((line) => line.slice(0, 300)).slice(0, 10), []);
}

function assertNothingLeft({ ready, process }: Attached, place: Place): void {
  const runtimeFolder = `${defaultRuntimeDirectory()}/${process.pid}-${ready.id}`;
  assert.deepEqual(leftovers(place.mount, runtimeFolder), []);
  assert.ok(!existsSync(runtimeFolder), 'the runtime folder is gone');
  assert.ok(!existsSync(ready.control), 'the control socket is gone');
}

test('files and blocks are those of the source', { skip }, async (t) => {
  const scratch = scratchOf(t);
  const place = placeOf(scratch, 'record');
  const attached = await Attached.start(scratch, [...place.args, '--mode', 'record']);
  const { ready } = attached;
  assert.equal(ready.mode, 'record');
  assert.equal(ready.virtualSizeBytes, image.virtualSizeBytes);
  assert.equal(ready.mount, place.mount);
  assert.match(ready.path, /^\/dev\/loop\d+$/);
  assertSameTree(place.mount);
  await output('cmp', ready.path, image.raw);
  const report = await attached.detach();
  assert.equal(report.image, image.reference);
  assert.equal(report.layers, 3);
  assert.equal(report.quality.missErrors, 0);
  assert.ok(report.trace !== null && report.trace.records > 0);
  assertNothingLeft(attached, place);
});

test('fio verifies what it wrote before the image was built', { skip }, async (t) => {
  const scratch = scratchOf(t);
  const place = placeOf(scratch, 'fio');
  const attached = await Attached.start(scratch, [...place.args, '--mode', 'off']);
  const verify = ['--name=verify', '--rw=randread', '--readonly', ...FIO_FILE];
  await output('fio', ...verify, `--filename=${place.mount}/verified`);
  // A check that cannot fail proves nothing: one byte changed is found.
  const altered = scratch.path('altered');
  cpSync(`${place.mount}/verified`, altered);
  await output(
    'dd',
    'if=/dev/zero',
    `of=${altered}`,
    'bs=1',
    'count=1',
    'seek=99999',
    'conv=notrunc',
  );
  assert.notEqual((await run('fio', ...verify, `--filename=${altered}`)).code, 0);
  await attached.detach('SIGINT');
  assertNothingLeft(attached, place);
});

test('nothing can be written', { skip }, async (t) => {
  const scratch = scratchOf(t);
  const place = placeOf(scratch, 'write');
  const attached = await Attached.start(scratch, [...place.args, '--mode', 'off']);
  assert.throws(() => writeFileSync(`${place.mount}/a/hello`, 'other'), { code: 'EROFS' });
  assert.throws(() => mkdirSync(`${place.mount}/new`), { code: 'EROFS' });
  const { path } = attached.ready;
  const write = await run('dd', 'if=/dev/zero', `of=${path}`, 'bs=4096', 'count=1', 'oflag=direct');
  assert.equal(write.code, 1);
  assert.match(write.stderr, /Operation not permitted|Read-only file system/);
  assert.equal(await sha256OfFile(path), image.sha256);
  await attached.detach();
});

test('a second cold start finds what the first one read', { skip }, async (t) => {
  const scratch = scratchOf(t);
  const args = ['--mode', 'auto', '--workload', 'walk'];
  const first = placeOf(scratch, 'first');
  const recording = await Attached.start(scratch, [...first.args, ...args]);
  assert.equal(recording.ready.mode, 'record');
  assertSameTree(first.mount);
  const recorded = await recording.detach();
  assert.equal(recorded.quality.coverage, 0);
  assert.ok(recorded.trace !== null);
  const { path, records } = recorded.trace;
  const verified = await cliJson<{ records: number }>(scratch, ['trace', 'verify', path]);
  assert.equal(verified.records, records);

  const second = placeOf(scratch, 'second');
  const replaying = await Attached.start(scratch, [...second.args, ...args]);
  assert.equal(replaying.ready.mode, 'replay');
  await untilReplayEnds(replaying);
  assertSameTree(second.mount);
  const { replay, quality } = await replaying.detach();
  assert.equal(replay?.end, 'complete');
  assert.ok(quality.coverage !== null && quality.coverage >= 0.99, JSON.stringify(quality));
  assert.ok(quality.lanes.demand.requests <= 8, `${quality.lanes.demand.requests} on demand`);
  assert.equal(quality.missErrors, 0);
  assertNothingLeft(replaying, second);
});

test('neighbours leave each other alone', { skip }, async (t) => {
  const scratch = scratchOf(t);
  const [one, two] = [placeOf(scratch, 'one'), placeOf(scratch, 'two')];
  const first = await Attached.start(scratch, [...one.args, '--mode', 'off']);
  const second = await Attached.start(scratch, [...two.args, '--mode', 'off']);
  assert.notEqual(first.ready.path, second.ready.path);
  await first.detach();
  assertNothingLeft(first, one);
  assert.equal(await sha256OfFile(second.ready.path), image.sha256);
  await second.detach();
  assertNothingLeft(second, two);
});

test('a mount that cannot be made leaves nothing', { skip }, async (t) => {
  const scratch = scratchOf(t);
  const place = placeOf(scratch, 'gone');
  const missing = scratch.path('no', 'such', 'folder');
  const args = [...place.args, '--mount', missing, '--id', 'unmountable'];
  const process = new CliProcess(scratch, ['attach', ...args]);
  const { code, stderr } = await process.ended;
  assert.equal(code, 1);
  assert.match(stderr, /ERR_ENOENT/);
  const runtimeFolder = `${defaultRuntimeDirectory()}/${process.pid}-unmountable`;
  assert.deepEqual(leftovers(missing, runtimeFolder), []);
  assert.ok(!existsSync(runtimeFolder));
});
