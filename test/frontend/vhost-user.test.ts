import assert from 'node:assert/strict';
import { closeSync, readSync, statSync } from 'node:fs';
import { test, type TestContext } from 'node:test';
import fc from 'fast-check';
import { createMemoryFile } from '../../native/shared-fd.ts';
import type { ServedDevice } from '../../src/frontend/vhost-user/block-config.ts';
import { blockStatus, blockType, request } from '../../src/frontend/vhost-user/protocol.ts';
import { startVhostUser } from '../../src/frontend/vhost-user/server.ts';
import { scratchOf } from '../support/scratch.ts';
import { PLAIN, rangesOf, VhostDisk, type Shape } from '../support/vhost-disk.ts';
import { VhostDriver, type DriverOptions } from '../../bench/support/vhost-driver.ts';
import {
  applyToOracle,
  assertSameDisk,
  operations,
  writtenBytes,
  type DiskOperation,
} from '../support/write-oracle.ts';
import { MemoryDevice, patternedBytes, type MemoryDeviceOptions } from './nbd-fixture.ts';

// Goal: a guest sees the device's bytes, whatever rings, descriptors and queues its driver uses. Method: a
// front end and driver in this process, with shared memory and event descriptors as a monitor has them.

const DISK_BYTES = 1024 * 1024;

interface Served {
  device: MemoryDevice;
  driver: VhostDriver;
  disk: VhostDisk;
  path: string;
}

async function serve(
  t: TestContext,
  deviceOptions: MemoryDeviceOptions = {},
  driverOptions: DriverOptions = {},
): Promise<Served> {
  const scratch = scratchOf(t);
  const device = new MemoryDevice(patternedBytes(DISK_BYTES), deviceOptions);
  const frontend = await startVhostUser(device, { socketPath: scratch.path('vhost') });
  scratch.atEnd(() => frontend.close());
  const driver = await VhostDriver.connect(frontend.path, driverOptions);
  scratch.atEnd(() => driver.close());
  await driver.begin();
  return { device, driver, disk: new VhostDisk(driver), path: frontend.path };
}

const shapes: fc.Arbitrary<Shape> = fc.record({
  isIndirect: fc.boolean(),
  cuts: fc.array(fc.integer({ min: 1, max: 9000 }), { minLength: 1, maxLength: 4 }),
  isMerged: fc.boolean(),
});

test('the socket is private, and the configuration that of the device', async (t) => {
  const { path, driver, device } = await serve(t, { writable: true });
  assert.equal(statSync(path).mode & 0o777, 0o600);
  const asked = Buffer.alloc(12 + 60);
  asked.writeUInt32LE(60, 4);
  const config = (await driver.ask(request.getConfig, asked)).payload.subarray(12);
  assert.equal(config.readBigUInt64LE(0), BigInt(device.virtualSizeBytes / 512));
  assert.deepEqual([config.readUInt32LE(20), config.readUInt16LE(34)], [512, 4]);
  assert.ok(config.readUInt32LE(36) > 0, 'discards have a limit');
});

test('a front end is told of a new size, and nothing grows behind the back of one that cannot be', async (t) => {
  const scratch = scratchOf(t);
  const memory = new MemoryDevice(patternedBytes(DISK_BYTES), { writable: true });
  let sizeBytes = DISK_BYTES / 2;
  const device = Object.create(memory, {
    virtualSizeBytes: { get: () => sizeBytes },
  }) as ServedDevice;
  const frontend = await startVhostUser(device, { socketPath: scratch.path('vhost') });
  scratch.atEnd(() => frontend.close());
  const grow = async (): Promise<void> => {
    sizeBytes = DISK_BYTES;
    await Promise.resolve();
  };
  const driver = await VhostDriver.connect(frontend.path);
  scratch.atEnd(() => driver.close());
  await assert.rejects(frontend.resize?.(grow) ?? Promise.resolve(), {
    code: 'ERR_RESIZE_FRONTEND',
  });
  assert.equal(sizeBytes, DISK_BYTES / 2);

  assert.notEqual(await driver.attempt(request.setBackendChannel, Buffer.alloc(0)), 0n);
  const channel = createMemoryFile('channel', 64);
  scratch.atEnd(() => closeSync(channel));
  await driver.tell(request.setBackendChannel, Buffer.alloc(0), { fds: [channel] });
  await frontend.resize?.(grow);
  const told = Buffer.alloc(64);
  readSync(channel, told, 0, told.length, 0);
  assert.deepEqual([told.readUInt32LE(0), told.readUInt32LE(4), told.readUInt32LE(8)], [2, 1, 0]);
  const asked = Buffer.alloc(12 + 8);
  asked.writeUInt32LE(8, 4);
  const config = (await driver.ask(request.getConfig, asked)).payload.subarray(12);
  assert.equal(config.readBigUInt64LE(0), BigInt(DISK_BYTES / 512));
});

for (const eventIndex of [false, true]) {
  for (const queues of [1, 4]) {
    const name = `${queues} queue(s) ${eventIndex ? 'with' : 'without'} event index`;
    test(`a flat disk and the device stay the same: ${name}`, async (t) => {
      const options = { writable: true, missEvery: 3, delayMsMax: 2 };
      const { device, driver, disk } = await serve(t, options, { queues, eventIndex });
      const oracle = Buffer.from(device.bytes);
      const property = fc.asyncProperty(
        operations(DISK_BYTES / 512),
        shapes,
        async (ops, shape) => {
          for (const [i, operation] of ops.entries()) {
            const queue = driver.queues[i % queues];
            await carryOut(disk, queue, operation, oracle, shape);
            applyToOracle(oracle, operation);
          }
          assertSameDisk(device.bytes, oracle, 'after all operations');
        },
      );
      await fc.assert(property, { numRuns: 6 });
    });
  }
}

