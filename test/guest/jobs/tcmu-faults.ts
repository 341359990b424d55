import assert from 'node:assert/strict';
import {
  chmodSync,
  copyFileSync,
  existsSync,
  mkdirSync,
  readFileSync,
  renameSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { rmdir, writeFile } from 'node:fs/promises';
import { basename } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { controlRequest } from '../../../src/daemon/control-client.ts';
import type { DeviceSummary } from '../../../src/daemon/served-device.ts';
import { cli, cliJson, CliProcess } from '../../support/cli.ts';
import { output, run } from '../../support/programs.ts';
import type { Scratch } from '../../support/scratch.ts';
import { acceptingPeer } from '../../support/silent-peers.ts';
import { sha256OfFile } from '../../support/test-image.ts';
import {
  attach,
  detach,
  enable,
  HBA,
  makeDevice,
  startDaemon,
  type Device,
} from './snapshotter.ts';
import { job, nothingIsLeft, step } from './support.ts';

// Arguments: a config.v1.json, and its disk as a file. What goes wrong with TCMU devices, and that nobody
// hangs for it: ids that are given twice; a second daemon, and one without rights; a ring that somebody
// resets; a layer that is away while the daemon is started again; a registry that never answers.

const LOOK_MS = 200;
const NOBODY = 65_534;
const CORE = '/sys/kernel/config/target/core';
const [configPath, raw] = process.argv.slice(2);

await job(async (scratch) => {
  const { lowers, away, back } = copiedLayers(scratch);
  const ownConfig = scratch.path('own.v1.json');
  writeFileSync(ownConfig, JSON.stringify({ ...imageConfig(), lowers }));
  mkdirSync(HBA, { recursive: true });
  await withoutRights(scratch);

  const first = await startDaemon(scratch);
  await doubledIds(scratch, first.control);
  await withSecondDaemon(scratch);
  await withoutReplies(scratch);
  await brokenRing(scratch, first.control);

  step('kill the daemon; a layer is away when the next one starts');
  const devices = [0, 1, 2].map((id) => makeDevice(scratch, configPath, id, { lowers }));
  const [waiting, removed, detached] = devices;
  const [disk, , detachedDisk] = await Promise.all(devices.map((device) => attach(device)));
  // A disk of the snapshotter's is given up by the kernel after some half minutes.
  await writeFile(`/sys/block/${basename(disk)}/device/timeout`, '2147483');
  const mount = scratch.path('mount');
  mkdirSync(mount);
  const own = await attachOwn(scratch, first.control, ownConfig, 'own', '--mount', mount);
  first.daemon.kill('SIGKILL');
  await first.daemon.ended;
  away();
  const { daemon, control } = await startDaemon(scratch);
  for (const id of ['dev_0', 'dev_1', 'dev_2', 'own']) await untilState(control, id, 'failed');
  assert.match(readFileSync(waiting.resultFile, 'utf8'), /^failed:/);
  const reading = sha256OfDisk(disk);
  const failing = readOnce(own);
  await untilWaiting(own);

  step('a disk of our own stays when another image is attached');
  await attachAnother(scratch, 'own');
  await untilWaiting(own);

  step('a disk of our own is detached, and its reader fails');
  await cliJson(scratch, ['detach', 'own', '--socket', control, '--json']);
  assert.notEqual((await failing).code, 0);
  assert.ok(!existsSync(`${CORE}/user_814000000`) && !existsSync(own));

  step('a device that cannot be opened is removed');
  await detach(removed);

  step('a device that cannot be opened is detached, and its reader fails');
  const abandoned = readOnce(detachedDisk);
  await untilWaiting(detachedDisk);
  await cliJson(scratch, ['detach', 'dev_2', '--socket', control, '--json']);
  assert.notEqual((await abandoned).code, 0);
  await detach(detached);

  step('the layer is back');
  back();
  assert.equal(await reading, await sha256OfFile(raw));
  await untilState(control, 'dev_0', 'ready');
  assert.equal(readFileSync(waiting.resultFile, 'utf8'), 'success');
  await detach(waiting);

  step('the daemon ends while a registry is waited for');
  const peer = await acceptingPeer(scratch);
  const slow = makeDevice(scratch, configPath, 50, {
    repoBlobUrl: `http://127.0.0.1:${peer.port}/v2/x/blobs`,
    lowers: [{ digest: `sha256:${'a'.repeat(64)}`, size: 12_345, dir: scratch.path('none') }],
  });
  const enabling = assert.rejects(enable(slow), /ECANCELED/);
  await peer.untilAsked();
  daemon.kill('SIGTERM');
  await enabling;
  const { code, stderr } = await daemon.ended;
  assert.equal(code, 0, stderr);
  assert.match(readFileSync(slow.resultFile, 'utf8'), /^failed:/);
  await rmdir(slow.folder);
  await rmdir(HBA);
  nothingIsLeft();
});

interface Layer {
  file: string;
}

function imageConfig(): { lowers: Layer[] } {
  return JSON.parse(readFileSync(configPath, 'utf8')) as { lowers: Layer[] };
}

/** The image's layers as files that may be away. */
function copiedLayers(scratch: Scratch) {
  const lowers = imageConfig().lowers.map((layer, i) => {
    const file = scratch.path(`layer-${i}`);
    copyFileSync(layer.file, file);
    return { ...layer, file };
  });
  const { file } = lowers[lowers.length - 1];
  const other = `${file}.away`;
  return { lowers, away: () => renameSync(file, other), back: () => renameSync(other, file) };
}

async function summary(control: string, id: string): Promise<DeviceSummary | undefined> {
  const list = (await controlRequest(control, 'GET', '/v1/devices')) as unknown as DeviceSummary[];
  return list.find(({ device }) => device === id);
}

async function untilState(control: string, id: string, state: string): Promise<void> {
  while ((await summary(control, id))?.state !== state) await sleep(LOOK_MS);
}

/** A process of its own: one that waits for a disk cannot be ended. */
async function readOnce(disk: string) {
  return await run('dd', `if=${disk}`, 'of=/dev/null', 'bs=4096', 'count=1', 'iflag=direct');
}

/** Somebody waits for the disk's answer. */
async function untilWaiting(disk: string): Promise<void> {
  const file = `/sys/block/${basename(disk)}/inflight`;
  while (/^\s*0\s+0\s*$/.test(readFileSync(file, 'utf8'))) await sleep(LOOK_MS);
}

async function sha256OfDisk(disk: string): Promise<string> {
  return (await output('sha256sum', disk)).split(' ')[0] ?? '';
}

async function attachOwn(
  scratch: Scratch,
  control: string,
  config: string,
  id: string,
  ...others: string[]
): Promise<string> {
  const flags = ['--socket', control, '--frontend', 'tcmu', '--id', id, '--mode', 'off', '--json'];
  const command = ['attach', '--daemon', config, ...flags, ...others];
  return (await cliJson<{ path: string }>(scratch, command)).path;
}

/** Somebody attaches an image of another size under the id of a disk that waits. */
async function attachAnother(scratch: Scratch, id: string): Promise<void> {
  // It is the disk that gets another size.
  const attribute = `${CORE}/user_814000000/dev_${id}/attrib/dev_size`;
  await writeFile(attribute, String(2 * statSync(raw).size));
  const flags = ['--frontend', 'tcmu', '--id', id, '--mode', 'off', '--cache', 'none'];
  const { code, stderr } = await cli(scratch, ['attach', configPath, ...flags]);
  assert.notEqual(code, 0);
  assert.match(stderr, /Choose another --id, or attach the same image/);
}

/** It serves what it may, which is no TCMU. */
async function withoutRights(scratch: Scratch): Promise<void> {
  step('a daemon without rights');
  const folder = scratch.path('nobody');
  mkdirSync(folder);
  for (const path of ['/run', '/run/tmp', scratch.folder]) chmodSync(path, 0o755);
  chmodSync(folder, 0o777);
  const flags = ['--socket', `${folder}/socket`, '--state', `${folder}/state`, '--cache', 'none'];
  const env = { XDG_RUNTIME_DIR: folder, HOME: folder };
  const daemon = new CliProcess(scratch, ['daemon', ...flags], { uid: NOBODY, env });
  await daemon.line();
  await daemon.untilSaid('ERR_TCMU_PERMISSION');
  daemon.kill('SIGTERM');
  assert.equal((await daemon.ended).code, 0);
}

/** Two tenants have a folder of the same name; and two devices say that they have the same id. */
async function doubledIds(scratch: Scratch, control: string): Promise<void> {
  step('folders of one name, and ids that are given twice');
  const devices = [1, 2].map((tenant) => ({
    ...makeDevice(scratch, configPath, 500 + tenant),
    folder: `${CORE}/user_${tenant}/dev_5`,
  }));
  for (const device of devices) {
    mkdirSync(device.folder.slice(0, -'/dev_5'.length));
    await enable(device);
  }
  assert.equal((await summary(control, 'user_1-dev_5'))?.state, 'ready');
  assert.equal((await summary(control, 'user_2-dev_5'))?.state, 'ready');
  const doubled = [60, 61].map((id) => {
    const device = makeDevice(scratch, configPath, id);
    return { ...device, config: `${device.config};same` };
  });
  await enable(doubled[0]);
  await assert.rejects(enable(doubled[1]), /EBUSY/);
  assert.equal(readFileSync(doubled[0].resultFile, 'utf8'), 'success');
  assert.match(readFileSync(doubled[1].resultFile, 'utf8'), /^failed:duplicated dev id: same/);
  for (const { folder } of [...doubled, ...devices]) await rmdir(folder);
  for (const tenant of [1, 2]) await rmdir(`${CORE}/user_${tenant}`);
}

/** Every device is opened by the first daemon, and by that alone. */
async function withSecondDaemon(scratch: Scratch): Promise<void> {
  step('a second daemon');
  const flags = ['--socket', scratch.path('second'), '--state', scratch.path('second.state')];
  const second = new CliProcess(scratch, ['daemon', ...flags, '--cache', 'none']);
  await second.untilSaid('ERR_TCMU_LOCKED');
  const device = makeDevice(scratch, configPath, 10);
  await enable(device);
  assert.equal(readFileSync(device.resultFile, 'utf8'), 'success');
  await rmdir(device.folder);
  second.kill('SIGTERM');
  const { code, stderr } = await second.ended;
  assert.equal(code, 0, stderr);
  assert.doesNotMatch(stderr, /dev_10/);
}

/** Nobody waits for the daemon when such a device is made or removed. */
async function withoutReplies(scratch: Scratch): Promise<void> {
  step('a device whose events nobody has to answer');
  const made = makeDevice(scratch, configPath, 20);
  const device: Device = { ...made, settings: 'nl_reply_supported=-1' };
  const disk = await attach(device);
  assert.equal(await sha256OfDisk(disk), await sha256OfFile(raw));
  await detach(device);
}

async function brokenRing(scratch: Scratch, control: string): Promise<void> {
  step('a ring that somebody resets');
  const disk = await attachOwn(scratch, control, configPath, 'broken');
  await writeFile(`${CORE}/user_814000000/dev_broken/action/reset_ring`, '1');
  assert.notEqual((await readOnce(disk)).code, 0);
  assert.equal((await summary(control, 'broken'))?.state, 'failed');
  assert.notEqual((await readOnce(disk)).code, 0);
  await cliJson(scratch, ['detach', 'broken', '--socket', control, '--json']);
  assert.ok(!existsSync(`${CORE}/user_814000000`) && !existsSync(disk));
}
