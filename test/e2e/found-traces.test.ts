import assert from 'node:assert/strict';
import { cpSync, existsSync, rmSync } from 'node:fs';
import { after, before, test } from 'node:test';
import type { Attached } from '../support/attached.ts';
import { BOTH, FIRST, onlyTrace, runImage, startImage, storedTraces } from '../support/auto-run.ts';
import { cli, cliJson, cliOutput, serveRegistry } from '../support/cli.ts';
import { nbdRead } from '../support/nbd-read.ts';
import { Scratch, scratchOf } from '../support/scratch.ts';
import { makeTestImage, type TestImage } from '../support/test-image.ts';

// Goal: without a trace of its own, a device in mode auto finds that of its workload in the registry, or
// rebases an older image's, while it serves reads; workloads of one image do not get in each other's way.
// Method: devices over NBD from a registry of ours, each with a cold cache, on hosts with and without
// traces; a second image that differs in its upper layer.

const fixture = new Scratch();
let image: TestImage;
let url = '';

before(async () => {
  url = await serveRegistry(fixture, fixture.path('registry'));
  image = await makeTestImage(fixture, url);
});
after(() => fixture.close());

const WORDS = ['--workload', '/bin/app'];

async function buildImage(
  scratch: Scratch,
  reference: string,
  rootfs: readonly string[],
): Promise<void> {
  await cliOutput(scratch, [
    ...['image', 'build', '--push', reference, '--virtual-size', String(64 / 1024)],
    ...rootfs.flatMap((folder) => ['--rootfs', folder]),
  ]);
}

/** Of the next version: the base layer is the same, the one above it is another. */
function nextRootfs(scratch: Scratch): string[] {
  const rootfs = [fixture.path('rootfs0'), scratch.path('rootfs1')];
  cpSync(fixture.path('rootfs1'), rootfs[1], { recursive: true });
  rmSync(scratch.path('rootfs1', 'modules/eslint/README.md'));
  return rootfs;
}

/** Keeps reading until a trace was found. */
async function untilReplayed(scratch: Scratch, attached: Attached): Promise<void> {
  const mode = async () => {
    const stats = ['stats', '--socket', attached.ready.control];
    return (await cliJson<{ mode: string }>(scratch, stats)).mode;
  };
  while ((await mode()) !== 'replay') await nbdRead(scratch.path('nbd'), 0, 4096);
}

test('workloads of one image coexist, here and in the registry', async (t) => {
  const scratch = scratchOf(t);
  const dir = ['--trace-dir', scratch.path('traces')];
  const big = [...WORDS, '--workload-args', 'serve', '--workload-env', 'MODE=big'];
  await runImage(scratch, image, { read: FIRST, args: WORDS });
  await runImage(scratch, image, { read: BOTH, args: big });
  const both = await storedTraces(scratch);
  assert.deepEqual(
    new Set(both.map(({ workload }) => workload)),
    new Set(['/bin/app', 'MODE=big /bin/app serve']),
  );
  for (const words of [WORDS, big]) {
    await cliOutput(scratch, ['trace', 'push', image.reference, ...words, ...dir]);
  }
  interface Remote {
    digest: string;
    workloadKey: string;
    workload: string;
  }
  const remote = await cliJson<Remote[]>(scratch, ['trace', 'ls', image.reference]);
  assert.deepEqual(
    remote.map(({ workload, workloadKey }) => [workload, workloadKey]).sort(),
    both.map(({ workload, workloadKey }) => [workload, workloadKey]).sort(),
  );

  // Another host, which has none of them, replays its own workload's while it is in use.
  const other = scratchOf(t);
  const attached = await startImage(other, image.reference, big);
  const kept = async () => (await storedTraces(other)).some(({ origin }) => origin === 'pulled');
  while (!(await kept())) await nbdRead(other.path('nbd'), 0, 4096);
  const report = await attached.detach();
  assert.deepEqual([report.mode, report.trace?.source], ['replay', 'registry']);
  assert.ok((report.replay?.requests ?? 0) > 0, JSON.stringify(report.replay));
  const pulled = await onlyTrace(other);
  assert.deepEqual([pulled.workload, pulled.origin], ['MODE=big /bin/app serve', 'pulled']);
  assert.equal(
    report.trace?.records,
    pulled.records,
    'not those of the recording that was dropped',
  );
  assert.equal((await runImage(other, image, { read: BOTH, args: big })).trace?.source, 'store');

  // Asked to look nowhere else, it records.
  const alone = scratchOf(t);
  const own = await runImage(alone, image, {
    read: FIRST,
    args: [...big, '--trace-from', 'store'],
  });
  assert.equal(own.mode, 'record');

  // Words name what is pulled; a digest that is no trace is not removed, whatever it is.
  await cliOutput(scratch, ['trace', 'pull', image.reference, ...WORDS, '-o', scratch.path('a')]);
  const shown = await cliJson<{ workload: { entrypoint: string[]; args: string[] } }>(scratch, [
    ...['trace', 'show', scratch.path('a')],
  ]);
  assert.deepEqual([shown.workload.entrypoint, shown.workload.args], [['/bin/app'], []]);
  const rm = ['trace', 'rm', '--remote', image.reference];
  const foreign = await cli(scratch, [...rm, image.layers[0].digest]);
  assert.match(foreign.stderr, /ERR_TRACE_NOT_FOUND/);
  await cliOutput(scratch, [...rm, ...remote.map(({ digest }) => digest)]);
  assert.deepEqual(await cliJson(scratch, ['trace', 'ls', image.reference]), []);
});

