import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { InflightQueue } from '../../src/frontend/vhost-user/inflight.ts';
import { request } from '../../src/frontend/vhost-user/protocol.ts';
import { startVhostUser } from '../../src/frontend/vhost-user/server.ts';
import {
  GUEST_BASE,
  memoryRegion,
  USER_BASE,
  VhostDriver,
} from '../../bench/support/vhost-driver.ts';
import { scratchOf } from '../support/scratch.ts';
import { VhostDisk } from '../support/vhost-disk.ts';
import { assertSameDisk } from '../support/write-oracle.ts';
import { MemoryDevice, patternedBytes } from './nbd-fixture.ts';

// Goal: whoever goes away, every request is answered once, with the right bytes. Method: the monitor's
// connection, or the back end, ends while reads wait for data; the next one gets the in-flight memory. And a
// model of that memory, in which the back end dies between any two of its steps.

const DISK_BYTES = 1024 * 1024;

/** Nothing of it is local, and reads wait until they are let go. */
class GatedDevice extends MemoryDevice {
  waiting = 0;
  readonly #gate = new AbortController();

  constructor() {
    super(patternedBytes(DISK_BYTES), { missEvery: 1 });
  }

  letGo(): void {
    this.#gate.abort();
  }

  override async read(offset: number, into: Uint8Array, signal?: AbortSignal): Promise<void> {
    this.waiting += 1;
    const given = signal ?? new AbortController().signal;
    await new Promise<void>((resolve, reject) => {
      const end = (): void => (given.aborted ? reject(new Error('aborted')) : resolve());
      if (this.#gate.signal.aborted) return end();
      this.#gate.signal.addEventListener('abort', end);
      given.addEventListener('abort', end);
    });
    await super.read(offset, into);
  }
}

/** Until so many reads wait, however long that takes. */
async function waitingReads(device: GatedDevice, count: number): Promise<void> {
  while (device.waiting < count) await new Promise((resolve) => setTimeout(resolve, 1));
}

for (const who of ['monitor', 'back end'] as const) {
  test(`reads under way are begun again when the ${who} comes back`, async (t) => {
    const scratch = scratchOf(t);
    const device = new GatedDevice();
    const socketPath = scratch.path('vhost');
    let frontend = await startVhostUser(device, { socketPath });
    scratch.atEnd(() => frontend.close());
    const first = await VhostDriver.connect(socketPath, { queues: 2 });
    await first.useInflight();
    await first.begin();
    const disk = new VhostDisk(first);
    const offsets = Array.from({ length: 12 }, (_, i) => i * 8192);
    const reads = offsets.map((at, i) => disk.read(first.queues[i % 2], at, 4096));
    await waitingReads(device, reads.length);
    if (who === 'back end') {
      // Another device in the same place: what the first still works on reaches nobody.
      first.leave();
      await frontend.close();
      const fresh = new MemoryDevice(device.bytes, { missEvery: 2 });
      frontend = await startVhostUser(fresh, { socketPath });
    } else {
      first.leave();
    }
    const second = await VhostDriver.connect(socketPath, { resume: first });
    scratch.atEnd(() => second.close());
    await second.useInflight();
    await second.begin();
    device.letGo();
    const found = await Promise.all(reads);
    found.forEach((bytes, i) => {
      assertSameDisk(bytes, device.bytes.subarray(offsets[i], offsets[i] + 4096), `read ${i}`);
    });
    const again = await new VhostDisk(second).read(second.queues[0], 0, 4096);
    assertSameDisk(again, device.bytes.subarray(0, 4096), 'the queue goes on');
  });
}

test('a queue that is stopped answers what it took, and goes on where it was', async (t) => {
  const scratch = scratchOf(t);
  const device = new GatedDevice();
  const frontend = await startVhostUser(device, { socketPath: scratch.path('vhost') });
  scratch.atEnd(() => frontend.close());
  const driver = await VhostDriver.connect(frontend.path);
  scratch.atEnd(() => driver.close());
  await driver.begin();
  const disk = new VhostDisk(driver);
  const [queue] = driver.queues;
  for (let round = 1; round <= 3; round += 1) {
    const reads = [0, 1, 2, 3].map((i) => disk.read(queue, (round * 4 + i) * 4096, 4096));
    await waitingReads(device, round * 4);
    const stopped = queue.stop();
    device.letGo();
    assert.equal(await stopped, round * 4);
    assert.equal(queue.pending, 0);
    await Promise.all(reads);
    await driver.tell(request.resetDevice, Buffer.alloc(0));
    await queue.start();
  }
});

test('memory may change while a queue runs', async (t) => {
  const scratch = scratchOf(t);
  const device = new MemoryDevice(patternedBytes(DISK_BYTES), { missEvery: 2, delayMsMax: 2 });
  const frontend = await startVhostUser(device, { socketPath: scratch.path('vhost') });
  scratch.atEnd(() => frontend.close());
  const driver = await VhostDriver.connect(frontend.path);
  scratch.atEnd(() => driver.close());
  await driver.begin();
  const disk = new VhostDisk(driver);
  const slots = await driver.askNumber(request.getMemorySlotsMax);
  assert.ok(slots >= 8n);
  const region = (at: number, size: number): Buffer =>
    Buffer.concat([Buffer.alloc(8), memoryRegion(GUEST_BASE + at, size, USER_BASE + at, at)]);
  const size = driver.bytes.length;
  for (const half of [size / 2, size / 4]) {
    const reads = Array.from({ length: 6 }, (_, i) => disk.read(driver.queues[0], i * 8192, 8192));
    // The rings are gone for a moment; reads wait.
    const whole =
      half === size / 2
        ? [[0, size]]
        : [
            [0, size / 2],
            [size / 2, size / 2],
          ];
    for (const [at, length] of whole) {
      await driver.tell(request.removeMemoryRegion, region(at, length));
    }
    const parts =
      half === size / 2
        ? [
            [0, half],
            [half, half],
          ]
        : [[0, size]];
    for (const [at, length] of parts) {
      await driver.tell(request.addMemoryRegion, region(at, length), { fds: [driver.memoryFd] });
    }
    const found = await Promise.all(reads);
    found.forEach((bytes, i) => {
      assertSameDisk(bytes, device.bytes.subarray(i * 8192, i * 8192 + 8192), `read ${i}`);
    });
  }
});

test('whatever step the back end dies at, requests without answer are known', async () => {
  const size = 8;
  const steps = fc.array(
    fc.oneof(
      { weight: 5, arbitrary: fc.constant('begin' as const) },
      { weight: 5, arbitrary: fc.constant('answer' as const) },
      { weight: 2, arbitrary: fc.constant('tell' as const) },
      { weight: 1, arbitrary: fc.constant('die' as const) },
      { weight: 1, arbitrary: fc.constant('die after telling' as const) },
    ),
    { maxLength: 200 },
  );
  await fc.assert(
    fc.asyncProperty(steps, fc.integer({ min: 0, max: 0xffff }), async (list, start) => {
      await Promise.resolve();
      const view = new DataView(new ArrayBuffer(16 + size * 16));
      let queue = new InflightQueue(view, size);
      let usedIndex = start;
      assert.deepEqual(queue.recover(usedIndex), []);
      /** In the order in which they were begun. */
      let begun: number[] = [];
      let answered: number[] = [];
      const free = Array.from({ length: size }, (_, i) => i);
      const tell = (isSettled: boolean): void => {
        usedIndex = (usedIndex + answered.length) & 0xffff;
        if (isSettled) queue.settle(Uint16Array.from(answered), answered.length, usedIndex);
        begun = begun.filter((head) => !answered.includes(head));
        free.push(...answered);
        answered = [];
      };
      for (const step of list) {
        if (step === 'begin') {
          const head = free.shift();
          if (head === undefined) continue;
          queue.begin(head);
          begun.push(head);
        } else if (step === 'answer') {
          const head = begun.findLast((one) => !answered.includes(one));
          if (head === undefined) continue;
          queue.answer(head);
          answered.push(head);
        } else if (step === 'tell') {
          tell(true);
        } else {
          if (step === 'die after telling') tell(false);
          queue = new InflightQueue(view, size);
          assert.deepEqual(queue.recover(usedIndex), begun);
          answered = [];
        }
      }
    }),
    { numRuns: 200 },
  );
});
