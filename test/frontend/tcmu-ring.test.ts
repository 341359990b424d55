import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setImmediate as nextTurn, setTimeout as sleep } from 'node:timers/promises';
import fc from 'fast-check';
import { silentLogger } from '../../src/base/log.ts';
import { TcmuRing } from '../../src/frontend/tcmu/ring.ts';
import { entryField, mailboxField } from '../../src/frontend/tcmu/ring-layout.ts';
import { ScsiTarget } from '../../src/frontend/tcmu/scsi/target.ts';
import { cdb, cdb10, cdb16, unmapList } from '../support/cdb.ts';
import {
  TcmuKernel,
  type KernelCommand,
  type KernelRequest,
  type TcmuKernelOptions,
} from '../../bench/support/tcmu-kernel.ts';
import { MemoryDevice, patternedBytes, type MemoryDeviceOptions } from './nbd-fixture.ts';

// Goal: whatever the kernel puts into the ring is answered once and correctly, however entries lie,
// in whichever order answers are ready; what no kernel writes ends the device and nothing else.
// Method: a simulation of the kernel's side, which throws where the kernel would call the ring
// broken, over a disk in memory, some of whose blocks take an asynchronous read.

const identity = {
  vendor: 'TEST',
  product: 'ring',
  revision: '1',
  serial: 'abc',
  wwn: '6001405'.padEnd(32, '0'),
};
const SIZE_BYTES = 512 * 1024;
const BLOCKS = SIZE_BYTES / 512;
const IN_ORDER = 0x6;

interface Bench {
  kernel: TcmuKernel;
  ring: TcmuRing;
  device: MemoryDevice;
  errors: Error[];
  /** Submits and lets the ring see it; resolves with the answer and its data. */
  send: (request: KernelRequest) => Promise<{ command: KernelCommand; data: Uint8Array }>;
}

interface BenchOptions extends MemoryDeviceOptions {
  kernel?: TcmuKernelOptions;
  commandsMax?: number;
  /** The kernel's, when absent. */
  kick?: () => void;
}

function setUp({ kernel: kernelOptions, commandsMax, kick, ...options }: BenchOptions = {}): Bench {
  const kernel = new TcmuKernel({ dataBytes: 1024 * 1024, ringAreaBytes: 8192, ...kernelOptions });
  const device = new MemoryDevice(patternedBytes(SIZE_BYTES), { writable: true, ...options });
  const errors: Error[] = [];
  const ring = new TcmuRing({
    memory: kernel.memory,
    target: new ScsiTarget(device, identity),
    kick: kick ?? kernel.kick,
    onBroken: (error) => errors.push(error),
    log: silentLogger,
    ...(commandsMax === undefined ? {} : { commandsMax }),
  });
  const waiting = new Map<KernelCommand, (data: Uint8Array) => void>();
  kernel.onComplete = (command) => waiting.get(command)?.(kernel.dataIn(command));
  const send: Bench['send'] = async (request) => {
    let command = kernel.submit(request);
    for (let tries = 0; command === null; tries += 1) {
      assert.ok(tries < 10_000, 'the ring stays full');
      ring.onKick();
      await nextTurn();
      command = kernel.submit(request);
    }
    const sent = command;
    const data = await new Promise<Uint8Array>((resolve) => {
      waiting.set(sent, resolve);
      setImmediate(() => ring.onKick());
    });
    waiting.delete(sent);
    return { command: sent, data };
  };
  return { kernel, ring, device, errors, send };
}

const read = (lba: number, blocks: number): KernelRequest => ({
  cdb: cdb16(0x88, lba, blocks),
  dataInBytes: blocks * 512,
});

interface Step {
  kind: 'read' | 'write' | 'unmap' | 'same' | 'compare';
  lba: number;
  blocks: number;
  seed: number;
}

const REGION_BLOCKS = BLOCKS / 16;

/** A step that stays inside a sixteenth of the disk, so that steps of one batch do not overlap. */
const stepOf = (region: number): fc.Arbitrary<Step> =>
  fc
    .record({
      kind: fc.constantFrom('read', 'write', 'unmap', 'same', 'compare'),
      skip: fc.nat(REGION_BLOCKS - 1),
      size: fc.nat(REGION_BLOCKS - 1),
      seed: fc.integer({ min: 1, max: 255 }),
    })
    .map(({ kind, skip, size, seed }) => ({
      kind: kind as Step['kind'],
      lba: region * REGION_BLOCKS + skip,
      blocks: 1 + (size % (REGION_BLOCKS - skip)),
      seed,
    }));

