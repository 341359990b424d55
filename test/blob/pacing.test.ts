// Goal: prefetch keeps a fast, long link busy, does not bury demand reads on a slow one, and what
// it has under way stays within its window.
// Method: a server behind one simulated link; all times are those of the test's clock.
import assert from 'node:assert/strict';
import { test, type TestContext } from 'node:test';
import { fetchLimits } from '../../src/base/limits.ts';
import { openMemoryCache } from '../../src/blob/cache/blob-cache.ts';
import { Flow } from '../../src/blob/fetch/fair-share.ts';
import type { RemoteBlob } from '../../src/blob/fetch/remote-blob.ts';
import { createFetcher, type Fetcher } from '../../src/blob/fetcher.ts';
import { FakeClock, fetchBench } from './fetch-support.ts';
import { SimulatedLink, type LinkShape } from './simulated-link.ts';
import { digestOf, settle } from './support.ts';

const MIB = 1024 * 1024;

interface LinkBench {
  clock: FakeClock;
  link: SimulatedLink;
  fetcher: Fetcher;
  blob: RemoteBlob;
}

async function linkBench(t: TestContext, sizeBytes: number, shape: LinkShape): Promise<LinkBench> {
  const clock = new FakeClock();
  const link = new SimulatedLink(new Uint8Array(sizeBytes), clock, shape);
  const cache = openMemoryCache({ quotaBytes: 2 * sizeBytes, clock });
  const fetcher = createFetcher({ clock, random: () => 0.5 });
  const blob = fetcher.remoteBlob(await cache.blob(digestOf('link'), sizeBytes), link);
  blob.readAhead = 'off';
  t.after(async () => {
    await blob.close();
    fetcher.close();
    await cache.close();
  });
  return { clock, link, fetcher, blob };
}

function prefetchAll({ fetcher, blob }: LinkBench, stepBytes: number): Promise<void>[] {
  const ranges: Promise<void>[] = [];
  for (let offset = 0; offset < blob.sizeBytes; offset += stepBytes) {
    ranges.push(fetcher.prefetch(blob, { offset, length: stepBytes }));
  }
  return ranges;
}

test('prefetch fills a link of 1 Gbit/s and 50 ms', async (t) => {
  const shape = { bitsPerSecond: 1e9, roundTripMs: 50, turnBytes: 256 * 1024 };
  const bench = await linkBench(t, 96 * MIB, shape);
  const ranges = prefetchAll(bench, MIB);
  let elapsedMs = 0;
  while (!bench.blob.has(0, 96 * MIB)) {
    await bench.clock.advance(10);
    elapsedMs += 10;
    assert(elapsedMs < 10_000);
  }
  await Promise.all(ranges);
  const idealMs = 50 + (96 * MIB * 8000) / 1e9;
  t.diagnostic(`96 MiB in ${elapsedMs} ms, ideal ${Math.round(idealMs)} ms`);
  assert(elapsedMs < idealMs * 1.4, `${elapsedMs} ms, where ${idealMs} ms are ideal`);
});

test('a demand read on 25 Mbit/s and 20 ms waits for little more than its round trip', async (t) => {
  const shape = { bitsPerSecond: 25e6, roundTripMs: 20, turnBytes: 16 * 1024 };
  const bench = await linkBench(t, 16 * MIB, shape);
  const ranges = prefetchAll(bench, 256 * 1024);
  await bench.clock.advance(1500);
  let slowestMs = 0;
  for (let read = 0; read < 8; read += 1) {
    const offset = bench.blob.sizeBytes - (read + 1) * MIB;
    void bench.blob.ensure(offset, 16 * 1024);
    let waitedMs = 0;
    for (; !bench.blob.has(offset, 16 * 1024); waitedMs += 5) await bench.clock.advance(5);
    slowestMs = Math.max(slowestMs, waitedMs);
    await bench.clock.advance(100);
  }
  const { windowBytes, bytesPerSecond, roundTripMs } = bench.fetcher.stats;
  t.diagnostic(
    `slowest ${slowestMs} ms; ${JSON.stringify({ windowBytes, bytesPerSecond, roundTripMs })}`,
  );
  assert(slowestMs <= 100, `${slowestMs} ms`);
  await bench.blob.close();
  await Promise.all(ranges);
});

test('what prefetch has under way stays within the window, and is less while demand waits', async (t) => {
  const shape = { bitsPerSecond: 100e6, roundTripMs: 30, turnBytes: 64 * 1024 };
  const bench = await linkBench(t, 16 * MIB, shape);
  const { fetcher, link, blob, clock } = bench;
  const ranges = prefetchAll(bench, 512 * 1024);
  await settle();
  assert(link.asked.prefetch <= fetchLimits.windowBytesStart);
  assert(
    link.asked.prefetch > fetchLimits.windowBytesStart / 2,
    'the first round trip is not idle',
  );
  let largestBytes: number = fetchLimits.windowBytesStart;
  for (let step = 0; step < 60; step += 1) {
    const before = fetcher.stats.windowBytes;
    await clock.advance(5);
    largestBytes = Math.max(before, fetcher.stats.windowBytes, largestBytes);
    assert(link.asked.prefetch <= largestBytes);
  }
  // A read that never ends keeps demand waiting.
  await clock.advance(100);
  void blob.ensure(15 * MIB, MIB).catch(() => undefined);
  const seen = link.requests;
  await clock.advance(10);
  assert(link.requests - seen <= 2, 'prefetch all but stopped');
  await blob.close();
  await Promise.all(ranges);
});

test('demand requests leave at once however much prefetch is queued', async (t) => {
  const { blob, source, fetcher } = await fetchBench(t, 4096);
  for (let range = 0; range < 200; range += 1) {
    void fetcher.prefetch(blob, { offset: range * 8 * 4096, length: 4 * 4096 });
  }
  const prefetches = () => source.requests.filter((request) => request.lane === 'prefetch').length;
  const started = prefetches();
  assert(started > 8 && started < 200, `${started} requests fill the window`);
  void blob.ensure(2000 * 4096, 4096).catch(() => undefined);
  assert.equal(source.requests.at(-1)?.lane, 'demand');
  for (const request of source.requests.slice(0, 4)) await request.finish();
  const narrowed = prefetches();
  const demand = source.requests.find((request) => request.lane === 'demand');
  await demand?.finish();
  assert(prefetches() >= narrowed + 4, 'the window is smaller while demand waits');
});

test('the prefetch backlog is bounded, and says when it takes more', async (t) => {
  const { blob, fetcher, source } = await fetchBench(t, 8192, { prefetchConcurrency: 1 });
  for (let range = 0; range <= fetchLimits.prefetchBacklogMax; range += 1) {
    void fetcher.prefetch(blob, { offset: range * 2 * 4096, length: 4096 });
  }
  assert.ok(!fetcher.takes(blob.flow));
  assert.ok(fetcher.takes(new Flow()), 'another device has room of its own');
  await fetcher.prefetch(blob, { offset: 8000 * 4096, length: 4096 });
  assert.equal(fetcher.stats.refused, 1);
  const ready = fetcher.prefetchReady();
  await source.requests[0].finish();
  await ready;
  assert.ok(fetcher.takes(blob.flow));
});
