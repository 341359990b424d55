import assert from 'node:assert/strict';
import { mkdirSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { Attached } from '../../support/attached.ts';
import { output, run } from '../../support/programs.ts';
import { job, nothingIsLeft, step } from './support.ts';

// Argument: a config.v1.json. fio writes and verifies a file system while the process that serves its
// disk is killed and started again: fio sees a pause, no error, and e2fsck a sound file system.

/** One is enough where a guest is slow: a start takes seconds there. */
const KILLS = 1;
const [config] = process.argv.slice(2);

await job(async (scratch) => {
  const mount = scratch.path('mount');
  mkdirSync(mount);
  const flags = [
    ...[config, '--frontend', 'tcmu', '--id', 'killed', '--mode', 'off', '--mount', mount],
    ...['--upper', scratch.path('upper'), '--cache', 'none'],
  ];
  step('attach');
  let attached = await Attached.start(scratch, flags);
  const disk = attached.ready.path;
  let isWriting = true;
  const fio = run('fio', ...fioFlags(`${mount}/file`)).then((result) => {
    isWriting = false;
    return result;
  });
  for (let kill = 0; kill < KILLS; kill += 1) {
    await sleep(2000);
    assert.ok(isWriting, `fio has ended: ${isWriting ? '' : JSON.stringify(await fio)}`);
    step('kill');
    await attached.crash();
    attached = await Attached.start(scratch, flags);
    assert.equal(attached.ready.path, disk);
    step('served again');
  }
  const { code, stdout, stderr } = await fio;
  assert.equal(code, 0, stderr);
  assert.match(stdout, /err= 0/);
  assert.doesNotMatch(await output('dmesg'), /I\/O error|EXT4-fs error/);
  step('check');
  await output('umount', mount);
  await output('e2fsck', '-fn', disk);
  await attached.detach();
  nothingIsLeft();
});

function fioFlags(file: string): string[] {
  return [
    ...['--name=verify', '--ioengine=libaio', `--filename=${file}`, '--rw=randrw', '--direct=1'],
    ...['--bsrange=4k-32k', '--size=8m', '--iodepth=16', '--time_based', '--runtime=20'],
    ...['--verify=crc32c', '--verify_state_save=0', '--aux-path=/run/tmp'],
  ];
}
