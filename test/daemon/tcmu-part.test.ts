import assert from 'node:assert/strict';
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { constants } from 'node:os';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { pino } from 'pino';
import { tcmuLimits } from '../../src/base/limits.ts';
import { Devices } from '../../src/daemon/devices.ts';
import { Runtime } from '../../src/daemon/runtime.ts';
import { idOfTcmu } from '../../src/daemon/snapshotter-device.ts';
import { startTcmuPart, type TcmuPartOptions } from '../../src/daemon/tcmu-part.ts';
import { FakeTcmu, type FakeDevice } from '../support/fake-tcmu.ts';
import { acceptingPeer } from '../support/silent-peers.ts';
import { SleeplessClock } from '../support/sleepless-clock.ts';
import { Scratch } from '../support/scratch.ts';

// Goal: a daemon serves the snapshotter's devices where it can, as soon as it can, and as the only one;
// whatever keeps a device from being opened, it is listed, told of in its result file and answered for.
// Method: a folder that looks like /sys, events that the test makes, and images that cannot be opened.
// Guests (test/guest) show the same with a kernel and images that can be.

const { lookAgainMs, reopenMsFirst, reopenMsMax } = tcmuLimits;
const { EBUSY, ECANCELED } = constants.errno;

async function bench(t: TestContext, { isLoaded = true } = {}) {
  const scratch = new Scratch();
  t.after(() => scratch.close());
  const system = new FakeTcmu(scratch.path('sys'), isLoaded);
  const clock = new SleeplessClock();
  const warnings: string[] = [];
  const log = pino({ level: 'warn' }, { write: (line) => void warnings.push(line) });
  const runtime = await Runtime.open({
    cacheFolder: null,
    quotaBytes: 2 ** 20,
    traceFolder: scratch.path('traces'),
    clock,
  });
  scratch.atEnd(() => runtime.close());
  const devices = new Devices({ runtime, directory: scratch.folder });
  scratch.atEnd(() => devices.close());
  const context = { devices, runtime, directory: scratch.folder, service: null, log };
  const options = { root: system.root, openEvents: () => system, processNames: () => new Set('') };
  const start = (others: TcmuPartOptions = {}) => {
    const part = startTcmuPart(context, { ...options, ...others });
    scratch.atEnd(() => part.close());
    return part;
  };
  /** A device whose image has a layer that is not there, or other layers. */
  const device = (minor: number, lower: object, others: object = {}): FakeDevice => {
    const config = scratch.path(`config-${minor}.json`);
    const image = { lowers: [lower], resultFile: resultOf(minor), ...others };
    writeFileSync(config, JSON.stringify(image));
    return { minor, config: `overlaybd/${config}` };
  };
  const resultOf = (minor: number): string => scratch.path(`result-${minor}`);
  const result = (minor: number): string => readFileSync(resultOf(minor), 'utf8');
  return { scratch, system, clock, warnings, devices, start, device, result };
}

const missing = { file: '/nowhere/layer' };

test('a device is known by its id, by its folder, or by that and its adapter', () => {
  const name = { device: 'dev_5', subtype: 'overlaybd', config: '/c.json' };
  assert.equal(idOfTcmu({ ...name, hba: 999_999_999 }), 'dev_5');
  assert.equal(idOfTcmu({ ...name, hba: 1 }), 'user_1-dev_5');
  assert.equal(idOfTcmu({ ...name, hba: 1, config: '/c.json;x' }), 'x');
});

test('a module that is loaded later is used from then on', async (t) => {
  const { system, clock, warnings, start } = await bench(t, { isLoaded: false });
  start();
  assert.match(warnings.join(''), /not loaded.*modprobe target_core_user/);
  (await clock.untilSleeps(lookAgainMs)).wake();
  const again = await clock.untilSleeps(lookAgainMs);
  assert.equal(warnings.length, 1);
  system.load();
  again.wake();
  await new Promise(setImmediate);
  const stranger = { minor: 1, config: 'overlaybd/x' };
  system.tell('removed', stranger);
  await system.answered(1);
});