/** Sends one step, applies it to the model, and compares what comes back. */
async function perform({ send }: Bench, model: Buffer, step: Step): Promise<void> {
  const { kind, lba, seed } = step;
  const blocks = kind === 'compare' ? Math.min(step.blocks, 20) : step.blocks;
  const part = model.subarray(lba * 512, (lba + blocks) * 512);
  const fresh = Buffer.alloc(part.length, seed);
  const before = Buffer.from(part);
  switch (kind) {
    case 'read': {
      const { command, data } = await send(read(lba, blocks));
      assert.equal(command.status, 0);
      return assert.deepEqual(Buffer.from(data), before);
    }
    case 'write':
      part.set(fresh);
      assert.equal(
        (await send({ cdb: cdb10(0x2a, lba, blocks), dataOut: fresh })).command.status,
        0,
      );
      return;
    case 'unmap': {
      part.fill(0);
      const list = unmapList([{ lba, blocks }]);
      const unmap = { cdb: cdb10(0x42, 0, list.length), dataOut: list };
      assert.equal((await send(unmap)).command.status, 0);
      return;
    }
    case 'same': {
      part.set(fresh);
      const same = { cdb: cdb16(0x93, lba, blocks), dataOut: fresh.subarray(0, 512) };
      assert.equal((await send(same)).command.status, 0);
      return;
    }
    case 'compare': {
      part.set(fresh);
      const compare = cdb(0x89, 0, [lba, 8], 0, 0, 0, blocks, 0, 0);
      const dataOut = Buffer.concat([before, fresh]);
      assert.equal((await send({ cdb: compare, dataOut })).command.status, 0);
      return;
    }
  }
}

const batches = fc.array(fc.tuple(...Array.from({ length: 16 }, (_, region) => stepOf(region))), {
  minLength: 1,
  maxLength: 6,
});

for (const [name, flags] of [
  ['in any order', 0x7],
  ['in order, without lengths', 0],
] as const) {
  test(`random commands do to the disk what they do to an array, answered ${name}`, async () => {
    const property = fc.asyncProperty(batches, fc.nat(7), async (steps, cut) => {
      const bench = setUp({ missEvery: 3, delayMsMax: 0.5, kernel: { flags } });
      bench.kernel.fragment((page) => page % 8 === cut);
      const model = Buffer.from(bench.device.bytes);
      for (const batch of steps) {
        await Promise.all(batch.map((step) => perform(bench, model, step)));
      }
      await bench.ring.drain();
      assert.deepEqual(bench.errors, []);
      assert.equal(bench.kernel.commands.size, 0);
      assert.ok(bench.device.bytes.equals(model));
    });
    await fc.assert(property, { numRuns: 25 });
  });
}

test('the ring wraps, with and without padding', async () => {
  for (const isMixed of [false, true]) {
    const { kernel, send, device, errors } = setUp({ kernel: { ringAreaBytes: 4096 } });
    for (let i = 0; i < 300; i += 1) {
      const lba = (i * 37) % (BLOCKS - 8);
      const blocks = 1 + (i % 8);
      const short = cdb(0x08, 0, [lba, 2], blocks, 0);
      const command = isMixed && i % 3 === 0 ? short : cdb16(0x88, lba, blocks);
      const { data } = await send({ cdb: command, dataInBytes: blocks * 512 });
      const expected = device.bytes.subarray(lba * 512, (lba + blocks) * 512);
      assert.deepEqual(Buffer.from(data), expected);
    }
    assert.ok(kernel.wraps > 5);
    assert.equal(kernel.pads > 0, isMixed);
    assert.deepEqual(errors, []);
  }
});

test('a batch of hits is answered in place, with one kick', () => {
  const { kernel, ring } = setUp();
  for (let i = 0; i < 50; i += 1) assert.notEqual(kernel.submit(read(i * 8, 8)), null);
  ring.onKick();
  assert.equal(kernel.commands.size, 0);
  assert.equal(kernel.kicks, 1);
  assert.equal(ring.counts.immediate, 50);
});

