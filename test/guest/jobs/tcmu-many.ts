import assert from 'node:assert/strict';
import { mkdirSync, readFileSync } from 'node:fs';
import { rmdir } from 'node:fs/promises';
import { output } from '../../support/programs.ts';
import { attach, compareSamples, detach, HBA, makeDevice, startDaemon } from './snapshotter.ts';
import { compareTree, job, nothingIsLeft, step } from './support.ts';

// Arguments: a config.v1.json, its disk as a file, and a folder that it was built from. Fifty devices in
// one daemon, attached at once: some blocks of each are compared, and the files of two.

const DEVICES = 50;
const [configPath, raw, rootfs] = process.argv.slice(2);

await job(async (scratch) => {
  const { daemon } = await startDaemon(scratch);
  step('attach');
  const devices = Array.from({ length: DEVICES }, (_, id) => makeDevice(scratch, configPath, id));
  mkdirSync(HBA, { recursive: true });
  const disks = await Promise.all(devices.map((device) => attach(device)));
  assert.equal(new Set(disks).size, DEVICES);
  for (const { resultFile } of devices) assert.equal(readFileSync(resultFile, 'utf8'), 'success');
  step('read of each');
  await Promise.all(disks.map((disk, i) => compareSamples(disk, raw, i)));
  step('mount, and compare files');
  const mount = scratch.path('mount');
  mkdirSync(mount);
  for (const disk of [disks[0], disks[DEVICES - 1]]) {
    await output('mount', '-o', 'ro,noload', disk, mount);
    await compareTree(rootfs, mount);
    await output('umount', mount);
  }
  step('detach');
  await Promise.all(devices.map((device) => detach(device)));
  await rmdir(HBA);
  nothingIsLeft();
  daemon.kill('SIGTERM');
  const { code, stderr } = await daemon.ended;
  assert.equal(code, 0, stderr);
});
