import assert from 'node:assert/strict';
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { basename } from 'node:path';
import { controlRequest } from '../../../src/daemon/control-client.ts';
import { Attached } from '../../support/attached.ts';
import { output } from '../../support/programs.ts';
import { sha256OfFile } from '../../support/test-image.ts';
import { job, nothingIsLeft, step } from './support.ts';

// Argument: a config.v1.json. A disk grows while fio writes to the file system on it, and the file
// system after it. What was there is there, what did not fit before fits, and all of it is found when
// the disk is attached again.

const GROWN_BYTES = 128 * 2 ** 20;
const LICENSES = '/usr/share/common-licenses';
const NEW_FILE_MIB = 40;

const [config] = process.argv.slice(2);

await job(async (scratch) => {
  const mount = scratch.path('mount');
  mkdirSync(mount);
  const flags = [
    ...[config, '--frontend', 'tcmu', '--id', 'resized', '--mode', 'off'],
    ...['--upper', scratch.path('upper'), '--cache', 'none'],
  ];
  step('attach, mkfs, mount');
  const first = await Attached.start(scratch, flags);
  const disk = first.ready.path;
  assert.ok(first.ready.virtualSizeBytes < NEW_FILE_MIB * 2 ** 20);
  const attributes = '/sys/kernel/config/target/core/user_814000000/dev_resized/attrib';
  assert.equal(readFileSync(`${attributes}/tmr_notification`, 'utf8').trim(), '1');
  await output('mkfs.ext4', '-q', '-F', disk);
  await output('mount', disk, mount);
  await output('cp', '-r', LICENSES, `${mount}/licenses`);

  step('resize, while fio writes');
  const fio = output('fio', ...fioFlags(`${mount}/file`));
  const resize = async (sizeBytes: number): Promise<unknown> =>
    await controlRequest(first.ready.control, 'POST', '/v1/devices/resized/resize', { sizeBytes });
  const grown = await resize(GROWN_BYTES);
  assert.deepEqual(grown, {
    device: 'resized',
    previousBytes: first.ready.virtualSizeBytes,
    virtualSizeBytes: GROWN_BYTES,
  });
  assert.match(await fio, /err= 0/);
  assert.match(await output('dmesg'), /Capacity data has changed/);
  assert.equal(sizeOf(disk), GROWN_BYTES);
  assert.equal(readFileSync(`${attributes}/dev_size`, 'utf8').trim(), String(GROWN_BYTES));
  await assert.rejects(resize(GROWN_BYTES / 2), { code: 'ERR_RESIZE_SHRINK' });

  step('rescan, resize2fs');
  writeFileSync(`/sys/block/${basename(disk)}/device/rescan`, '1');
  assert.equal(sizeOf(disk), GROWN_BYTES);
  await output('resize2fs', disk);
  await output('diff', '-r', '--no-dereference', LICENSES, `${mount}/licenses`);
  await output('dd', 'if=/dev/urandom', `of=${mount}/new`, 'bs=1M', `count=${NEW_FILE_MIB}`);
  const digest = await sha256OfFile(`${mount}/new`);

  await output('umount', mount);
  assert.doesNotMatch(await output('dmesg'), /I\/O error|EXT4-fs error/);
  await first.detach();
  nothingIsLeft();

  step('attach again');
  const second = await Attached.start(scratch, flags);
  assert.equal(second.ready.virtualSizeBytes, GROWN_BYTES);
  assert.equal(sizeOf(second.ready.path), GROWN_BYTES);
  await output('e2fsck', '-fn', second.ready.path);
  await output('mount', '-o', 'ro', second.ready.path, mount);
  await output('diff', '-r', '--no-dereference', LICENSES, `${mount}/licenses`);
  assert.equal(await sha256OfFile(`${mount}/new`), digest);
  await output('umount', mount);
  await second.detach();
  nothingIsLeft();
});

/** As the kernel has it, in bytes. */
function sizeOf(disk: string): number {
  return Number(readFileSync(`/sys/block/${basename(disk)}/size`, 'utf8')) * 512;
}

function fioFlags(file: string): string[] {
  return [
    ...['--name=verify', '--ioengine=libaio', `--filename=${file}`, '--rw=randrw', '--direct=1'],
    ...['--bsrange=4k-32k', '--size=2m', '--iodepth=8', '--time_based', '--runtime=8'],
    ...['--verify=crc32c', '--verify_state_save=0', '--aux-path=/run/tmp'],
  ];
}
