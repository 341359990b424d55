import assert from 'node:assert/strict';
import { readdirSync, statSync } from 'node:fs';
import { after, before, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { Attached } from '../support/attached.ts';
import { cliOutput, serveRegistry } from '../support/cli.ts';
import { output } from '../support/programs.ts';
import { Scratch, scratchOf } from '../support/scratch.ts';
import { makeRootfs, makeTestImage, type TestImage } from '../support/test-image.ts';
import { inGuest, runGuestJob } from './guest.ts';
import { diskFlags, MEMORY_MIB } from './vhost-user-flags.ts';

// Goal: a virtual machine's disk comes from a registry with no kernel device on the host, and keeps what the
// guest writes. Method: QEMU with vhost-user-blk-pci on the socket of `attach --frontend vhost-user`; a
// Debian kernel mounts the disk, compares, writes, trims; the host then reads the writable layer.

const fixture = new Scratch();
let image: TestImage;
let rootfs: string[];

before(async () => {
  rootfs = makeRootfs(fixture);
  const url = await serveRegistry(fixture, fixture.path('registry'));
  image = await makeTestImage(fixture, url, rootfs);
});
after(() => fixture.close());

test(
  'a guest mounts an image, writes to it and trims it',
  inGuest('nbdcopy', 'debugfs'),
  async (t) => {
    const scratch = scratchOf(t);
    const common = ['--cache', scratch.path('cache'), '--upper', scratch.path('upper')];
    const socket = scratch.path('vhost');
    const attached = await Attached.start(scratch, [
      ...[image.reference, ...common, '--trace-dir', scratch.path('traces')],
      ...['--frontend', 'vhost-user', '--guest-socket', socket],
    ]);
    assert.equal(attached.ready.path, socket);
    const emptyBytes = folderBytes(scratch.path('upper'));
    const grownBytes = 2 * image.virtualSizeBytes;
    const job = runGuestJob({
      name: 'vhost-user',
      modules: ['virtio_blk', 'ext4'],
      memoryMiB: MEMORY_MIB,
      args: [String(image.virtualSizeBytes), String(grownBytes), ...rootfs],
      qemu: diskFlags(socket),
    });
    let isOver = false;
    const ended = job.finally(() => (isOver = true)).catch(() => undefined);
    // Once the guest writes, it has looked at the disk's size.
    while (!isOver && folderBytes(scratch.path('upper')) === emptyBytes) await sleep(200);
    await cliOutput(scratch, [
      ...['resize', '--device', attached.ready.control, '--size', String(grownBytes / 2 ** 30)],
    ]);
    await ended;
    await job;
    const report = await attached.detach();
    assert.equal(report.quality.missErrors, 0);
    assert.ok(report.trace !== null && report.trace.records > 0, 'the boot was recorded');

    const again = await Attached.start(scratch, [
      ...[image.reference, ...common, '--mode', 'off', '--frontend', 'nbd'],
      ...['--nbd-socket', scratch.path('nbd')],
    ]);
    assert.equal(again.ready.virtualSizeBytes, grownBytes);
    const copy = scratch.path('copy.raw');
    await output('nbdcopy', again.ready.path, copy);
    await again.detach();
    await output('e2fsck', '-fn', copy);
    await output('debugfs', '-R', `dump /written ${scratch.path('written')}`, copy);
    const digests = await output('sha256sum', scratch.path('written'));
    const expected = await output(
      'sh',
      '-c',
      `yes 'vhost-user ' | tr -d '\\n' | head -c ${3 * 2 ** 20} | sha256sum`,
    );
    assert.equal(digests.split(' ')[0], expected.split(' ')[0]);
  },
);

test('a back end that is killed comes back without an error', inGuest(), async (t) => {
  const scratch = scratchOf(t);
  const socket = scratch.path('vhost');
  const upper = scratch.path('upper');
  const args = [
    ...[image.reference, '--mode', 'off', '--cache', scratch.path('cache'), '--upper', upper],
    ...['--frontend', 'vhost-user', '--guest-socket', socket],
  ];
  let attached = await Attached.start(scratch, args);
  const emptyBytes = folderBytes(upper);
  const job = runGuestJob({
    name: 'vhost-user-restarts',
    modules: ['virtio_blk'],
    memoryMiB: MEMORY_MIB,
    args: ['8'],
    qemu: diskFlags(socket),
  });
  let isOver = false;
  void job.then(
    () => (isOver = true),
    () => (isOver = true),
  );
  let kills = 0;
  while (!isOver) {
    // Not before the guest has begun to write.
    if (folderBytes(upper) > emptyBytes) {
      await attached.crash();
      attached = await Attached.start(scratch, args);
      kills += 1;
    }
    await sleep(2000);
  }
  await job;
  assert.ok(kills >= 2, `killed ${kills} times`);
});

function folderBytes(folder: string): number {
  return readdirSync(folder).reduce((sum, name) => sum + statSync(`${folder}/${name}`).size, 0);
}
