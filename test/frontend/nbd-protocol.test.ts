import assert from 'node:assert/strict';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { ReplaybdError } from '../../src/base/errors.ts';
import { nbdLimits } from '../../src/base/limits.ts';
import { startNbd } from '../../src/frontend/nbd/server.ts';
import {
  MemoryDevice,
  type MemoryDeviceOptions,
  patternedBytes,
  temporaryFolder,
} from './nbd-fixture.ts';
import {
  FIXED_NEWSTYLE,
  infoData,
  metaContextData,
  RawClient,
  requestBytes,
} from './nbd-raw-client.ts';

// Goal: every rule of the protocol that well-behaved clients never exercise: refusals, limits,
// lost frames, clients that do not read, shutdown.
// Method: a client written here sends chosen bytes; replies are decoded and compared.

const SIZE_BYTES = 4 * 1024 * 1024;
const EPERM = 1;
const EIO = 5;
const EINVAL = 22;
const ENOSPC = 28;
const READ = 0;
const WRITE = 1;
const FLUSH = 3;
const TRIM = 4;
const CACHE = 5;
const ZEROES = 6;
const STATUS = 7;
const ERROR_CHUNK = 0x8001;

async function serve(t: TestContext, options: MemoryDeviceOptions = {}) {
  const folder = await temporaryFolder(t);
  const device = new MemoryDevice(patternedBytes(SIZE_BYTES), options);
  const socketPath = join(folder, 'nbd.sock');
  const frontend = await startNbd(device, { socketPath });
  t.after(frontend.close);
  return { device, socketPath, frontend };
}

test('an EXPORT_NAME reply is padded unless the client declined', async (t) => {
  const { socketPath } = await serve(t);
  const client = await RawClient.connect(socketPath);
  const greeting = await client.greet(FIXED_NEWSTYLE);
  assert.equal(greeting.toString('latin1', 0, 16), 'NBDMAGICIHAVEOPT');
  assert.equal(greeting.readUInt16BE(16), 3);
  client.sendOption(1, Buffer.alloc(0));
  const reply = await client.take(134);
  assert.equal(Number(reply.readBigUInt64BE(0)), SIZE_BYTES);
  assert.ok(reply.subarray(10).every((byte) => byte === 0));
  client.send(READ, 0, 512);
  assert.equal((await client.simpleReply()).error, 0);
});

test('options that cannot be granted get the fitting error and haggling goes on', async (t) => {
  const { socketPath } = await serve(t);
  const client = await RawClient.connect(socketPath);
  await client.greet(FIXED_NEWSTYLE);
  const cases: [number, Buffer, number][] = [
    [5, Buffer.alloc(0), 0x80000002],
    [77, Buffer.from('whatever'), 0x80000001],
    [3, Buffer.from('x'), 0x80000003],
    [8, Buffer.from('x'), 0x80000003],
    [10, metaContextData('', ['base:allocation']), 0x80000003],
    [7, infoData('nobody', []), 0x80000006],
    [7, Buffer.from([0, 0, 0, 9]), 0x80000003],
    [7, Buffer.concat([infoData('', []), Buffer.from('x')]), 0x80000003],
    [6, infoData('a\0b', []), 0x80000003],
    [6, infoData('n'.repeat(4097), []), 0x80000003],
    [8, Buffer.alloc(0), 1],
    [9, metaContextData('nobody', []), 0x80000006],
  ];
  for (const [option, data, expected] of cases) {
    client.sendOption(option, data);
    const reply = await client.optionReply();
    assert.deepEqual([reply.option, reply.type], [option, expected]);
  }
  client.sendOption(10, metaContextData('', ['qemu:dirty-bitmap:x']));
  assert.equal((await client.optionReply()).type, 1, 'a context nobody has selects nothing');
  client.sendOption(9, metaContextData('', ['base:']));
  assert.equal((await client.optionReply()).payload.toString('utf8', 4), 'base:allocation');
  assert.equal((await client.optionReply()).type, 1);
  client.sendOption(2, Buffer.alloc(0));
  assert.equal((await client.optionReply()).type, 1);
  await client.closed;
});

test('a handshake that loses its frame or its measure is dropped', async (t) => {
  const { socketPath } = await serve(t);
  const attempts: ((client: RawClient) => void)[] = [
    (client) => client.socket.write('not an option at all'),
    (client) => client.sendOption(3, Buffer.alloc(0), nbdLimits.optionBytesMax + 1),
    (client) => client.sendOption(1, Buffer.from('nobody')),
    (client) => client.sendOption(1, Buffer.alloc(4097, 'n')),
    (client) => {
      for (let count = 0; count <= nbdLimits.optionsMax; count += 1) {
        client.sendOption(99, Buffer.alloc(0));
      }
    },
  ];
  for (const attempt of attempts) {
    const client = await RawClient.connect(socketPath);
    await client.greet(FIXED_NEWSTYLE);
    attempt(client);
    await client.closed;
  }
  const client = await RawClient.connect(socketPath);
  await client.greet(FIXED_NEWSTYLE | 0x100);
  await client.closed;
});

