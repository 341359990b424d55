import assert from 'node:assert/strict';
import { readdirSync, statSync, writeFileSync } from 'node:fs';
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

/** How often the back end is killed. */
const KILLS = 3;
const SIGNAL_BYTES = 4096;

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
  const signal = scratch.path('signal');
  writeFileSync(signal, Buffer.alloc(SIGNAL_BYTES));
  let attached = await Attached.start(scratch, args);
  const job = runGuestJob({
    name: 'vhost-user-restarts',
    modules: ['virtio_blk'],
    memoryMiB: MEMORY_MIB,
    qemu: [
      ...diskFlags(socket),
      ...['-drive', `file=${signal},format=raw,if=none,id=signal`],
      ...['-device', 'virtio-blk-pci,drive=signal'],
    ],
  });
  let isOver = false;
  const ended = job.finally(() => (isOver = true)).catch(() => undefined);
  for (let kills = 0; kills < KILLS; kills += 1) {
    // Each back end serves writes before it is killed.
    const bytes = folderBytes(upper);
    while (!isOver && folderBytes(upper) === bytes) await sleep(200);
    if (isOver) break;
    await attached.crash();
    attached = await Attached.start(scratch, args);
  }
  writeFileSync(signal, Buffer.alloc(SIGNAL_BYTES, 1));
  await ended;
  await job;
});

function folderBytes(folder: string): number {
  return readdirSync(folder).reduce((sum, name) => sum + statSync(`${folder}/${name}`).size, 0);
}