test("a new image replays an older one's trace while it records its own", async (t) => {
  const scratch = scratchOf(t);
  await runImage(scratch, image, { read: BOTH });
  const [old] = await storedTraces(scratch);
  const target = `${url}/e2e/image:v2`;
  await buildImage(scratch, target, nextRootfs(scratch));
  const attached = await startImage(scratch, target);
  await untilReplayed(scratch, attached);
  await nbdRead(scratch.path('nbd'), BOTH.offset, BOTH.length);
  const report = await attached.detach();
  assert.equal(report.trace?.source, 'older');
  assert.ok((report.replay?.requests ?? 0) > 0, JSON.stringify(report.replay));
  const now = await storedTraces(scratch);
  const own = now.find(({ imageKey }) => imageKey !== old.imageKey);
  assert.deepEqual([own?.image, own?.origin], [target, 'recorded']);
  assert.ok(existsSync(old.path));
  const again = await startImage(scratch, target);
  assert.equal((await again.detach()).trace?.source, 'store');
});

test("a host that knows nothing finds an older image's trace by the repository's tags", async (t) => {
  const first = scratchOf(t);
  const repository = `${url}/e2e/upgraded`;
  const rootfs = [fixture.path('rootfs0'), fixture.path('rootfs1')];
  await buildImage(first, `${repository}:v1`, rootfs);
  const recording = await startImage(first, `${repository}:v1`, WORDS);
  await nbdRead(first.path('nbd'), BOTH.offset, BOTH.length);
  assert.equal((await recording.detach()).mode, 'record');
  const dir = ['--trace-dir', first.path('traces')];
  await cliOutput(first, ['trace', 'push', `${repository}:v1`, ...WORDS, ...dir]);
  await buildImage(first, `${repository}:v2`, nextRootfs(first));

  const other = scratchOf(t);
  assert.deepEqual(await storedTraces(other), []);
  const attached = await startImage(other, `${repository}:v2`, WORDS);
  await untilReplayed(other, attached);
  await nbdRead(other.path('nbd'), BOTH.offset, BOTH.length);
  const report = await attached.detach();
  assert.equal(report.trace?.source, 'older');
  assert.ok((report.replay?.requests ?? 0) > 0, JSON.stringify(report.replay));
  const own = await onlyTrace(other);
  assert.deepEqual([own.image, own.origin], [`${repository}:v2`, 'recorded']);
});
