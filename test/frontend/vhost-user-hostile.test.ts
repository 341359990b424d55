import assert from 'node:assert/strict';
import { closeSync, readdirSync } from 'node:fs';
import { test, type TestContext } from 'node:test';
import fc from 'fast-check';
import { request } from '../../src/frontend/vhost-user/protocol.ts';
import { nextReadable } from '../../src/frontend/vhost-user/readable.ts';
import { startVhostUser } from '../../src/frontend/vhost-user/server.ts';
import { createMemoryFile } from '../../native/shared-fd.ts';
import {
  GUEST_BASE,
  memoryTable,
  pair,
  u64,
  VhostDriver,
  writeDescriptor,
} from '../../bench/support/vhost-driver.ts';
import { scratchOf } from '../support/scratch.ts';
import { VhostDisk } from '../support/vhost-disk.ts';
import { assertSameDisk } from '../support/write-oracle.ts';
import { MemoryDevice, patternedBytes } from './nbd-fixture.ts';

// Goal: neither a guest nor a monitor can make the back end touch memory outside of its regions, hang, leak
// descriptors or fail for the next. Method: descriptors, rings and messages that are wrong by construction
// or at random, against canaries in the same file beyond the region's end.

const DISK_BYTES = 256 * 1024;
const CANARY_BYTES = 64 * 1024;
const MEMORY_BYTES = 1024 * 1024;

interface Served {
  device: MemoryDevice;
  path: string;
}

async function serve(t: TestContext): Promise<Served> {
  const scratch = scratchOf(t);
  const device = new MemoryDevice(patternedBytes(DISK_BYTES), { writable: true, missEvery: 5 });
  const frontend = await startVhostUser(device, { socketPath: scratch.path('vhost') });
  scratch.atEnd(() => frontend.close());
  return { device, path: frontend.path };
}

/** The guest's region ends before the file does. */
async function guest(path: string, eventIndex = false): Promise<VhostDriver> {
  const driver = await VhostDriver.connect(path, { eventIndex, memoryBytes: MEMORY_BYTES });
  driver.bytes.fill(0xca, MEMORY_BYTES - CANARY_BYTES);
  const payload = memoryTable(MEMORY_BYTES - CANARY_BYTES);
  await driver.tell(request.setMemoryTable, payload, { fds: [driver.memoryFd] });
  await driver.queues[0].start();
  return driver;
}

function assertCanary({ bytes }: VhostDriver): void {
  assert.ok(bytes.subarray(MEMORY_BYTES - CANARY_BYTES).every((byte) => byte === 0xca));
}

/** The back end serves a new connection as if nothing had been. */
async function assertServes({ path, device }: Served): Promise<void> {
  const driver = await VhostDriver.connect(path, { memoryBytes: MEMORY_BYTES });
  await driver.begin();
  const disk = new VhostDisk(driver, 64 * 1024);
  const found = await disk.read(driver.queues[0], 0, 8192);
  assertSameDisk(found, device.bytes.subarray(0, 8192), 'afterwards');
  driver.close();
}

interface WrongRing {
  name: string;
  /** Writes what is wrong, and gives the head to offer. */
  make: (bytes: Buffer, at: VhostDriver['queues'][number]['at'], data: number) => number;
}

const header = (data: number) => ({ offset: data, length: 16, writable: false });
const status = (data: number) => ({ offset: data + 64, length: 1, writable: true });
const END = MEMORY_BYTES - CANARY_BYTES;