test('one process at a time answers the kernel', async (t) => {
  const first = await bench(t);
  const part = first.start();
  const second = await bench(t);
  const events = new FakeTcmu(second.scratch.path('other'));
  second.start({ root: first.system.root, openEvents: () => events });
  assert.match(second.warnings.join(''), /ERR_TCMU_LOCKED.*another replaybd daemon/);
  await part.close();
  (await second.clock.untilSleeps(lookAgainMs)).wake();
  await new Promise(setImmediate);
  events.tell('removed', { minor: 1, config: 'overlaybd/x' });
  await events.answered(1);
});

test('overlaybd-tcmu is left alone', async (t) => {
  const { warnings, start } = await bench(t);
  start({ processNames: () => new Set(['overlaybd-tcmu']) });
  assert.match(warnings.join(''), /overlaybd-tcmu runs/);
});

test('a daemon that may not write the parameters goes on without', async (t) => {
  const { system, warnings, start } = await bench(t, { isLoaded: false });
  // What cannot be opened for writing, by root either.
  const parameters = join(system.root, 'module', 'target_core_user', 'parameters');
  mkdirSync(join(parameters, 'reset_netlink'), { recursive: true });
  start();
  assert.match(warnings.join(''), /ERR_TCMU_PERMISSION.*may not be written.*Run as root/);
  assert.doesNotMatch(warnings.join(''), /modprobe/);
});

test('a device that cannot be opened again is listed, and tried again later and later', async (t) => {
  const { system, clock, devices, start, device, result } = await bench(t);
  const left = device(0, missing);
  system.make(left);
  start();
  for (let ms: number = reopenMsFirst; ; ms = Math.min(2 * ms, reopenMsMax)) {
    const { wake } = await clock.untilSleeps(ms);
    assert.equal(devices.get('dev_0').state, 'failed');
    assert.match(result(0), /^failed:.*\/nowhere\/layer/s);
    wake();
    if (ms === reopenMsMax) break;
  }
  await clock.untilSleeps(reopenMsMax);
  system.tell('removed', left);
  await system.answered(1);
  assert.deepEqual(system.answers, [['removed', 100, 0]]);
  assert.ok(!devices.has('dev_0'));
  assert.equal(clock.sleeping.length, 0);
});

test('a device that cannot be opened again, and is detached, is left alone', async (t) => {
  const { system, clock, devices, start, device } = await bench(t);
  const left = device(0, missing);
  system.make(left);
  start();
  await clock.untilSleeps(reopenMsFirst);
  await devices.detach('dev_0');
  await new Promise(setImmediate);
  assert.equal(clock.sleeping.length, 0);
  system.tell('removed', left);
  await system.answered(1);
  assert.deepEqual(system.answers, [['removed', 100, 0]]);
});

test('of two devices with one id the second is refused, and its end is not the end of the first', async (t) => {
  const { system, clock, devices, start, device, result } = await bench(t);
  const first = device(0, missing);
  first.config += ';same';
  system.make(first);
  start();
  await clock.untilSleeps(reopenMsFirst);
  const second = device(1, missing);
  second.config = second.config.replace('.json', '.json;same');
  system.make(second);
  system.tell('added', second);
  await system.answered(1);
  assert.deepEqual(system.answers, [['added', 101, -EBUSY]]);
  assert.match(result(1), /^failed:duplicated dev id: same/);
  system.tell('removed', second);
  await system.answered(2);
  assert.equal(devices.get('same').state, 'failed');
});

test('what is being opened fails when the daemon ends, and its result file says so', async (t) => {
  const { scratch, system, start, device, result } = await bench(t);
  const peer = await acceptingPeer(scratch);
  const slow = device(
    0,
    { digest: `sha256:${'a'.repeat(64)}`, size: 12_345, dir: scratch.path('none') },
    { repoBlobUrl: `http://127.0.0.1:${peer.port}/v2/x/blobs` },
  );
  const part = start();
  system.make(slow);
  system.tell('added', slow);
  await peer.untilAsked();
  await part.close();
  assert.deepEqual(system.answers, [['added', 100, -ECANCELED]]);
  assert.match(result(0), /^failed:/);
});
