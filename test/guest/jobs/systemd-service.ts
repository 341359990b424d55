import assert from 'node:assert/strict';
import {
  copyFileSync,
  existsSync,
  mkdirSync,
  readFileSync,
  readlinkSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { packageRoot } from '../../../src/base/package-root.ts';
import { readMountTable } from '../../../src/frontend/fuse/mount-table.ts';
import type { DeviceSummary } from '../../../src/daemon/served-device.ts';
import { cliJson, cliOutput } from '../../support/cli.ts';
import { output, run } from '../../support/programs.ts';
import type { Scratch } from '../../support/scratch.ts';
import { compareTree, job, nothingIsLeft, step } from './support.ts';

// Arguments: a config.v1.json, and the folder that its image was built from. PID 1 is systemd. The unit that
// the project ships is installed as its first lines say, with a drop-in for where Node and the tool are here.
// Disks of two kinds are attached and mounted; then the daemon is reloaded, restarted, hung and stopped.

const UNITS = '/etc/systemd/system';
const SOCKET = '/run/replaybd/daemon.socket';
/** How long a daemon may hang here; the guest may be slow. */
const WATCHDOG_S = 20;
const [config = '', rootfs = ''] = process.argv.slice(2);
const main = process.env.REPLAYBD_TEST_MAIN ?? '';

await job(async (scratch) => {
  try {
    await useService(scratch);
  } catch (error) {
    console.log((await run('journalctl', '--no-pager', '-n', '80', '-u', 'replaybd')).stdout);
    console.log((await run('systemctl', 'status', 'replaybd')).stdout);
    throw error;
  }
});

async function useService(scratch: Scratch): Promise<void> {
  step('install, start');
  copyFileSync(join(packageRoot, 'docs/replaybd.service'), `${UNITS}/replaybd.service`);
  mkdirSync(`${UNITS}/replaybd.service.d`);
  const start = `ExecStart=\nExecStart=${process.execPath} ${main} daemon`;
  writeFileSync(
    `${UNITS}/replaybd.service.d/local.conf`,
    `[Service]\n${start}\nWatchdogSec=${WATCHDOG_S}s\n`,
  );
  await output('systemctl', 'daemon-reload');
  await output('systemctl', 'start', 'replaybd');
  const first = await service();
  assert.deepEqual([first.ActiveState, first.SubState], ['active', 'running']);
  assert.equal(first.StatusText, `serving on ${SOCKET}`);
  checkProcess(first.MainPID);

  step('attach and mount');
  const mounts = ['fuse', 'tcmu'].map((frontend) => scratch.path(frontend));
  for (const mount of mounts) mkdirSync(mount);
  for (const [i, frontend] of ['fuse', 'tcmu'].entries()) {
    const flags = ['--frontend', frontend, '--id', frontend, '--mount', mounts[i], '--mode', 'off'];
    await cliOutput(scratch, ['attach', '--daemon', config, '--socket', SOCKET, ...flags]);
  }
  await check(scratch, mounts);

  step('reload');
  await output('systemctl', 'reload', 'replaybd');
  assert.equal((await service()).MainPID, first.MainPID);
  await check(scratch, mounts);

  step('restart');
  await output('systemctl', 'restart', 'replaybd');
  const second = await service();
  assert.notEqual(second.MainPID, first.MainPID);
  assert.equal(second.NRestarts, '0');
  await check(scratch, mounts);

  step('hang');
  process.kill(Number(second.MainPID), 'SIGSTOP');
  const third = await restarted(second.MainPID);
  assert.equal(third.NRestarts, '1');
  const journal = await output('journalctl', '--no-pager', '-u', 'replaybd');
  assert.match(journal, /Watchdog timeout/);
  checkProcess(third.MainPID);
  await check(scratch, mounts);

  step('stop');
  await output('systemctl', 'stop', 'replaybd');
  const stopped = await service();
  assert.deepEqual(
    [stopped.ActiveState, stopped.Result, stopped.ExecMainStatus],
    ['inactive', 'success', '0'],
  );
  nothingIsLeft();
  assert.ok(!existsSync(SOCKET));
}

/** What systemd knows of the service. */
async function service(): Promise<Record<string, string>> {
  const shown = await output('systemctl', 'show', 'replaybd');
  return Object.fromEntries(
    shown.split('\n').map((line) => {
      const at = line.indexOf('=');
      return [line.slice(0, at), line.slice(at + 1)];
    }),
  );
}

/** The unit's limits hold, and its mounts are those of the system. */
function checkProcess(pid: string): void {
  assert.equal(readFileSync(`/proc/${pid}/oom_score_adj`, 'utf8').trim(), '-999');
  const status = readFileSync(`/proc/${pid}/status`, 'utf8');
  assert.match(status, /^NoNewPrivs:\t1$/m);
  assert.match(status, /^Seccomp:\t2$/m);
  assert.match(status, /^CapBnd:\t(?!000001ffffffffff)/m);
  assert.equal(readlinkSync(`/proc/${pid}/ns/mnt`), readlinkSync('/proc/1/ns/mnt'));
}

/** All disks are ready, and their files are there for everyone. */
async function check(scratch: Scratch, mounts: readonly string[]): Promise<void> {
  let devices: DeviceSummary[];
  // A slow guest may take longer for them than a start waits.
  do {
    devices = await cliJson<DeviceSummary[]>(scratch, ['ls', '--socket', SOCKET]);
  } while (devices.some(({ state }) => state === 'opening'));
  assert.deepEqual(
    devices.map(({ device, state }) => [device, state]),
    [
      ['fuse', 'ready'],
      ['tcmu', 'ready'],
    ],
  );
  // One that a killed daemon left behind would be below the new one.
  const targets = readMountTable().filter(({ target }) => mounts.includes(target));
  assert.equal(targets.length, mounts.length, JSON.stringify(targets));
  for (const mount of mounts) await compareTree(rootfs, mount);
}

/** Waits for the next process of the service to be ready; the guest's time limit ends it. */
async function restarted(pid: string): Promise<Record<string, string>> {
  for (;;) {
    const now = await service();
    if (now.MainPID !== pid && now.ActiveState === 'active') return now;
    await sleep(200);
  }
}