const wrongRings: WrongRing[] = [
  { name: 'a head outside of the table', make: () => 128 },
  {
    name: 'a chain that goes in circles',
    make: (bytes, { descriptors }, data) => {
      writeDescriptor(bytes, descriptors, header(data), 1);
      writeDescriptor(bytes, descriptors + 16, header(data), 0);
      return 0;
    },
  },
  {
    name: 'a next descriptor outside of the table',
    make: (bytes, { descriptors }, data) => {
      writeDescriptor(bytes, descriptors, header(data), 500);
      return 0;
    },
  },
  ...[
    { offset: END - 256, length: 512, writable: true },
    { offset: END, length: 512, writable: true },
    { offset: -1, length: 512, writable: true },
    { offset: 0, length: 0xffff_fe00, writable: true },
    { offset: 2 ** 52, length: 512, writable: true },
  ].map((piece) => ({
    name: `data at ${piece.offset}, ${piece.length} bytes`,
    make: (
      bytes: Buffer,
      { descriptors }: VhostDriver['queues'][number]['at'],
      data: number,
    ): number => {
      writeDescriptor(bytes, descriptors, header(data), 1);
      writeDescriptor(bytes, descriptors + 16, piece, 2);
      writeDescriptor(bytes, descriptors + 32, status(data), null);
      return 0;
    },
  })),
  {
    name: 'an address that wraps around',
    make: (bytes, { descriptors }, data) => {
      writeDescriptor(bytes, descriptors, header(data), 1);
      writeDescriptor(bytes, descriptors + 16, status(data), null);
      bytes.writeBigUInt64LE(0xffff_ffff_ffff_ff00n, descriptors + 16);
      bytes.writeUInt32LE(0xffff_ffff, descriptors + 24);
      return 0;
    },
  },
  {
    name: 'an answer before the question',
    make: (bytes, { descriptors }, data) => {
      writeDescriptor(bytes, descriptors, status(data), 1);
      writeDescriptor(bytes, descriptors + 16, header(data), null);
      return 0;
    },
  },
  {
    name: 'no room for a status',
    make: (bytes, { descriptors }, data) => {
      writeDescriptor(bytes, descriptors, header(data), null);
      return 0;
    },
  },
  {
    name: 'half a header',
    make: (bytes, { descriptors }, data) => {
      writeDescriptor(bytes, descriptors, { ...header(data), length: 8 }, 1);
      writeDescriptor(bytes, descriptors + 16, status(data), null);
      return 0;
    },
  },
  ...[0, 24, 16 * 2000, 0xffff_fff0].map((length) => ({
    name: `an indirect table of ${length} bytes`,
    make: (bytes: Buffer, { descriptors }: VhostDriver['queues'][number]['at'], data: number) => {
      writeDescriptor(bytes, descriptors, { offset: data, length, writable: false }, null);
      bytes.writeUInt16LE(4, descriptors + 12);
      return 0;
    },
  })),
  {
    name: 'an indirect table inside another',
    make: (bytes, { descriptors }, data) => {
      const table = { offset: data, length: 32, writable: false };
      writeDescriptor(bytes, descriptors, table, null);
      bytes.writeUInt16LE(4, descriptors + 12);
      writeDescriptor(bytes, data, table, null);
      bytes.writeUInt16LE(4, data + 12);
      return 0;
    },
  },
];

test('a ring that is wrong stops its queue alone, and says so', async (t) => {
  const served = await serve(t);
  for (const { name, make } of wrongRings) {
    const driver = await guest(served.path);
    const [queue] = driver.queues;
    queue.offer(make(driver.bytes, queue.at, driver.dataAt));
    await nextReadable(queue.errorFd, t.signal);
    assertCanary(driver);
    assert.equal(driver.bytes.readUInt16LE(queue.at.used + 2), 0, `${name}: nothing was answered`);
    driver.close();
  }
  await assertServes(served);
});

test('a ring index that jumps stops the queue', async (t) => {
  const served = await serve(t);
  const driver = await guest(served.path);
  const [queue] = driver.queues;
  driver.bytes.writeUInt16LE(129, queue.at.available + 2);
  queue.kick();
  await nextReadable(queue.errorFd, t.signal);
  driver.close();
  await assertServes(served);
});

