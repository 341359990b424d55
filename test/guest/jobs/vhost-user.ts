import assert from 'node:assert/strict';
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { output } from '../../support/programs.ts';
import { Scratch } from '../../support/scratch.ts';
import { compareTree, step } from './support.ts';

// Arguments: the disk's size in bytes, the one that it is given once it is written, and the folders that its
// image was built from. The device comes from outside: a vhost-user back end on the host, whose queues this
// guest's virtio_blk uses.

const DISK = '/dev/vda';
const LOOKS_MAX = 1000;
const LOOK_MS = 100;
const [sizeBytes, grownBytes, ...rootfs] = process.argv.slice(2);

const scratch = new Scratch();
try {
  step('look at the disk');
  const queue = '/sys/block/vda/queue';
  assert.equal((await output('blockdev', '--getsize64', DISK)).trim(), sizeBytes);
  const cache = '/sys/block/vda/cache_type';
  assert.equal(readFileSync(cache, 'utf8').trim(), 'write back');
  for (const choice of ['write through', 'write back']) {
    writeFileSync(cache, choice);
    assert.equal(readFileSync(cache, 'utf8').trim(), choice);
  }
  assert.ok(Number(readFileSync(`${queue}/discard_max_bytes`, 'utf8')) > 0);
  assert.ok(Number(readFileSync(`${queue}/write_zeroes_max_bytes`, 'utf8')) > 0);
  const mount = scratch.path('mount');
  mkdirSync(mount);
  step('mount, compare every file');
  await output('mount', DISK, mount);
  scratch.atEnd(() => output('umount', mount));
  for (const folder of rootfs) await compareTree(join(folder, 'modules'), join(mount, 'modules'));
  step('write, trim');
  const written = Buffer.alloc(3 * 2 ** 20, 'vhost-user ');
  writeFileSync(join(mount, 'written'), written);
  writeFileSync(join(mount, 'gone'), written);
  await output('sync', '-f', mount);
  await output('rm', join(mount, 'gone'));
  assert.match(await output('fstrim', '-v', mount), /trimmed/);
  step('read back from the device');
  await output('umount', mount);
  writeFileSync('/proc/sys/vm/drop_caches', '3');
  await output('mount', DISK, mount);
  assert.ok(readFileSync(join(mount, 'written')).equals(written));
  step('wait for the disk to grow');
  for (let look = 0; look < LOOKS_MAX && diskBytes() !== Number(grownBytes); look += 1) {
    await sleep(LOOK_MS);
  }
  assert.equal(diskBytes(), Number(grownBytes));
} finally {
  await scratch.close();
}

/** As the guest's kernel has it. */
function diskBytes(): number {
  return Number(readFileSync('/sys/block/vda/size', 'utf8')) * 512;
}