test('a client that does not negotiate in time is dropped', async (t) => {
  t.mock.timers.enable({ apis: ['setTimeout'] });
  const { socketPath } = await serve(t);
  const client = await RawClient.connect(socketPath);
  await client.greet(FIXED_NEWSTYLE);
  t.mock.timers.tick(nbdLimits.handshakeMsMax);
  await client.closed;
});

test('requests outside the export or its rules are refused, and the frame holds', async (t) => {
  const { socketPath } = await serve(t);
  for (const structured of [false, true]) {
    const client = await RawClient.transmit(socketPath, structured);
    const block = Buffer.alloc(4096, 1);
    const cases: [number, number | bigint, number, number, number?, Buffer?][] = [
      [READ, SIZE_BYTES - 512, 1024, EINVAL],
      [READ, SIZE_BYTES, 512, EINVAL],
      [READ, 0xffff_ffff_ffff_fe00n, 512, EINVAL],
      [READ, 100, 512, EINVAL],
      [READ, 0, 100, EINVAL],
      [READ, 0, 0, EINVAL],
      [READ, 0, nbdLimits.requestBytesMax + 512, EINVAL],
      [READ, 0, 512, EINVAL, 0x8000],
      [WRITE, 0, 4096, EPERM, 0, block],
      [WRITE, SIZE_BYTES, 4096, EPERM, 1, block],
      [TRIM, 0, 4096, EPERM],
      [ZEROES, 0, 4096, EPERM],
      [42, 0, 4096, EINVAL],
      ...(structured ? [] : [[STATUS, 0, 4096, EINVAL] as [number, number, number, number]]),
    ];
    for (const [index, [type, offset, length, expected, flags = 0, data]] of cases.entries()) {
      const cookie = BigInt(index) << 40n;
      client.send(type, offset, length, { flags, cookie, ...(data === undefined ? {} : { data }) });
      const reply = structured ? await client.chunk() : await client.simpleReply();
      assert.equal(reply.cookie, cookie);
      const error = 'error' in reply ? reply.error : reply.payload.readUInt32BE(0);
      assert.equal(error, expected, `request ${index}`);
      if ('type' in reply) assert.deepEqual([reply.type, reply.flags], [ERROR_CHUNK, 1]);
    }
    client.send(FLUSH, 0, 0, { flags: 1 });
    assert.equal((await client.simpleReply()).error, 0);
  }
});

test('a writable export says ENOSPC past its end and keeps the frame', async (t) => {
  const { socketPath, device } = await serve(t, { writable: true });
  const client = await RawClient.transmit(socketPath, false);
  const before = Buffer.from(device.bytes);
  client.send(WRITE, SIZE_BYTES - 512, 1024, { data: Buffer.alloc(1024, 7) });
  assert.equal((await client.simpleReply()).error, ENOSPC);
  client.send(ZEROES, SIZE_BYTES, 512);
  assert.equal((await client.simpleReply()).error, ENOSPC);
  assert.ok(device.bytes.equals(before));
  client.send(TRIM, 0, 512, { flags: 1 });
  assert.equal((await client.simpleReply()).error, 0);
  assert.deepEqual(device.calls, ['discard', 'flush']);
});

test('zeroing takes its flags, and every modifying command takes FUA', async (t) => {
  const { socketPath, device } = await serve(t, { writable: true });
  const [FUA, NO_HOLE, FAST_ZERO] = [1, 2, 16];
  for (const structured of [false, true]) {
    const client = await RawClient.transmit(socketPath, structured);
    const cases: [number, number, string[]][] = [
      [ZEROES, 0, ['zeroes']],
      [ZEROES, NO_HOLE, ['zeroes']],
      [ZEROES, FAST_ZERO, ['zeroes']],
      [ZEROES, FUA | NO_HOLE | FAST_ZERO, ['zeroes', 'flush']],
      [TRIM, FUA, ['discard', 'flush']],
      [FLUSH, 0, ['flush']],
    ];
    for (const [type, flags, calls] of cases) {
      device.calls.length = 0;
      client.send(type, 0, type === FLUSH ? 0 : 4096, { flags });
      assert.equal((await client.simpleReply()).error, 0, `command ${type}, flags ${flags}`);
      assert.deepEqual(device.calls, calls);
    }
  }
  const client = await RawClient.transmit(socketPath, false);
  client.send(TRIM, 0, 4096, { flags: FAST_ZERO });
  assert.equal((await client.simpleReply()).error, EINVAL, 'only zeroing can be fast');
});

