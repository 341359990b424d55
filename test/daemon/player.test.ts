import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { test } from 'node:test';
import { setImmediate as nextTurn } from 'node:timers/promises';
import type { Clock } from '../../src/base/clock.ts';
import { ReplaybdError } from '../../src/base/errors.ts';
import { playReads } from '../../src/daemon/player.ts';
import type { ListedRead } from '../../src/daemon/read-list.ts';

// Goal: the player issues reads in list order within its bounds, hands back the digest of exactly
// the bytes asked for, and measures by the clock it is given.
// Method: a device over known bytes whose misses finish out of order, and a clock that only moves
// when somebody sleeps.

const SIZE_BYTES = 1024 * 1024;
const source = Buffer.alloc(SIZE_BYTES);
for (let at = 0; at < SIZE_BYTES; at += 1) source[at] = (at * 31 + (at >>> 8)) & 0xff;

class TestClock implements Clock {
  ms = 0;
  readonly slept: number[] = [];
  nowMs(): number {
    return this.ms;
  }
  wallMs(): number {
    return this.ms;
  }
  async sleep(ms: number): Promise<void> {
    this.slept.push(ms);
    // As coarse as a real timer: whole milliseconds, rounded up.
    this.ms += Math.ceil(ms);
    await nextTurn();
  }
}

/** Every third read misses and takes a number of turns that changes from read to read. */
class TestDevice {
  readonly virtualSizeBytes = SIZE_BYTES;
  readonly offsets: number[] = [];
  inFlight = 0;
  inFlightMax = 0;

  readCached(offset: number, into: Uint8Array): boolean {
    assert.equal(offset % 512, 0);
    assert.equal(into.length % 512, 0);
    this.offsets.push(offset);
    if (this.offsets.length % 3 === 0) return false;
    into.set(source.subarray(offset, offset + into.length));
    return true;
  }

  async read(offset: number, into: Uint8Array): Promise<void> {
    this.inFlight += 1;
    this.inFlightMax = Math.max(this.inFlightMax, this.inFlight);
    const turns = (this.offsets.length * 7) % 23;
    for (let turn = 0; turn < turns; turn += 1) await nextTurn();
    into.set(source.subarray(offset, offset + into.length));
    this.inFlight -= 1;
  }
}

const reads: ListedRead[] = Array.from({ length: 300 }, (_, index) => ({
  offset: (index * 104_729) % (SIZE_BYTES - 9000),
  length: 1 + ((index * 523) % 9000),
  thinkUs: 300,
}));
reads.push({ offset: SIZE_BYTES - 1, length: 1, thinkUs: 0 });

function expectedDigest(): string {
  const hash = createHash('sha256');
  for (const { offset, length } of reads) hash.update(source.subarray(offset, offset + length));
  return hash.digest('hex');
}

test('unaligned reads give the bytes of the list, whatever the concurrency', async () => {
  for (const concurrency of [1, 2, 16]) {
    const device = new TestDevice();
    const result = await playReads({ device, reads, concurrency });
    assert.equal(result.sha256, expectedDigest());
    assert.equal(
      result.bytes,
      reads.reduce((sum, { length }) => sum + length, 0),
    );
    assert.deepEqual([result.reads, result.hits], [301, 201]);
    assert.deepEqual(
      device.offsets,
      reads.map(({ offset }) => offset - (offset % 512)),
    );
    assert.ok(device.inFlightMax <= concurrency);
    if (concurrency > 1) assert.ok(device.inFlightMax > 1);
  }
});

test('what is held behind a slow read is bounded', async () => {
  const gate = Promise.withResolvers<void>();
  let issued = 0;
  const device = {
    virtualSizeBytes: SIZE_BYTES,
    readCached: (_offset: number, into: Uint8Array) => {
      into.fill(0);
      issued += 1;
      return issued > 1;
    },
    read: async () => await gate.promise,
  };
  const played = playReads({ device, reads, concurrency: 4 });
  for (let turn = 0; turn < 20; turn += 1) await nextTurn();
  assert.equal(issued, 8);
  gate.resolve();
  assert.equal((await played).reads, 301);
});

test('think time adds up although timers are coarse', async () => {
  const clock = new TestClock();
  const result = await playReads({ device: new TestDevice(), reads, think: true, clock });
  // 300 times 300 us; no single pause is shorter than a timer can be, none is lost.
  assert.ok(Math.abs(result.totalMs - 90) <= 2, `${result.totalMs}`);
  assert.ok(clock.slept.every((ms) => ms >= 1));
  const hasty = await playReads({ device: new TestDevice(), reads, clock: new TestClock() });
  assert.equal(hasty.totalMs, 0);
});

test('latencies are nearest ranks of the clock', async () => {
  const clock = new TestClock();
  let count = 0;
  const device = {
    virtualSizeBytes: SIZE_BYTES,
    readCached: () => false,
    read: async () => {
      count += 1;
      clock.ms += count;
      await Promise.resolve();
    },
  };
  const list = Array.from({ length: 100 }, () => ({ offset: 0, length: 512, thinkUs: 0 }));
  const { latencyUs, totalMs } = await playReads({ device, reads: list, clock });
  assert.deepEqual(latencyUs, { p50: 50_000, p95: 95_000, p99: 99_000, max: 100_000 });
  assert.equal(totalMs, 5050);
  const nothing = await playReads({ device, reads: [], clock });
  assert.deepEqual(nothing.latencyUs, { p50: 0, p95: 0, p99: 0, max: 0 });
});

test('the first failure ends the play after the reads in flight', async () => {
  const device = new TestDevice();
  const read = device.read.bind(device);
  device.read = async (offset, into) => {
    await read(offset, into);
    if (device.offsets.length > 50) throw new ReplaybdError('ERR_GONE', 'gone');
  };
  await assert.rejects(playReads({ device, reads, concurrency: 4 }), { code: 'ERR_GONE' });
  assert.equal(device.inFlight, 0);
  assert.ok(device.offsets.length < 70);
});

test('an abort ends the play', async () => {
  const abort = new AbortController();
  const device = new TestDevice();
  const read = device.read.bind(device);
  device.read = async (offset, into) => {
    await read(offset, into);
    if (device.offsets.length > 20) abort.abort(new Error('enough'));
  };
  const played = playReads({ device, reads, signal: abort.signal });
  await assert.rejects(played, { message: 'enough' });
});

test('a list for another device is refused before anything is read', async () => {
  const device = new TestDevice();
  const outside = [...reads, { offset: SIZE_BYTES, length: 1, thinkUs: 0 }];
  await assert.rejects(playReads({ device, reads: outside }), { code: 'ERR_PLAY_RANGE' });
  await assert.rejects(playReads({ device, reads, concurrency: 0 }), {
    code: 'ERR_PLAY_CONCURRENCY',
  });
  assert.equal(device.offsets.length, 0);
});