async function carryOut(
  disk: VhostDisk,
  queue: VhostDriver['queues'][number],
  operation: DiskOperation,
  oracle: Buffer,
  shape: Shape,
): Promise<void> {
  switch (operation.kind) {
    case 'read': {
      const { offset, length } = operation;
      const found = await disk.read(queue, offset, length, shape);
      return assertSameDisk(found, oracle.subarray(offset, offset + length), 'read');
    }
    case 'write':
      return await disk.change(
        queue,
        blockType.write,
        operation.offset,
        writtenBytes(operation),
        shape,
      );
    case 'discard':
    case 'zero': {
      const type = operation.kind === 'zero' ? blockType.writeZeroes : blockType.discard;
      const { status } = await disk.clear(queue, type, [[operation.offset, operation.length]]);
      return assert.equal(status, blockStatus.ok);
    }
    default:
      return await disk.change(queue, blockType.flush, 0, Buffer.alloc(0), shape);
  }
}

test('requests run side by side and finish out of order, in batches', async (t) => {
  const options = { missEvery: 2, delayMsMax: 5 };
  const { device, driver, disk } = await serve(t, options, {
    queues: 2,
    memoryBytes: 16 * 2 ** 20,
  });
  // Far more than rings hold, so that their indexes go around.
  for (let round = 0; round < 20; round += 1) {
    const reads = Array.from({ length: 24 }, async (_, i) => {
      const offset = ((round * 24 + i) * 4096 * 7) % DISK_BYTES;
      const length = Math.min(4096 * (1 + (i % 3)), DISK_BYTES - offset);
      const found = await disk.read(driver.queues[i % 2], offset, length);
      assertSameDisk(found, device.bytes.subarray(offset, offset + length), `read ${i}`);
    });
    await Promise.all(reads);
  }
  const [{ kicks, calls }] = driver.queues;
  assert.ok(
    calls > 0 && calls < 240 && kicks < 240,
    `${kicks} kicks, ${calls} calls for 240 reads`,
  );
});

test('what a device refuses a guest hears of', async (t) => {
  const { driver, disk } = await serve(t);
  const [queue] = driver.queues;
  const data = Buffer.alloc(512);
  const statusOf = async (type: number, offset: number, out: Buffer | null, inBytes: number) =>
    (await disk.request(queue, type, offset, out, inBytes, PLAIN)).status;
  assert.equal(driver.features & (1n << 5n), 1n << 5n, 'read-only is offered');
  assert.equal(await statusOf(blockType.write, 0, data, 0), blockStatus.ioError);
  assert.equal(
    await statusOf(blockType.discard, 0, rangesOf([[0, 512]]), 0),
    blockStatus.unsupported,
  );
  assert.equal(await statusOf(blockType.read, DISK_BYTES - 512, null, 1024), blockStatus.ioError);
  assert.equal(await statusOf(blockType.read, 2 ** 52, null, 512), blockStatus.ioError);
  assert.equal(await statusOf(blockType.read, 0, null, 511), blockStatus.ioError);
  assert.equal(await statusOf(99, 0, null, 512), blockStatus.unsupported);
  assert.equal(await statusOf(blockType.flush, 0, null, 0), blockStatus.ok);
  const id = await disk.request(queue, blockType.getId, 0, null, 20, PLAIN);
  assert.equal(id.data.toString('latin1').replace(/\0+$/, ''), 'memory');
});

test('ranges past the end, too long or with unknown flags are not cleared', async (t) => {
  const { device, driver, disk } = await serve(t, { writable: true });
  const before = Buffer.from(device.bytes);
  const [queue] = driver.queues;
  const clear = async (type: number, data: Buffer) =>
    (await disk.request(queue, type, 0, data, 0, PLAIN)).status;
  const good: [number, number] = [0, 4096];
  assert.equal(await clear(blockType.discard, rangesOf([good, [DISK_BYTES, 512]])), 1);
  assert.equal(await clear(blockType.discard, rangesOf([good], 1)), blockStatus.unsupported);
  assert.equal(await clear(blockType.writeZeroes, rangesOf([good], 2)), blockStatus.unsupported);
  assert.equal(await clear(blockType.discard, rangesOf([good]).subarray(0, 15)), 1);
  assertSameDisk(device.bytes, before, 'refused requests change nothing');
  assert.equal(await clear(blockType.writeZeroes, rangesOf([good], 1)), blockStatus.ok);
  assert.ok(device.bytes.subarray(0, 4096).every((byte) => byte === 0));
});

test('writes are durable until the guest flushes, and while it has chosen that', async (t) => {
  const sector = Buffer.alloc(512, 1);
  const noFlush = await serve(t, { writable: true }, { features: ~(1n << 9n) });
  await noFlush.disk.change(noFlush.driver.queues[0], blockType.write, 0, sector);
  assert.deepEqual(noFlush.device.calls, ['write-fua']);
  const { disk, driver, device } = await serve(t, { writable: true });
  const [queue] = driver.queues;
  await disk.change(queue, blockType.write, 0, sector);
  await disk.change(queue, blockType.flush, 0, Buffer.alloc(0));
  await disk.change(queue, blockType.write, 0, sector);
  for (const writeback of [0, 1]) {
    const change = Buffer.alloc(13);
    change.writeUInt32LE(32, 0);
    change.writeUInt32LE(1, 4);
    change.writeUInt8(writeback, 12);
    await driver.tell(request.setConfig, change);
    await disk.change(queue, blockType.write, 0, sector);
  }
  assert.deepEqual(device.calls, ['write-fua', 'flush', 'write', 'write-fua', 'write']);
});