test('a hit overtakes a miss only where the kernel allows it', async () => {
  for (const flags of [0x7, IN_ORDER]) {
    const { kernel, ring } = setUp({ missEvery: 64, delayMsMax: 1, kernel: { flags } });
    const answered: number[] = [];
    kernel.onComplete = ({ id }) => answered.push(id);
    const miss = kernel.submit(read(0, 8));
    const hit = kernel.submit(read(64, 8));
    ring.onKick();
    assert.equal(answered.length, flags === IN_ORDER ? 0 : 1);
    await ring.drain();
    const inOrder = [miss?.id, hit?.id];
    assert.deepEqual(answered, flags === IN_ORDER ? inOrder : inOrder.toReversed());
  }
});

test('no more commands are worked on than allowed, and the others follow', async () => {
  const { kernel, ring } = setUp({ missEvery: 1, delayMsMax: 1, commandsMax: 3 });
  for (let i = 0; i < 12; i += 1) kernel.submit(read(i * 8, 8));
  ring.onKick();
  assert.equal(ring.inFlight, 3);
  for (let i = 0; kernel.commands.size > 0; i += 1) {
    assert.ok(i < 1000);
    assert.ok(ring.inFlight <= 3);
    await sleep(1);
  }
});

test('data that is shorter than its room says so, and the rest of the room is zeros', async () => {
  for (const flags of [0x7, 0]) {
    const { kernel, send } = setUp({ kernel: { flags } });
    kernel.memory.fill(0xee, 8192);
    const { command, data } = await send({ cdb: cdb(0x12, 0, 0, [200, 2], 0), dataInBytes: 200 });
    assert.equal(command.readLength, flags === 0 ? -1 : 96);
    assert.equal(Buffer.from(data.subarray(8, 16)).toString(), 'TEST    ');
    assert.ok(data.subarray(96).every((byte) => byte === 0));
  }
});

test('an aborted command ends, whatever its registry does', async () => {
  const { kernel, ring } = setUp({ missEvery: 1, delayMsMax: 1e8 });
  kernel.submit(read(8, 8));
  const command = kernel.submit(read(0, 8));
  assert.ok(command !== null);
  ring.onKick();
  assert.equal(ring.inFlight, 2);
  kernel.notify(1, [command.id]);
  ring.onKick();
  while (command.status === -1) await sleep(1);
  assert.equal(command.status, 0x40);
  assert.equal(ring.inFlight, 1);
  ring.abort();
  await ring.drain();
  assert.equal(kernel.commands.size, 0);
});

test('an entry of an unknown kind is marked, and the next is answered', () => {
  const { kernel, ring, errors } = setUp();
  const unknown = kernel.submitUnknown();
  const known = kernel.submit(read(0, 8));
  ring.onKick();
  assert.equal(unknown.wasUnknown, true);
  assert.equal(known?.status, 0);
  assert.deepEqual(errors, []);
});

test('both buffers of a bidirectional command are told apart', async () => {
  const { send } = setUp();
  const request = { cdb: cdb16(0x88, 0, 8), dataOut: Buffer.alloc(4096, 7), dataInBytes: 4096 };
  const { command, data } = await send(request);
  assert.equal(command.status, 0);
  assert.deepEqual(Buffer.from(data), patternedBytes(SIZE_BYTES).subarray(0, 4096));
});

test('vectors that point outside the data area are an error of their command', () => {
  const outside: [number, number][] = [
    [0, 512],
    [8192 - 512, 512],
    [8192 + 1024 * 1024 - 256, 512],
    [2 ** 32 - 512, 512],
  ];
  for (const [offset, bytes] of outside) {
    const { kernel, ring, errors } = setUp();
    const command = kernel.submit(read(0, 1));
    kernel.view.setUint32(128 + entryField.vectors, offset, true);
    kernel.view.setUint32(128 + entryField.vectors + 8, bytes, true);
    const before = kernel.memory.slice(0, 128 + entryField.vectors);
    ring.onKick();
    assert.equal(command?.status, 2);
    assert.equal(command?.sense[2], 4);
    assert.deepEqual(
      kernel.memory.subarray(0, mailboxField.tail),
      before.subarray(0, mailboxField.tail),
    );
    assert.deepEqual(errors, []);
  }
});

test('a ring that is drained leaves what was not taken to the next', async () => {
  const { kernel, ring, device } = setUp({ missEvery: 1, delayMsMax: 1, commandsMax: 2 });
  for (let i = 0; i < 5; i += 1) kernel.submit(read(i * 8, 8));
  ring.onKick();
  await ring.drain();
  await ring.drain();
  assert.equal(kernel.commands.size, 3);
  const next = new TcmuRing({
    memory: kernel.memory,
    target: new ScsiTarget(device, identity),
    kick: kernel.kick,
    onBroken: assert.fail,
    log: silentLogger,
  });
  next.onKick();
  await next.drain();
  assert.equal(kernel.commands.size, 0);
});

