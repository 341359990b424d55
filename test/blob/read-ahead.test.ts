// Goal: without a plan, reads fetch no slower than fixed units of 256 KiB would, sequential
// reading opens the window, and random reading closes it.
// Method: replay lists of reads against a source that answers at once, and count what was fetched.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { fetchLimits, GRANULE_BYTES } from '../../src/base/limits.ts';
import type { ByteRange } from '../../src/base/range.ts';
import { openMemoryCache } from '../../src/blob/cache/blob-cache.ts';
import { createFetcher } from '../../src/blob/fetcher.ts';
import { FakeClock, fetchBench, type FetchBench } from './fetch-support.ts';
import { SimulatedLink } from './simulated-link.ts';
import { digestOf, settle } from './support.ts';

const KIB = 1024;
const UNIT = 256 * KIB;

/** Reads a range as a device does, answering whatever is requested. True when it had to wait. */
async function read(bench: FetchBench, offset: number, length: number): Promise<boolean> {
  const { blob, source } = bench;
  const isMiss = !blob.has(offset, length);
  blob.touch(offset, length);
  const done = blob.ensure(offset, length);
  for (let turn = 0; turn < 4; turn += 1) {
    for (const request of source.requests) if (!request.isOver) await request.finish();
    await settle();
  }
  await done;
  return isMiss;
}

test('a miss brings the window it lies in, but waits only for its own granules', async (t) => {
  const bench = await fetchBench(t, 1024);
  bench.blob.readAhead = 'auto';
  const done = bench.blob.ensure(UNIT + 64 * KIB, 4 * KIB);
  const forward = bench.source.only;
  assert.deepEqual([forward.offset, forward.length], [UNIT + 64 * KIB, UNIT - 64 * KIB]);
  await forward.send(4 * KIB);
  await done;
  await forward.finish();
  const behind = bench.source.only;
  assert.deepEqual([behind.offset, behind.length], [UNIT, 64 * KIB]);
  await behind.finish();
  assert.equal(bench.blob.counters.readAheadBytes, UNIT - 4 * KIB);
});

test('sequential reading waits less often than fixed units would', async (t) => {
  const bench = await fetchBench(t, 2048);
  bench.blob.readAhead = 'auto';
  let misses = 0;
  for (let offset = 0; offset < 8 * KIB * KIB; offset += 16 * KIB) {
    if (await read(bench, offset, 16 * KIB)) misses += 1;
  }
  t.diagnostic(`${misses} waits for 8 MiB; fixed units: ${(8 * KIB * KIB) / UNIT}`);
  assert(misses <= (8 * KIB * KIB) / UNIT / 2);
});

test('random reading soon fetches little more than it needs', async (t) => {
  const bench = await fetchBench(t, 128 * 256);
  bench.blob.readAhead = 'auto';
  let seed = 7;
  for (let count = 0; count < 120; count += 1) {
    seed = (Math.imul(seed, 1_103_515_245) + 12_345) >>> 0;
    await read(bench, (seed % (128 * 255)) * GRANULE_BYTES, GRANULE_BYTES);
  }
  const fetched = bench.blob.counters.demandBytes;
  t.diagnostic(`${fetched / KIB} KiB fetched for 480 KiB; fixed units: ${120 * 256} KiB`);
  assert(fetched < (120 * UNIT) / 3);
  const before = bench.blob.counters.demandBytes;
  await read(bench, 128 * 255 * GRANULE_BYTES, GRANULE_BYTES);
  assert(bench.blob.counters.demandBytes - before <= fetchLimits.readAheadBytesMin);
});

/** Reads in clusters, with gaps and jumps, as booting from a disk makes them. */
function bootReads(sizeBytes: number): ByteRange[] {
  let seed = 3;
  const random = (below: number): number => {
    seed = (Math.imul(seed, 1_103_515_245) + 12_345) >>> 0;
    return (seed >>> 8) % below;
  };
  const reads: ByteRange[] = [];
  for (let cluster = 0; cluster < 30; cluster += 1) {
    let offset = random(sizeBytes / GRANULE_BYTES - 256) * GRANULE_BYTES;
    for (let count = 0; count < 12; count += 1) {
      const length = (1 + random(4)) * GRANULE_BYTES;
      reads.push({ offset, length });
      offset += length + random(8) * GRANULE_BYTES;
    }
  }
  return reads;
}

/** How long the reads take over a link, one after the other with 1 ms of thought between them. */
async function bootMs(
  policy: 'read-ahead' | 'fixed units',
  bitsPerSecond: number,
): Promise<number> {
  const sizeBytes = 64 * KIB * KIB;
  const clock = new FakeClock();
  const shape = { bitsPerSecond, roundTripMs: 20, turnBytes: 16 * KIB };
  const link = new SimulatedLink(new Uint8Array(sizeBytes), clock, shape);
  const cache = openMemoryCache({ quotaBytes: 2 * sizeBytes, clock });
  const fetcher = createFetcher({ clock });
  const blob = fetcher.remoteBlob(await cache.blob(digestOf(policy), sizeBytes), link);
  if (policy === 'fixed units') blob.readAhead = 'off';
  let elapsedMs = 0;
  for (const { offset, length } of bootReads(sizeBytes)) {
    blob.touch(offset, length);
    const unit = policy === 'fixed units' ? UNIT : 1;
    const from = offset - (offset % unit);
    const wanted = Math.ceil((offset + length) / unit) * unit - from;
    const done = blob.ensure(from, wanted);
    for (; !blob.has(from, wanted); elapsedMs += 1) await clock.advance(1);
    await done;
    await clock.advance(1);
    elapsedMs += 1;
  }
  await blob.close();
  fetcher.close();
  await cache.close();
  return elapsedMs;
}

for (const megabits of [25, 1000]) {
  test(`a boot over ${megabits} Mbit/s is no slower than with fixed units`, async (t) => {
    const adaptiveMs = await bootMs('read-ahead', megabits * 1e6);
    const fixedMs = await bootMs('fixed units', megabits * 1e6);
    t.diagnostic(`${adaptiveMs} ms; fixed units: ${fixedMs} ms`);
    assert(adaptiveMs <= fixedMs);
  });
}
