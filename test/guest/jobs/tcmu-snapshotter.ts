import assert from 'node:assert/strict';
import { mkdirSync, readFileSync, statSync } from 'node:fs';
import { open, rmdir, writeFile } from 'node:fs/promises';
import { controlRequest } from '../../../src/daemon/control-client.ts';
import { createUpper } from '../../../src/image/lsmt/create-upper.ts';
import { output } from '../../support/programs.ts';
import { sha256OfFile } from '../../support/test-image.ts';
import {
  attach,
  compareAt,
  detach,
  enable,
  HBA,
  makeDevice,
  startDaemon,
  type Device,
} from './snapshotter.ts';
import { compareTree, job, nothingIsLeft, step } from './support.ts';

// Arguments: a config.v1.json, its disk as a file, and the folders it was built from. Devices are made
// as overlaybd's snapshotter makes them, and the daemon answers the kernel. Several at once; one that
// cannot be opened; one that grows; the daemon killed and started again in between.

const DEVICES = 4;
const GROWN_BYTES = 64 * 2 ** 20;
const WRITTEN_BYTES = 65_536;
const [configPath, raw, ...rootfs] = process.argv.slice(2);

await job(async (scratch) => {
  const first = await startDaemon(scratch);
  step('attach');
  const devices = Array.from({ length: DEVICES }, (_, id) => makeDevice(scratch, configPath, id));
  mkdirSync(HBA, { recursive: true });
  const disks = await Promise.all(devices.map((device) => attach(device)));
  for (const { resultFile, folder } of devices) {
    assert.equal(readFileSync(resultFile, 'utf8'), 'success');
    assert.equal(readFileSync(`${folder}/attrib/tmr_notification`, 'utf8').trim(), '1');
  }

  step('an image that is not there');
  const broken = makeDevice(scratch, configPath, 99, { lowers: [{ file: '/nowhere/layer' }] });
  await assert.rejects(enable(broken));
  assert.match(readFileSync(broken.resultFile, 'utf8'), /^failed:.*\/nowhere\/layer/s);
  await rmdir(broken.folder);

  step('mount, and compare files');
  const mount = scratch.path('mount');
  mkdirSync(mount);
  await output('mount', '-o', 'ro,noload', disks[0], mount);
  await compareTree(rootfs[1], mount);

  step('a disk that grows');
  const upper = { data: scratch.path('data'), index: scratch.path('index') };
  await createUpper({ ...upper, kind: 'append', virtualSizeBytes: statSync(raw).size });
  const growing = makeDevice(scratch, configPath, 98, { upper });
  const grown = await attach(growing);
  await grow(first.control, growing, grown);
  await assert.rejects(writeFile(sizeAttribute(devices[0]), String(GROWN_BYTES)), /EINVAL/);

  step('kill the daemon while a disk is read');
  const sha256 = await sha256OfFile(raw);
  const reading = sha256OfFile(disks[1]);
  first.daemon.kill('SIGKILL');
  await first.daemon.ended;
  const { daemon } = await startDaemon(scratch);
  assert.equal(await reading, sha256);
  assert.equal(await sha256OfFile(disks[2]), sha256);
  await checkSize(grown, 2 * GROWN_BYTES);

  step('detach');
  await output('umount', mount);
  await Promise.all([...devices, growing].map((device) => detach(device)));
  await rmdir(HBA);
  nothingIsLeft();
  daemon.kill('SIGTERM');
  const { code, stderr } = await daemon.ended;
  assert.equal(code, 0, stderr);
});

/** The size of a disk is changed from either side; what it may not become it does not. */
async function grow(control: string, device: Device, disk: string): Promise<void> {
  const attribute = sizeAttribute(device);
  await writeFile(attribute, String(GROWN_BYTES));
  await checkSize(disk, GROWN_BYTES);
  const path = `/v1/devices/dev_${device.id}/resize`;
  await controlRequest(control, 'POST', path, { sizeBytes: 2 * GROWN_BYTES });
  assert.equal(readFileSync(attribute, 'utf8').trim(), String(2 * GROWN_BYTES));
  await checkSize(disk, 2 * GROWN_BYTES);
  await assert.rejects(writeFile(attribute, String(GROWN_BYTES)), /EINVAL/);
}

function sizeAttribute({ folder }: Device): string {
  return `${folder}/attrib/dev_size`;
}

/** The disk ends where it should, and can be written there. */
async function checkSize(disk: string, sizeBytes: number): Promise<void> {
  const name = disk.slice('/dev/'.length);
  await writeFile(`/sys/block/${name}/device/rescan`, '1');
  assert.equal(Number(readFileSync(`/sys/block/${name}/size`, 'utf8')) * 512, sizeBytes);
  const bytes = Buffer.alloc(WRITTEN_BYTES, sizeBytes % 251);
  const file = await open(disk, 'r+');
  try {
    await file.write(bytes, 0, bytes.length, sizeBytes - bytes.length);
    await file.sync();
  } finally {
    await file.close();
  }
  await compareAt(disk, sizeBytes - bytes.length, bytes);
}
