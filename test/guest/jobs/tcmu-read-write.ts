import assert from 'node:assert/strict';
import { mkdirSync, readFileSync, statSync } from 'node:fs';
import { basename } from 'node:path';
import { Attached } from '../../support/attached.ts';
import { cliOutput } from '../../support/cli.ts';
import { output } from '../../support/programs.ts';
import { sha256OfFile } from '../../support/test-image.ts';
import { job, nothingIsLeft, step } from './support.ts';

// Argument: a config.v1.json. A file system is made on the disk, written and verified by fio,
// trimmed, and snapshot while it is being written; after a detach everything is there again, and
// e2fsck finds nothing. The disk says that it has a write cache.

const [config] = process.argv.slice(2);

await job(async (scratch) => {
  const mount = scratch.path('mount');
  mkdirSync(mount);
  const flags = [
    ...[config, '--frontend', 'tcmu', '--id', 'writable', '--mode', 'off'],
    ...['--upper', scratch.path('upper'), '--upper-kind', 'append', '--cache', 'none'],
  ];
  step('attach');
  const attached = await Attached.start(scratch, flags);
  const disk = attached.ready.path;
  const queue = `/sys/block/${basename(disk)}/queue`;
  assert.equal(readFileSync(`${queue}/write_cache`, 'utf8').trim(), 'write back');
  assert.notEqual(readFileSync(`${queue}/discard_max_bytes`, 'utf8').trim(), '0');
  step('mkfs, mount');
  await output('mkfs.ext4', '-q', '-F', disk);
  await output('mount', disk, mount);
  step('fio, with a snapshot under it');
  const fio = output('fio', ...fioFlags(`${mount}/file`));
  const sealed = ['--data', scratch.path('upper2.data'), '--index', scratch.path('upper2.index')];
  await cliOutput(scratch, ['snapshot', 'writable', ...sealed]);
  assert.match(await fio, /err= 0/);
  step('fstrim');
  await output('rm', `${mount}/file`);
  await output('cp', '-r', '/usr/share/common-licenses', `${mount}/licenses`);
  assert.match(await output('fstrim', '-v', mount), /\([1-9][0-9]* bytes\) trimmed/);
  await output('umount', mount);
  const digest = await sha256OfFile(disk);
  step('detach');
  const { upper } = await attached.detach();
  assert.ok(upper !== null && upper.writes > 0 && upper.flushes > 0 && upper.discards > 0);
  nothingIsLeft();

  step('attach again');
  const again = await Attached.start(scratch, flags);
  assert.equal(await sha256OfFile(again.ready.path), digest);
  await output('mount', again.ready.path, mount);
  await output('diff', '-r', '--no-dereference', '/usr/share/common-licenses', `${mount}/licenses`);
  await output('umount', mount);
  await output('e2fsck', '-fn', again.ready.path);
  assert.ok(statSync(again.ready.path).isBlockDevice());
  await again.detach();
  nothingIsLeft();
});

function fioFlags(file: string): string[] {
  return [
    ...['--name=verify', '--ioengine=libaio', `--filename=${file}`, '--rw=randrw', '--direct=1'],
    ...['--bsrange=4k-64k', '--size=8m', '--iodepth=16', '--fsync=64'],
    ...['--verify=crc32c', '--verify_state_save=0', '--aux-path=/run/tmp'],
  ];
}