test('block status and reads follow writes and trims at once', async (t) => {
  const { socketPath, device } = await serve(t, { writable: true });
  device.bytes.fill(0);
  const client = await RawClient.transmit(socketPath, true);
  const status = async (): Promise<number[]> => {
    client.send(STATUS, 0, 16_384);
    const { payload } = await client.chunk();
    return Array.from({ length: payload.length / 4 }, (_, word) => payload.readUInt32BE(word * 4));
  };
  assert.deepEqual(await status(), [1, 16_384, 3]);
  client.send(WRITE, 4096, 4096, { data: Buffer.alloc(4096, 9) });
  assert.equal((await client.simpleReply()).error, 0);
  assert.deepEqual(await status(), [1, 4096, 3, 4096, 0, 8192, 3]);
  client.send(TRIM, 4096, 4096);
  assert.equal((await client.simpleReply()).error, 0);
  assert.deepEqual(await status(), [1, 16_384, 3]);
});

test('a lost frame and an oversized write end the connection', async (t) => {
  const { socketPath } = await serve(t, { writable: true });
  const bad = await RawClient.transmit(socketPath, true);
  bad.send(READ, 0, 512, { magic: 0x12345678 });
  await bad.closed;
  const large = await RawClient.transmit(socketPath, true);
  large.send(WRITE, 0, nbdLimits.requestBytesMax + 512);
  await large.closed;
});

test('structured reads send holes as holes, or one chunk when asked', async (t) => {
  const { socketPath, device } = await serve(t, { missEvery: 2 });
  const client = await RawClient.transmit(socketPath, true);
  const offset = 32 * 4096;
  const length = 128 * 4096;
  client.send(READ, offset, length);
  const bytes = Buffer.alloc(length, 0xee);
  let holes = 0;
  for (let done = false; !done;) {
    const { flags, type, payload } = await client.chunk();
    const at = Number(payload.readBigUInt64BE(0)) - offset;
    if (type === 2) bytes.fill(0, at, at + payload.readUInt32BE(8));
    else payload.copy(bytes, at, 8);
    holes += type === 2 ? 1 : 0;
    done = flags === 1;
  }
  assert.ok(bytes.equals(device.bytes.subarray(offset, offset + length)));
  assert.equal(holes, 2);
  client.send(READ, offset, length, { flags: 4 });
  const { type, flags, payload } = await client.chunk();
  assert.deepEqual([type, flags], [1, 1]);
  assert.ok(payload.subarray(8).equals(device.bytes.subarray(offset, offset + length)));
});

test('block status describes the range, or one extent when asked', async (t) => {
  const { socketPath } = await serve(t);
  const client = await RawClient.transmit(socketPath, true);
  client.send(STATUS, 2 * 4096, 3 * 4096);
  const all = await client.chunk();
  assert.deepEqual([all.type, all.flags, all.payload.length], [5, 1, 28]);
  const words = Array.from({ length: 7 }, (_, index) => all.payload.readUInt32BE(index * 4));
  assert.deepEqual(words, [1, 4096, 0, 4096, 3, 4096, 0]);
  client.send(STATUS, 2 * 4096, 3 * 4096, { flags: 8 });
  assert.equal((await client.chunk()).payload.length, 12);
});

test('block status joins what the device describes step by step', async (t) => {
  const folder = await temporaryFolder(t);
  const bytes = Buffer.alloc(3 * nbdLimits.extentsStepBytes);
  bytes[bytes.length - 1] = 1;
  const socketPath = join(folder, 'nbd.sock');
  const frontend = await startNbd(new MemoryDevice(bytes), { socketPath });
  t.after(frontend.close);
  const client = await RawClient.transmit(socketPath, true);
  client.send(STATUS, 4096, bytes.length - 4096);
  const { payload } = await client.chunk();
  const words = Array.from({ length: 5 }, (_, index) => payload.readUInt32BE(index * 4));
  assert.deepEqual(words, [1, bytes.length - 8192, 3, 4096, 0]);
});

test('cache advice makes later reads hits, and its failures stay unseen', async (t) => {
  const { socketPath, device } = await serve(t, { missEvery: 5 });
  const client = await RawClient.transmit(socketPath, false);
  client.send(CACHE, 0, SIZE_BYTES);
  assert.equal((await client.simpleReply()).error, 0);
  for (let at = 0; at < SIZE_BYTES; at += 4096) {
    const block = Buffer.alloc(4096);
    const isHole = device.extents(at, 4096)[0]?.zero === true;
    assert.ok(isHole || device.readCached(at, block));
  }
  device.read = async () => await Promise.reject(new ReplaybdError('ERR_GONE', 'gone'));
  device.readCached = () => false;
  client.send(CACHE, 0, 4096);
  assert.equal((await client.simpleReply()).error, 0);
});