test('a ring that cannot be right ends the device once, with an error', async () => {
  const damages: ((kernel: TcmuKernel) => void)[] = [
    ({ view }) => view.setUint32(mailboxField.head, 1 << 30, true),
    ({ view }) => view.setUint32(mailboxField.head, 4, true),
    ({ view }) => view.setUint32(128, 1, true),
    ({ view }) => view.setUint32(128, 104 | 1, true),
    ({ view }) => view.setUint32(128, 0x7fff_fff8 | 1, true),
  ];
  for (const damage of damages) {
    const { kernel, ring, errors } = setUp();
    kernel.submit(read(0, 8));
    damage(kernel);
    ring.onKick();
    ring.onKick();
    assert.equal(errors.length, 1);
    assert.match(errors[0].message, /TCMU ring of device memory: expected/);
    assert.equal(kernel.kicks, 0);
    await ring.drain();
  }
});

test('a ring that the kernel resets is not touched any more', async () => {
  const { kernel, ring, errors } = setUp({ missEvery: 2, delayMsMax: 1 });
  kernel.submit(read(8, 8));
  ring.onKick();
  kernel.submit(read(0, 8));
  ring.onKick();
  assert.equal(ring.inFlight, 1);
  kernel.view.setUint32(mailboxField.head, 0, true);
  kernel.view.setUint32(mailboxField.tail, 0, true);
  await ring.drain();
  assert.equal(errors.length, 1);
  assert.equal(kernel.view.getUint32(mailboxField.tail, true), 0);
  assert.equal(kernel.kicks, 1);
});

test('a kernel that cannot be told ends the device', async () => {
  const kick = (): void => {
    throw new Error('EIO: the device is gone');
  };
  const { kernel, ring, errors } = setUp({ kick });
  kernel.submit(read(0, 8));
  ring.onKick();
  assert.equal(errors.length, 1);
  assert.match(errors[0].message, /the device is gone/);
  await ring.drain();
});

test('whatever the ring is filled with, the process goes on and nothing else is written', async () => {
  const damage = fc.array(
    fc.record({ at: fc.nat(2000), value: fc.oneof(fc.nat(255), fc.nat(2 ** 32 - 1)) }),
    { maxLength: 40 },
  );
  const property = fc.asyncProperty(damage, fc.boolean(), async (writes, outOfOrder) => {
    const flags = outOfOrder ? 0x7 : IN_ORDER;
    // The answers are of no interest: the kernel would have given up long ago.
    const kick = (): void => undefined;
    const { kernel, ring } = setUp({ missEvery: 5, kernel: { flags }, kick });
    for (let i = 0; i < 8; i += 1) kernel.submit(read(i * 8, 8));
    for (const { at, value } of writes) kernel.view.setUint32(68 + at * 4, value, true);
    if (writes.length % 3 === 0) kernel.view.setUint32(mailboxField.head, writes.length * 8, true);
    const mailbox = kernel.memory.slice(0, mailboxField.tail);
    for (let i = 0; i < 10; i += 1) {
      ring.onKick();
      await nextTurn();
    }
    ring.abort();
    await ring.drain();
    assert.deepEqual(kernel.memory.subarray(0, mailboxField.tail), mailbox);
  });
  await fc.assert(property, { numRuns: 200 });
});

test('memory that is no mailbox is refused', () => {
  const damages: ((kernel: TcmuKernel) => void)[] = [
    ({ view }) => view.setUint16(mailboxField.version, 1, true),
    ({ view }) => view.setUint32(mailboxField.ringOffset, 4, true),
    ({ view }) => view.setUint32(mailboxField.ringBytes, 1 << 30, true),
    ({ view }) => view.setUint32(mailboxField.tail, 1 << 30, true),
  ];
  for (const damage of damages) {
    const { kernel, device } = setUp();
    damage(kernel);
    const options = { kick: kernel.kick, onBroken: assert.fail, log: silentLogger };
    const target = new ScsiTarget(device, identity);
    assert.throws(() => new TcmuRing({ memory: kernel.memory, target, ...options }), {
      code: 'ERR_TCMU_RING',
    });
  }
});
