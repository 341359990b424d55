import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { cpSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { packageRoot } from '../../src/base/package-root.ts';
import { controlRequest } from '../../src/daemon/control-client.ts';
import type { ForkFacts } from '../../src/daemon/fork.ts';
import type { SnapshotFacts } from '../../src/daemon/live-upper.ts';
import type { ResizeFacts } from '../../src/daemon/served-device.ts';
import { Attached } from '../support/attached.ts';
import { cli, cliJson, cliOutput, serveRegistry } from '../support/cli.ts';
import { needs } from '../support/needs.ts';
import { output, run } from '../support/programs.ts';
import { Scratch, scratchOf } from '../support/scratch.ts';
import { makeTestImage, sha256OfFile, type TestImage } from '../support/test-image.ts';

// Goal: an image attached with --upper through FUSE, a loop device and ext4 takes all that a file
// system and fio write, keeps it, and goes on under both while snapshots are taken of it.
// Method: the command line tool in processes of their own; fio's verification, e2fsck, diff.

const skip = needs('root', 'fio', 'e2fsck', 'diff');
const growSkip = needs('root', 'fio', 'e2fsck', 'resize2fs', 'blockdev');
const KINDS = ['append', 'sparse'] as const;
const fixture = new Scratch();
let image: TestImage;

before(async () => {
  if (skip !== false) return;
  const rootfs = fixture.path('rootfs');
  cpSync(join(packageRoot, 'node_modules/pino'), join(rootfs, 'pino'), { recursive: true });
  const url = await serveRegistry(fixture, fixture.path('registry'));
  image = await makeTestImage(fixture, url, [rootfs], 64);
});
after(() => fixture.close());

function attachArgs(scratch: Scratch, ...more: string[]): string[] {
  const folders = ['--cache', scratch.path('cache'), '--upper', scratch.path('upper')];
  return [image.reference, ...folders, '--mode', 'off', ...more];
}

/** Writes and verifies a part of a device or a file; several kinds of writes at once. */
function fioArgs(scratch: Scratch, target: string, ...more: string[]): string[] {
  return [
    ...['--name=verify', `--filename=${target}`, '--ioengine=libaio', '--direct=1'],
    ...['--rw=randwrite', '--bsrange=512-64k', '--blockalign=512', '--iodepth=8', '--size=16m'],
    ...['--verify=crc32c', '--verify_state_save=0', `--aux-path=${scratch.folder}`, ...more],
  ];
}

async function assertClean(device: string): Promise<void> {
  const { code, stdout } = await run('e2fsck', '-fn', device);
  assert.equal(code, 0, stdout);
}

for (const kind of KINDS) {
  test(`fio, mkfs and a reopen, ${kind}`, { skip }, async (t) => {
    const scratch = scratchOf(t);
    const args = attachArgs(scratch, '--upper-kind', kind);
    const first = await Attached.start(scratch, args);
    const { path } = first.ready;
    await output('fio', ...fioArgs(scratch, path, '--fsync=50'));
    await output('mkfs.ext4', '-q', '-F', path);
    const [mount, tree] = [scratch.path('mount'), join(packageRoot, 'node_modules/undici')];
    mkdirSync(mount);
    await output('mount', path, mount);
    try {
      cpSync(tree, join(mount, 'undici'), { recursive: true });
      await output('fio', ...fioArgs(scratch, join(mount, 'file')));
      await output('fstrim', mount);
    } finally {
      await output('umount', mount);
    }
    await assertClean(path);
    const digest = await sha256OfFile(path);
    const { upper } = await first.detach();
    assert.ok(upper !== null && upper.kind === kind);
    assert.ok(upper.writtenBytes > 16 * 2 ** 20 && upper.flushes > 0 && upper.discardedBytes > 0);

    const second = await Attached.start(scratch, args);
    assert.equal(await sha256OfFile(second.ready.path), digest, 'discards stay hidden');
    await output('mount', '-o', 'ro,noload', second.ready.path, mount);
    const compared = await run('diff', '-r', tree, join(mount, 'undici'));
    await output('umount', mount);
    assert.equal(compared.code, 0, compared.stdout);
    await second.detach('SIGINT');
  });
}

for (const kind of KINDS) {
  test(`a disk grows under a mounted file system, ${kind}`, { skip: growSkip }, async (t) => {
    const scratch = scratchOf(t);
    const args = attachArgs(scratch, '--upper-kind', kind, '--id', 'growing');
    const first = await Attached.start(scratch, args);
    const { path, virtualSizeBytes } = first.ready;
    await output('mkfs.ext4', '-q', '-F', path);
    const mount = scratch.path('mount');
    mkdirSync(mount);
    await output('mount', path, mount);
    const large = join(mount, 'large');
    try {
      writeFileSync(join(mount, 'before'), 'there');
      const fio = output('fio', ...fioArgs(scratch, join(mount, 'file')));
      for (const factor of [2, 4]) {
        const size = String((factor * virtualSizeBytes) / 2 ** 30);
        const resized = await cliJson<ResizeFacts>(scratch, [
          ...['resize', '--device', 'growing', '--size', size],
        ]);
        assert.equal(resized.virtualSizeBytes, factor * virtualSizeBytes);
        assert.equal(
          Number(await output('blockdev', '--getsize64', path)),
          factor * virtualSizeBytes,
        );
      }
      await fio;
    } finally {
      await output('umount', mount);
    }
    // Unmounted, as the kernel grows a mounted one for holders of CAP_SYS_RESOURCE only.
    await output('e2fsck', '-fp', path);
    await output('resize2fs', path);
    await output('mount', path, mount);
    try {
      cpSync(image.raw, large);
      cpSync(image.raw, `${large}-2`);
    } finally {
      await output('umount', mount);
    }
    const refused = await cli(scratch, ['resize', '--device', 'growing', '--size', '0.01']);
    assert.equal(refused.code, 1);
    assert.match(refused.stderr, /ERR_RESIZE_SHRINK/);
    await assertClean(path);
    await first.detach();
    const second = await Attached.start(scratch, args);
    assert.equal(second.ready.virtualSizeBytes, 4 * virtualSizeBytes);
    await output('mount', '-o', 'ro', second.ready.path, mount);
    try {
      assert.equal(readFileSync(join(mount, 'before'), 'utf8'), 'there');
      assert.equal(await sha256OfFile(`${large}-2`), image.sha256);
    } finally {
      await output('umount', mount);
    }
    await second.detach();
  });
}

test('the image is mounted, changed by hand, and keeps the changes', { skip }, async (t) => {
  const scratch = scratchOf(t);
  const mount = scratch.path('mount');
  mkdirSync(mount);
  const args = attachArgs(scratch, '--mount', mount);
  const first = await Attached.start(scratch, args);
  writeFileSync(join(mount, 'hello'), 'world');
  const changed = join(mount, 'pino', 'package.json');
  writeFileSync(changed, '{}');
  // Not synced: detaching has to.
  const { upper } = await first.detach();
  assert.ok(upper !== null && upper.writtenBytes > 0 && upper.writtenBytes < 2 ** 20);
  const second = await Attached.start(scratch, args);
  assert.equal(readFileSync(join(mount, 'hello'), 'utf8'), 'world');
  assert.equal(readFileSync(changed, 'utf8'), '{}');
  await assertClean(second.ready.path);
  await second.detach();
  const clean = await Attached.start(scratch, [
    ...[image.reference, '--cache', scratch.path('cache'), '--mode', 'off'],
  ]);
  assert.equal(await sha256OfFile(clean.ready.path), image.sha256, 'the image itself is unchanged');
  await clean.detach();
});

test('snapshots and a fork under a running fio', { skip }, async (t) => {
  const scratch = scratchOf(t);
  const attached = await Attached.start(scratch, attachArgs(scratch, '--id', 'live'));
  const { path, control } = attached.ready;
  const fio = spawn('fio', fioArgs(scratch, path, '--loops=2', '--fsync=100', '--rate=12m'), {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  let text = '';
  fio.stdout.setEncoding('utf8').on('data', (chunk: string) => (text += chunk));
  const ended = new Promise<number | null>((resolve) => fio.once('exit', resolve));
  scratch.atEnd(() => fio.kill('SIGKILL'));
  const snapshots: SnapshotFacts[] = [];
  snapshots.push(await cliJson<SnapshotFacts>(scratch, ['snapshot', control]));
  while (fio.exitCode === null && snapshots.length < 20) {
    const facts = await controlRequest(control, 'POST', '/v1/devices/live/snapshot');
    snapshots.push(facts as SnapshotFacts);
    await sleep(50);
  }
  assert.equal(await ended, 0, text);
  assert.match(text, /err= 0/);
  assert.ok(snapshots.length >= 2, `${snapshots.length} snapshots`);
  assert.equal(snapshots.at(-1)?.lowers, 1 + snapshots.length);

  const digest = await sha256OfFile(path);
  const folder = scratch.path('fork');
  const fork = await cliJson<ForkFacts>(scratch, ['fork', control, folder]);
  const listed = (await controlRequest(control, 'GET', '/v1/devices')) as { upper: unknown }[];
  assert.ok(listed[0]?.upper !== null);
  const other = await Attached.start(scratch, [
    ...[fork.config, '--cache', scratch.path('other-cache'), '--mode', 'off'],
  ]);
  assert.equal(await sha256OfFile(other.ready.path), digest, 'the fork has what was there');
  await output('fio', ...fioArgs(scratch, other.ready.path));
  assert.equal(await sha256OfFile(path), digest, 'and leaves the first alone');
  await other.detach();
  await attached.detach();
  const reopened = await Attached.start(scratch, attachArgs(scratch));
  assert.equal(await sha256OfFile(reopened.ready.path), digest);
  await reopened.detach();
  assert.ok(readdirSync(scratch.path('upper')).length > 2 + snapshots.length);
});

test('commands say what cannot be done', { skip }, async (t) => {
  const scratch = scratchOf(t);
  const common = [image.reference, '--cache', 'none', '--mode', 'off'];
  const readOnly = await Attached.start(scratch, common);
  const refused = await cli(scratch, ['snapshot', readOnly.ready.control]);
  assert.equal(refused.code, 1);
  assert.match(refused.stderr, /no writable layer.*--upper.*ERR_DEVICE_READ_ONLY/s);
  const forked = await cliOutput(scratch, ['fork', readOnly.ready.control, scratch.path('f')]);
  assert.match(forked, /^forked {7}\S+config\.v1\.json, 1 lowers, in [\d.]+ ms$/m);
  await readOnly.detach();
  const config = scratch.path('f', 'config.v1.json');
  const again = await cliJson<ForkFacts>(scratch, [
    ...['fork', config, scratch.path('g'), '--cache', 'none', '--upper-kind', 'sparse'],
  ]);
  assert.equal(again.snapshot, null);
  const busy = await Attached.start(scratch, [config, '--cache', 'none', '--mode', 'off']);
  const second = await cli(scratch, ['attach', config, '--cache', 'none', '--mode', 'off']);
  assert.equal(second.code, 1);
  assert.match(second.stderr, /ERR_UPPER_BUSY/);
  await busy.detach();
  for (const words of [
    ['attach', ...common, '--upper-kind', 'sparse'],
    ['snapshot', '--data', 'x'],
    ['fork', config],
  ]) {
    assert.equal((await cli(scratch, words)).code, 2, words.join(' '));
  }
});