test('a failing read is an error of that read alone', async (t) => {
  const { socketPath, device } = await serve(t);
  const readCached = device.readCached.bind(device);
  device.readCached = (offset, into) => offset !== 8192 && readCached(offset, into);
  device.read = async () => await Promise.reject(new ReplaybdError('ERR_GONE', 'registry gone'));
  const client = await RawClient.transmit(socketPath, true);
  client.send(READ, 8192, 4096, { cookie: 5n });
  const { type, cookie, payload } = await client.chunk();
  assert.deepEqual([type, cookie, payload.readUInt32BE(0)], [ERROR_CHUNK, 5n, EIO]);
  assert.equal(payload.toString('utf8', 6), 'registry gone');
  client.send(READ, 0, 4096);
  assert.equal((await client.chunk()).type, 1);
});

test('a hit overtakes a miss', async (t) => {
  const { socketPath, device } = await serve(t);
  const readCached = device.readCached.bind(device);
  device.readCached = (offset, into) => offset !== 0 && readCached(offset, into);
  const gate = Promise.withResolvers<void>();
  device.read = async () => await gate.promise;
  const client = await RawClient.transmit(socketPath, true);
  client.send(READ, 0, 4096, { cookie: 1n });
  client.send(READ, 4096, 4096, { cookie: 2n });
  assert.equal((await client.chunk()).cookie, 2n);
  gate.resolve();
  assert.equal((await client.chunk()).cookie, 1n);
});

test('a client that does not read stops being served, not the server', async (t) => {
  const { socketPath, device } = await serve(t);
  let reads = 0;
  const readCached = device.readCached.bind(device);
  device.readCached = (offset, into) => {
    reads += 1;
    return readCached(offset, into);
  };
  const client = await RawClient.transmit(socketPath, false);
  client.socket.pause();
  const total = nbdLimits.outstandingRequestsMax * 4;
  const request = requestBytes(READ, 0, 131_072);
  client.socket.write(Buffer.concat(Array.from({ length: total }, () => request)));
  for (let turn = 0; turn < 200; turn += 1) await nextTurn();
  // The limit, and what the kernel's socket buffers took.
  const bound = nbdLimits.outstandingBytesMax / 131_072;
  assert.ok(reads > 0 && reads < bound + 64, `${reads} reads`);
  client.socket.resume();
  for (let count = 0; count < total; count += 1) {
    assert.equal((await client.simpleReply()).error, 0);
    await client.take(131_072);
  }
  assert.equal(reads, total);
});

test('replies in flight arrive after the client has ended its half', async (t) => {
  const { socketPath } = await serve(t, { missEvery: 1, delayMsMax: 2 });
  const client = await RawClient.transmit(socketPath, false);
  for (let count = 0; count < 20; count += 1) client.send(READ, count * 4096, 4096);
  client.send(2, 0, 0);
  client.socket.end();
  for (let count = 0; count < 20; count += 1) {
    assert.equal((await client.simpleReply()).error, 0);
    await client.take(4096);
  }
  await client.closed;
});

test('closing gives up waiting reads and ends every connection', async (t) => {
  const { socketPath, device, frontend } = await serve(t);
  device.readCached = () => false;
  device.read = async (_offset, _into, signal) => {
    await new Promise((_resolve, reject) => {
      signal?.addEventListener('abort', () => reject(new Error('aborted')));
    });
  };
  const waiting = await RawClient.transmit(socketPath, false);
  waiting.send(READ, 0, 4096);
  const idle = await RawClient.transmit(socketPath, false);
  const haggling = await RawClient.connect(socketPath);
  await haggling.greet(FIXED_NEWSTYLE);
  idle.send(FLUSH, 0, 0);
  await idle.simpleReply();
  await frontend.close();
  assert.equal((await waiting.simpleReply()).error, 108);
  await Promise.all([waiting.closed, idle.closed, haggling.closed]);
});

test('only loopback addresses and sensible exports are served', async () => {
  const device = new MemoryDevice(Buffer.alloc(4096));
  await assert.rejects(startNbd(device, { host: '0.0.0.0' }), { code: 'ERR_NBD_HOST' });
  await assert.rejects(startNbd([]), { code: 'ERR_NBD_EXPORT' });
  await assert.rejects(startNbd(device, { exportName: 'a\0' }), { code: 'ERR_NBD_EXPORT' });
  await assert.rejects(startNbd(device, { socketPath: `/${'s'.repeat(200)}` }), {
    code: 'ERR_SOCKET_PATH',
  });
});