test('random rings harm nobody', async (t) => {
  const served = await serve(t);
  const word = fc.oneof(fc.nat(0xffff), fc.constantFrom(0, 1, 2, 3, 4, 5, 127, 128, 0xffff));
  const descriptor = fc.record({
    address: fc.oneof(
      fc.integer({ min: GUEST_BASE - 4096, max: GUEST_BASE + MEMORY_BYTES }),
      fc.constant(GUEST_BASE + 131_072),
      fc.maxSafeNat(),
    ),
    length: fc.oneof(fc.nat(70_000), fc.constantFrom(0, 1, 16, 17, 512, 513, 0xffff_ffff)),
    flags: word,
    next: fc.oneof(fc.nat(16), word),
  });
  const rings = fc.record({
    table: fc.array(descriptor, { minLength: 1, maxLength: 16 }),
    heads: fc.array(fc.oneof(fc.nat(15), word), { minLength: 1, maxLength: 8 }),
    header: fc.constantFrom(0, 1, 4, 8, 11, 13, 77),
    eventIndex: fc.boolean(),
  });
  await fc.assert(
    fc.asyncProperty(rings, async ({ table, heads, header, eventIndex }) => {
      const driver = await guest(served.path, eventIndex);
      const [queue] = driver.queues;
      queue.isFilledByHand = true;
      driver.bytes.writeUInt32LE(header, driver.dataAt);
      table.forEach(({ address, length, flags, next }, i) => {
        const at = queue.at.descriptors + i * 16;
        driver.bytes.writeBigUInt64LE(BigInt(address), at);
        driver.bytes.writeUInt32LE(length, at + 8);
        driver.bytes.writeUInt16LE(flags, at + 12);
        driver.bytes.writeUInt16LE(next, at + 14);
        driver.bytes.copy(driver.bytes, driver.dataAt + i * 16, at, at + 16);
      });
      heads.forEach((head, i) => {
        driver.bytes.writeUInt16LE(head, queue.at.available + 4 + i * 2);
      });
      driver.bytes.writeUInt16LE(heads.length, queue.at.available + 2);
      queue.kick();
      // Whatever became of the requests, the queue can be stopped.
      await driver.ask(request.getVringBase, pair(0, 0));
      assertCanary(driver);
      driver.close();
    }),
    { numRuns: 150 },
  );
  await assertServes(served);
});

test('random messages are refused or end the connection, and leave nothing open', async (t) => {
  const served = await serve(t);
  await assertServes(served);
  const before = openDescriptors();
  const numbers = [...Object.values(request), 6, 22, 99, 0xffff_ffff];
  const message = fc.record({
    number: fc.constantFrom(...numbers),
    payload: fc.oneof(
      fc.uint8Array({ maxLength: 64 }).map((bytes) => Buffer.from(bytes)),
      fc.nat(0x1ff).map(u64),
      fc.tuple(fc.nat(5), fc.nat(2000)).map(([index, value]) => pair(index, value)),
      fc.constantFrom(20, 24, 40, 44, 72, 4096).map((length) => Buffer.alloc(length, 1)),
    ),
    fds: fc.nat(3),
    needsReply: fc.boolean(),
  });
  const property = fc.asyncProperty(
    fc.array(message, { maxLength: 12 }),
    fc.boolean(),
    async (messages, isStarted) => {
      const driver = await guest(served.path);
      if (!isStarted) await driver.queues[0].stop();
      const fd = createMemoryFile('passed', 4096);
      try {
        for (const { number, payload, fds, needsReply } of messages) {
          driver.send(number, payload, { needsReply, fds: Array.from({ length: fds }, () => fd) });
        }
      } catch {
        // The connection has ended already.
      }
      closeSync(fd);
      driver.close();
    },
  );
  await fc.assert(property, { numRuns: 60 });
  await assertServes(served);
  assert.equal(openDescriptors(), before);
});

test('headers that promise too much end the connection', async (t) => {
  const served = await serve(t);
  for (const [flags, length] of [
    [1, 4097],
    [1, 0xffff_ffff],
    [0, 8],
    [5, 8],
  ]) {
    const driver = await VhostDriver.connect(served.path);
    const bytes = Buffer.alloc(12);
    bytes.writeUInt32LE(1, 0);
    bytes.writeUInt32LE(flags, 4);
    bytes.writeUInt32LE(length, 8);
    driver.sendBytes(bytes);
    await driver.dropped();
    driver.close();
  }
  await assertServes(served);
});

test('memory that its file does not have is refused', async (t) => {
  const served = await serve(t);
  const driver = await VhostDriver.connect(served.path, { memoryBytes: MEMORY_BYTES });
  const table = memoryTable(MEMORY_BYTES + 4096);
  const fds = [driver.memoryFd];
  assert.notEqual(await driver.attempt(request.setMemoryTable, table, { fds }), 0n);
  assert.notEqual(await driver.attempt(request.setMemoryTable, table, { fds: [] }), 0n);
  assert.notEqual(await driver.attempt(request.setFeatures, u64(1n << 40n)), 0n);
  assert.notEqual(await driver.attempt(request.setVringNum, pair(0, 100)), 0n);
  assert.notEqual(await driver.attempt(request.setVringNum, pair(99, 128)), 0n);
  assert.notEqual(await driver.attempt(request.setVringKick, u64(0x100)), 0n);
  driver.close();
  await assertServes(served);
});

function openDescriptors(): number {
  return readdirSync('/proc/self/fd').length;
}
