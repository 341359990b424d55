import assert from 'node:assert/strict';
import { cpSync, existsSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { systemClock, type Clock } from '../../src/base/clock.ts';
import { silentLogger } from '../../src/base/log.ts';
import { packageRoot } from '../../src/base/package-root.ts';
import type { AttachParameters } from '../../src/daemon/attach-parameters.ts';
import { deviceHandlers } from '../../src/daemon/device-handlers.ts';
import { DeviceStore } from '../../src/daemon/device-store.ts';
import { Devices } from '../../src/daemon/devices.ts';
import { upstreamSnapshot } from '../../src/daemon/upstream-snapshot.ts';
import { containFaults } from '../../src/daemon/faults.ts';
import { Runtime } from '../../src/daemon/runtime.ts';
import type { TouchPage } from '../../src/daemon/touch-feed.ts';
import { NbdReader } from '../../src/demo/nbd-client.ts';
import type { BlockDevice } from '../../src/device/block-device.ts';
import { prepare } from '../../src/frontend/nbd/prepare.ts';
import {
  startEmbeddedRegistry,
  type EmbeddedRegistry,
} from '../../src/registry/embedded/server.ts';
import type { PreparedFrontend } from '../../src/frontend/frontend.ts';
import { blobFault } from '../registry/harness.ts';
import { Scratch, scratchOf } from '../support/scratch.ts';
import { makeTestImage, type TestImage } from '../support/test-image.ts';

// Goal: the devices of one process come and go side by side, by their ids, and what happens to one of
// them, be it a slow registry or a fault in its own code, does not happen to the others.
// Method: devices in this process over an embedded registry, one of which is made to hang, and faults
// thrown where nobody catches them.

const fixture = new Scratch();
let registry: EmbeddedRegistry;
let image: TestImage;
let slow: EmbeddedRegistry;
let slowImage: TestImage;
let disk = Buffer.alloc(0);

before(async () => {
  registry = await startEmbeddedRegistry({ root: fixture.path('registry') });
  fixture.atEnd(() => registry.close());
  const rootfs = fixture.path('rootfs');
  cpSync(join(packageRoot, 'node_modules', 'pino'), rootfs, { recursive: true });
  image = await makeTestImage(fixture, registry.url, [rootfs], 16);
  const second = new Scratch();
  fixture.atEnd(() => second.close());
  slow = await startEmbeddedRegistry({ root: second.path('registry') });
  fixture.atEnd(() => slow.close());
  const others = join(packageRoot, 'node_modules', 'msgpackr');
  slowImage = await makeTestImage(second, slow.url, [others], 16);
  disk = readFileSync(image.raw);
});
after(() => fixture.close());

interface Bench {
  runtime: Runtime;
  devices: Devices;
  store: DeviceStore;
}

async function bench(scratch: Scratch, clock: Clock = systemClock): Promise<Bench> {
  const runtime = await Runtime.open({
    cacheFolder: null,
    quotaBytes: 2 ** 30,
    traceFolder: scratch.path('traces'),
    readDeadlineMs: 1000,
    clock,
  });
  scratch.atEnd(() => runtime.close());
  const store = await DeviceStore.open(scratch.path('state'), silentLogger);
  const devices = new Devices({ runtime, directory: scratch.folder, store });
  scratch.atEnd(() => devices.close());
  return { runtime, devices, store };
}

function wanted(id: string, others: Partial<AttachParameters> = {}): AttachParameters {
  const { reference } = image;
  const common = { image: reference, mode: 'off', workload: [], frontend: 'none' } as const;
  return { id, ...common, frontendParameters: {}, ...others };
}

/** As front ends do: the tap hears of it. */
async function readAsGuest(device: BlockDevice, offset: number): Promise<void> {
  const into = Buffer.alloc(4096);
  if (!device.readCached(offset, into)) await device.read(offset, into);
}

async function assertReads({ devices }: Bench, id: string): Promise<void> {
  const into = Buffer.alloc(65_536);
  await devices.get(id).attachment.device.read(2 ** 20, into);
  assert.ok(into.equals(disk.subarray(2 ** 20, 2 ** 20 + into.length)));
}

test('a device tells what its guest touches first, and how long misses took', async (t) => {
  const { devices } = await bench(scratchOf(t));
  const { attachment } = await devices.attach(wanted('a'));
  // Opening may have fetched these bytes already: as front ends do when they find that it has not.
  await attachment.device.read(2 ** 20, Buffer.alloc(4096));
  await readAsGuest(attachment.device, 2 ** 20);
  const { touches, stats } = deviceHandlers(devices);
  const page = (await touches('a', 0)) as unknown as TouchPage;
  assert.equal(page.touches.length, 1, 'the second read touched nothing new');
  const [[timeMs, ...touched]] = page.touches;
  assert.ok(timeMs > 0);
  assert.deepEqual(touched, [2 ** 20, 4096, 'demand']);
  assert.deepEqual(await touches('a', page.next), { next: page.next, lost: 0, touches: [] });
  const { missLatencyBuckets } = (await stats('a')) as { missLatencyBuckets: [number, number][] };
  assert.deepEqual(
    missLatencyBuckets.map(([, count]) => count),
    [1],
  );
});

test('asking again gives the same device, other parameters are a conflict', async (t) => {
  const all = await bench(scratchOf(t));
  const { devices } = all;
  const [first, second] = await Promise.all([
    devices.attach(wanted('a')),
    devices.attach(wanted('a')),
  ]);
  assert.equal(first, second);
  assert.equal(await devices.attach(wanted('a')), first);
  await assert.rejects(devices.attach(wanted('a', { mode: 'record' })), {
    code: 'ERR_DEVICE_CONFLICT',
    message: /\(mode differ\)/,
  });
  await assertReads(all, 'a');
  // A detach and an attach that overlap: the second waits for the first.
  const detached = devices.detach('a');
  const again = await devices.attach(wanted('a', { mode: 'record' }));
  assert.equal((await detached)?.mode, 'off');
  assert.equal(again.summary.mode, 'record');
  await devices.detach('a');
  await assert.rejects(devices.detach('a'), { code: 'ERR_DEVICE_UNKNOWN' });
  assert.deepEqual(devices.list(), []);
});

test('a registry that hangs delays its own device, which can be detached, and no other', async (t) => {
  const scratch = scratchOf(t);
  const all = await bench(scratch);
  const { devices } = all;
  slow.setFaults(blobFault({ kind: 'delay', ms: 600_000 }));
  const hanging = Array.from({ length: 40 }, (_, i) =>
    devices.attach(wanted(`slow${i}`, { image: slowImage.reference, mode: 'auto' })),
  );
  const settled = Promise.allSettled(hanging);
  await devices.attach(wanted('quick'));
  await assertReads(all, 'quick');
  assert.equal(devices.get('slow7').state, 'opening');
  assert.throws(() => devices.get('slow7').attachment, { code: 'ERR_DEVICE_STATE' });
  assert.equal(await devices.detach('slow7'), null);
  await devices.close();
  for (const { status } of await settled) assert.equal(status, 'rejected');
  await assert.rejects(devices.attach(wanted('late')), { code: 'ERR_DAEMON_CLOSING' });
});

test('a fault in the code of one device fails that device alone', async (t) => {
  const scratch = scratchOf(t);
  const all = await bench(scratch);
  const { devices } = all;
  const fatal: unknown[] = [];
  // The test runner would take every such error for a failure of the test.
  const listeners = process.listeners('uncaughtException');
  process.removeAllListeners('uncaughtException');
  const stopContaining = containFaults(silentLogger, (error) => fatal.push(error));
  t.after(() => {
    stopContaining();
    for (const listener of listeners) process.on('uncaughtException', listener);
  });
  const socket = scratch.path('nbd');
  const kept = await devices.attach(
    wanted('kept', { frontend: 'nbd', frontendParameters: { socket: scratch.path('kept') } }),
  );
  let isArmed = false;
  const broken = await devices.attach(
    wanted('broken', { frontend: 'nbd', frontendParameters: { socket } }),
    {
      prepare: (request) => {
        // A timer of the device's own: what it throws nobody can catch.
        const timer = setInterval(() => assert.ok(!isArmed, 'a defect'), 5);
        scratch.atEnd(() => clearInterval(timer));
        return prepare(request);
      },
    },
  );
  const reader = await NbdReader.connect(socket);
  assert.ok(disk.subarray(2 ** 20, 2 ** 20 + 4096).equals(await reader.read(2 ** 20, 4096)));
  isArmed = true;
  while (broken.state !== 'failed') await new Promise((resolve) => setTimeout(resolve, 5));
  isArmed = false;
  assert.match(broken.summary.failure ?? '', /a defect/);
  await assert.rejects(reader.read(2 ** 20, 4096), 'bytes that were read before are refused too');
  reader.close();

  assert.equal(kept.state, 'ready');
  const other = await NbdReader.connect(scratch.path('kept'));
  assert.ok(disk.subarray(0, 4096).equals(await other.read(0, 4096)));
  other.close();
  assert.deepEqual(fatal, []);
  // What failed makes room for a new attempt with the same name.
  const again = await devices.attach(
    wanted('broken', { frontend: 'nbd', frontendParameters: { socket } }),
  );
  assert.equal(again.state, 'ready');
  await assertReads(all, 'broken');
});

test('a tick that throws fails its device, and the others are looked after', async (t) => {
  const { devices, runtime } = await bench(scratchOf(t));
  const broken = await devices.attach(wanted('broken', { mode: 'record' }));
  const kept = await devices.attach(wanted('kept', { mode: 'record' }));
  const { recording } = broken.attachment;
  assert.ok(recording !== null);
  recording.tick = () => assert.fail('a defect');
  await readAsGuest(broken.attachment.device, 0);
  while (broken.state !== 'failed') await runtime.clock.sleep(5);
  await readAsGuest(kept.attachment.device, 0);
  while (kept.attachment.recording?.recorder.count === 0) await runtime.clock.sleep(5);
  assert.equal(kept.state, 'ready');
});

test('a device that nobody reads is left alone, and its recording ends in time all the same', async (t) => {
  let laterMs = 0;
  const clock = { ...systemClock, nowMs: () => systemClock.nowMs() + laterMs };
  const { devices, runtime } = await bench(scratchOf(t), clock);
  const parameters = wanted('idle', { mode: 'record', untilIdle: 60 });
  const { recording, device, quality } = (await devices.attach(parameters)).attachment;
  assert.ok(recording !== null);
  let ticks = 0;
  const tick = recording.tick.bind(recording);
  recording.tick = () => {
    ticks += 1;
    tick();
  };
  const ticksOf = (rounds: number): number => {
    const before = ticks;
    for (let i = 0; i < rounds; i += 1) runtime.ticker.tick();
    return ticks - before;
  };
  ticksOf(1);
  assert.equal(ticksOf(50), 0);
  await readAsGuest(device, 0);
  ticksOf(1);
  assert.equal(recording.recorder.count, 1);
  assert.equal(ticksOf(50), 0);
  const { hits } = quality.snapshot();
  assert.ok(device.readCached(0, Buffer.alloc(4096)));
  assert.equal(ticksOf(50), 1);
  assert.equal(quality.snapshot().hits, hits + 1);
  // What is new is saved by a checkpoint, and then there is nothing to do again.
  laterMs = 2000;
  assert.equal(ticksOf(50), 1);
  assert.equal(recording.ended, false);
  laterMs = 60_000;
  assert.equal(ticksOf(50), 1);
  assert.equal((await recording.finished).recording.endReason, 'idle');
  laterMs = 2 ** 40;
  assert.equal(ticksOf(50), 0);
});

test('a source that throws is an error of the read, and of no other device', async (t) => {
  const all = await bench(scratchOf(t));
  const { devices, runtime } = all;
  const openRemoteBlob = runtime.openRemoteBlob.bind(runtime);
  runtime.openRemoteBlob = async (lower) => {
    const blob = await openRemoteBlob(lower);
    blob.source.fetch = () => Promise.reject(new TypeError('a defect'));
    return blob;
  };
  const opening = devices.attach(wanted('broken'));
  await assert.rejects(opening);
  runtime.openRemoteBlob = openRemoteBlob;
  await devices.attach(wanted('kept'));
  await assertReads(all, 'kept');
});

test('descriptions are private, versioned, and survive the process', async (t) => {
  const scratch = scratchOf(t);
  const { devices, store } = await bench(scratch);
  const parameters = wanted('kept', { workload: ['a', 'b'], upper: scratch.path('upper') });
  await devices.attach(parameters);
  await devices.attach(wanted('gone'));
  await devices.detach('gone');
  const name = scratch.path('state', 'kept.device.json');
  assert.equal(statSync(name).mode & 0o777, 0o600);
  await devices.close();
  assert.deepEqual(await store.load(), [parameters]);

  writeFileSync(scratch.path('state', 'other.device.json'), readFileSync(name));
  writeFileSync(scratch.path('state', 'new.device.json'), '{"version":2,"device":{"id":"new"}}');
  writeFileSync(scratch.path('state', 'torn.device.json'), '{"version":1,"dev');
  const next = await bench(scratch);
  assert.deepEqual(await next.store.load(), [parameters], 'what is not understood is left out');
  await next.devices.adopt(parameters);
  await assertReads(next, 'kept');
});

test('a device that cannot be attached again stays, as failed, until somebody decides', async (t) => {
  const scratch = scratchOf(t);
  const { devices, store } = await bench(scratch);
  const missing = wanted('d', { image: scratch.path('missing.json') });
  await store.save(missing);
  await devices.adopt(missing);
  const { state, failure } = devices.get('d').summary;
  assert.equal(state, 'failed');
  assert.match(failure ?? '', /missing\.json/);
  assert.equal((await store.load()).length, 1);
  await devices.attach(wanted('d'));
  assert.equal(devices.get('d').state, 'ready');
  await devices.detach('d');
  assert.deepEqual(readdirSync(scratch.path('state')), []);
  await assert.rejects(devices.attach(missing), /missing\.json/);
  assert.ok(!devices.has('d') && !existsSync(scratch.path('state', 'd.device.json')));
});

test('what a former process has left of a device is ended by a detach, and by nothing else', async (t) => {
  const { devices } = await bench(scratchOf(t));
  let takenDown = 0;
  const prepare = (): PreparedFrontend => ({
    readerThreads: 0,
    start: () => Promise.reject(new Error('cannot be served')),
    discard: () => undefined,
    takeDown: async () => void (takenDown += await Promise.resolve(1)),
  });
  await assert.rejects(devices.attach(wanted('d'), { prepare }), /cannot be served/);
  await devices.adopt(wanted('d'), { prepare });
  await devices.adopt(wanted('d'), { prepare });
  assert.equal(devices.get('d').state, 'failed');
  assert.equal(takenDown, 0);
  await devices.detach('d');
  assert.equal(takenDown, 1);
  assert.ok(!devices.has('d'));
});

test('a recording begins and ends while the device goes on', async (t) => {
  const scratch = scratchOf(t);
  const { devices } = await bench(scratch);
  const { attachment } = await devices.attach(wanted('d'));
  const read = async (offset: number): Promise<void> => {
    await readAsGuest(attachment.device, offset);
  };
  await read(0);
  const trace = scratch.path('trace');
  assert.equal(attachment.startRecording({ trace }), trace);
  assert.throws(() => attachment.startRecording({}), { code: 'ERR_RECORDING' });
  await read(2 ** 20);
  await read(2 ** 20 + 2 ** 15);
  const { records } = await attachment.stopRecording('request');
  assert.deepEqual([...records.lba].slice(0, records.count), [2 ** 11, 2 ** 11 + 2 ** 6]);
  assert.ok(existsSync(trace));
  assert.equal(attachment.report().trace?.path, trace);
  const stored = attachment.startRecording({ workload: ['second'] });
  assert.ok(stored.startsWith(scratch.path('traces')));
});

interface ConfigFile {
  repoBlobUrl: string;
  lowers: object[];
}

test("overlaybd's snapshot call takes the writable layer that the other configuration names", async (t) => {
  const scratch = scratchOf(t);
  const { devices } = await bench(scratch);
  const { attachment } = await devices.attach(wanted('d', { upper: scratch.path('upper') }));
  const bytes = Buffer.alloc(4096, 7);
  await attachment.device.writer?.write(8192, bytes, false);
  const config = scratch.path('next.json');
  const upper = { data: scratch.path('next.data'), index: scratch.path('next.index') };
  const keys = { resultFile: scratch.path('result'), others: { kept: true } };
  writeFileSync(config, JSON.stringify({ repoBlobUrl: '', lowers: [], upper, ...keys }));
  const present = scratch.path('upper', 'config.v1.json');
  const before = JSON.parse(readFileSync(present, 'utf8')) as ConfigFile;
  const ask = (query: string) => upstreamSnapshot(devices, new URLSearchParams(query));
  assert.equal((await ask('dev_id=d')).status, 400);
  assert.equal((await ask(`dev_id=x&config=${config}`)).status, 404);
  const done = await ask(`dev_id=d&config=${config}`);
  assert.deepEqual([done.status, done.success], [200, true], done.message);
  assert.ok(!existsSync(config) && existsSync(upper.data));
  assert.equal(attachment.report().upper?.data, upper.data);
  const after = JSON.parse(readFileSync(present, 'utf8')) as ConfigFile;
  assert.partialDeepStrictEqual(after, { ...keys, upper, repoBlobUrl: before.repoBlobUrl });
  assert.notEqual(after.repoBlobUrl, '');
  assert.deepEqual(after.lowers.slice(0, -1), before.lowers);
  const into = Buffer.alloc(4096);
  await attachment.device.read(8192, into);
  assert.ok(into.equals(bytes));
  assert.equal((await ask(`dev_id=d&config=${config}`)).status, 500, 'it is gone');
});
