import assert from 'node:assert/strict';
import {
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { rmdir, unlink, writeFile } from 'node:fs/promises';
import { setTimeout as sleep } from 'node:timers/promises';
import { CliProcess } from '../../support/cli.ts';
import { output } from '../../support/programs.ts';
import type { Scratch } from '../../support/scratch.ts';
import { sha256OfFile } from '../../support/test-image.ts';
import { compareTree, job, nothingIsLeft, step } from './support.ts';

// Arguments: a config.v1.json, the digest of its disk, and the folders it was built from. Devices are
// made as overlaybd's snapshotter makes them, by configfs alone, and the daemon answers the kernel.
// Several at once; one that cannot be opened; the daemon killed and started again in between.

const DEVICES = 8;
const HBA = '/sys/kernel/config/target/core/user_999999999';
const LOOPBACK = '/sys/kernel/config/target/loopback';
const LOOKS_MAX = 500;
const [configPath, sha256, ...rootfs] = process.argv.slice(2);

interface Device {
  id: number;
  folder: string;
  fabric: string;
  resultFile: string;
  config: string;
}

await job(async (scratch) => {
  let daemon = await startDaemon(scratch);
  step('attach');
  const devices = Array.from({ length: DEVICES }, (_, id) => makeDevice(scratch, id));
  mkdirSync(HBA, { recursive: true });
  const disks = await Promise.all(devices.map((device) => attach(device)));
  for (const { resultFile } of devices) assert.equal(readFileSync(resultFile, 'utf8'), 'success');

  step('an image that is not there');
  const broken = makeDevice(scratch, 99, '/nowhere/layer');
  await assert.rejects(enable(broken));
  assert.match(readFileSync(broken.resultFile, 'utf8'), /^failed:.*\/nowhere\/layer/s);
  await rmdir(broken.folder);

  step('mount, and compare every file');
  const mount = scratch.path('mount');
  mkdirSync(mount);
  await output('mount', '-o', 'ro,noload', disks[0], mount);
  for (const folder of rootfs) await compareTree(folder, mount);

  step('kill the daemon while a disk is read');
  const reading = sha256OfFile(disks[1]);
  daemon.kill('SIGKILL');
  await daemon.ended;
  daemon = await startDaemon(scratch);
  assert.equal(await reading, sha256);
  for (const disk of disks.slice(2, 4)) assert.equal(await sha256OfFile(disk), sha256);

  step('detach');
  await output('umount', mount);
  for (const device of devices) await detach(device);
  await rmdir(HBA);
  nothingIsLeft();
  daemon.kill('SIGTERM');
  const { code, stderr } = await daemon.ended;
  assert.equal(code, 0, stderr);
});

async function startDaemon(scratch: Scratch): Promise<CliProcess> {
  const daemon = new CliProcess(scratch, ['daemon', '--cache', scratch.path('cache'), '--json']);
  await daemon.line();
  return daemon;
}

/** A snapshot's folder: the configuration, and where the daemon is to tell how it went. */
function makeDevice(scratch: Scratch, id: number, lower?: string): Device {
  const config = scratch.path(`config-${id}.v1.json`);
  const resultFile = scratch.path(`result-${id}`);
  const image = JSON.parse(readFileSync(configPath, 'utf8')) as { lowers: object[] };
  const lowers = lower === undefined ? image.lowers : [{ file: lower }];
  writeFileSync(config, JSON.stringify({ ...image, lowers, resultFile }));
  const fabric = `${LOOPBACK}/naa.199${String(id).padStart(13, '0')}`;
  return { id, config, resultFile, fabric, folder: `${HBA}/dev_${id}` };
}

/** The snapshotter's sequence, to the letter; returns /dev/sdX. */
async function attach(device: Device): Promise<string> {
  await enable(device);
  const { folder, fabric, id } = device;
  writeFileSync(`${folder}/attrib/cmd_time_out`, '2147483');
  mkdirSync(`${fabric}/tpgt_1/lun/lun_0`, { recursive: true });
  writeFileSync(`${fabric}/tpgt_1/nexus`, fabric.slice(fabric.lastIndexOf('/') + 1));
  symlinkSync(folder, `${fabric}/tpgt_1/lun/lun_0/dev_${id}`);
  const address = readFileSync(`${fabric}/tpgt_1/address`, 'utf8').trim();
  const block = `/sys/class/scsi_device/${address}:0/device/block`;
  for (let look = 0; look < LOOKS_MAX; look += 1) {
    const name = existsSync(block) ? readdirSync(block).at(0) : undefined;
    if (name !== undefined && existsSync(`/dev/${name}`)) return `/dev/${name}`;
    await sleep(10);
  }
  throw new Error(`${block}: no disk`);
}

/** Resolves when the daemon has opened the image. */
async function enable({ folder, config }: Device): Promise<void> {
  mkdirSync(folder);
  writeFileSync(`${folder}/control`, `dev_config=overlaybd/${config}`);
  writeFileSync(`${folder}/control`, 'max_data_area_mb=4');
  await writeFile(`${folder}/enable`, '1');
}

async function detach({ folder, fabric, id }: Device): Promise<void> {
  const lun = `${fabric}/tpgt_1/lun/lun_0`;
  await unlink(`${lun}/dev_${id}`);
  for (const path of [lun, `${fabric}/tpgt_1`, fabric, folder]) await rmdir(path);
}
