// Goal: each granule is fetched once, those who wait are released as soon as their own granules
// are there, and a failing source is retried within the read's deadline.
// Method: a source whose every answer the test sends by hand, under a clock that the test turns.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Clock } from '../../src/base/clock.ts';
import { ReplaybdError } from '../../src/base/errors.ts';
import { fetchLimits, GRANULE_BYTES as G } from '../../src/base/limits.ts';
import { FakeClock, fetchBench, stateOf } from './fetch-support.ts';
import { sameBytes, settle } from './support.ts';

test('a miss fetches exactly the granules it lacks, and a hit fetches nothing', async (t) => {
  const { blob, source, content } = await fetchBench(t, 64);
  const read = blob.ensure(3 * G + 10, 2 * G);
  assert.deepEqual(source.only.granules, [3, 3]);
  await source.only.finish();
  await read;
  assert(sameBytes(blob.bytes.subarray(3 * G, 6 * G), content.subarray(3 * G, 6 * G)));
  await blob.ensure(4 * G, G);
  assert.equal(source.requests.length, 1);
  const around = blob.ensure(2 * G, 5 * G);
  assert.deepEqual(
    source.requests.slice(1).map((request) => request.granules),
    [
      [2, 1],
      [6, 1],
    ],
  );
  await source.requests[1].finish();
  assert.equal(await stateOf(around), 'pending');
  await source.requests[2].finish();
  await around;
});

test('the last granule of a blob may be short', async (t) => {
  const { blob, source, content } = await fetchBench(t, 4);
  const read = blob.ensure(4 * G + 1, 99);
  assert.equal(source.only.length, 100);
  await source.only.finish();
  await read;
  assert(sameBytes(blob.bytes.subarray(4 * G), content.subarray(4 * G)));
});

test('readers of the same granules share one request, and each waits for its own only', async (t) => {
  const { blob, source } = await fetchBench(t, 64);
  const whole = blob.ensure(0, 8 * G);
  const early = blob.ensure(G, G);
  const late = blob.ensure(7 * G, G);
  const beyond = blob.ensure(7 * G, 2 * G);
  assert.deepEqual(
    source.requests.map((request) => request.granules),
    [
      [0, 8],
      [8, 1],
    ],
  );
  await source.requests[0].send(2 * G);
  assert.equal(await stateOf(early), 'done');
  assert.equal(await stateOf(late), 'pending');
  await source.requests[0].finish();
  assert.equal(await stateOf(late), 'done');
  assert.equal(await stateOf(whole), 'done');
  assert.equal(await stateOf(beyond), 'pending');
  await source.requests[1].finish();
  await beyond;
});

test('a demand read takes its granules out of the prefetch queue', async (t) => {
  const { blob, source, fetcher } = await fetchBench(t, 64, { prefetchConcurrency: 1 });
  const first = fetcher.prefetch(blob, { offset: 0, length: G });
  const queued = fetcher.prefetch(blob, { offset: 10 * G, length: 8 * G });
  assert.equal(fetcher.stats.prefetch.queued, 1);
  const read = blob.ensure(13 * G, 2 * G);
  assert.deepEqual(source.requests[1].granules, [13, 2]);
  assert.equal(source.requests[1].lane, 'demand');
  assert.equal(fetcher.stats.promotions, 1);
  await source.requests[1].finish();
  await read;
  await source.requests[0].finish();
  await first;
  assert.deepEqual(source.only.granules, [10, 3]);
  await source.only.finish();
  assert.equal(await stateOf(queued), 'pending');
  assert.deepEqual(source.only.granules, [15, 3]);
  await source.only.finish();
  await queued;
});

test('a demand read over a prefetch under way waits for its own granules only', async (t) => {
  const { blob, source, fetcher } = await fetchBench(t, 64);
  const prefetch = fetcher.prefetch(blob, { offset: 0, length: 4 * G });
  assert.deepEqual(blob.touch(2 * G, G), { cached: 0, prefetched: 0, late: G, demand: 0 });
  const read = blob.ensure(2 * G, G);
  await source.only.send(3 * G);
  assert.equal(await stateOf(read), 'done');
  assert.equal(await stateOf(prefetch), 'pending');
  assert.equal(source.requests.length, 1);
  assert.equal(fetcher.stats.joins, 1);
  await source.only.finish();
  await prefetch;
});

test('first touches are told apart by where their bytes came from', async (t) => {
  const { blob, source, fetcher } = await fetchBench(t, 64);
  const prefetch = fetcher.prefetch(blob, { offset: 0, length: 2 * G });
  await source.only.finish();
  await prefetch;
  assert.deepEqual(blob.touch(0, 10), { cached: 0, prefetched: G, late: 0, demand: 0 });
  assert.deepEqual(blob.touch(0, G), { cached: 0, prefetched: 0, late: 0, demand: 0 });
  assert.deepEqual(blob.touch(8 * G, G), { cached: 0, prefetched: 0, late: 0, demand: G });
  const read = blob.ensure(8 * G, 2 * G);
  await source.only.finish();
  await read;
  assert.deepEqual(blob.touch(9 * G, G), { cached: 0, prefetched: 0, late: 0, demand: G });
  assert.equal(blob.counters.prefetchedBytes, 2 * G);
  assert.equal(blob.counters.prefetchedTouchedBytes, G);
  assert.equal(blob.counters.demandBytes, 2 * G);
});

test('a failed fetch is tried again, without what had arrived', async (t) => {
  const { blob, source, clock, fetcher } = await fetchBench(t, 64);
  const read = blob.ensure(0, 4 * G);
  await source.only.send(G + 100);
  await source.only.fail(new Error('connection reset'));
  assert.equal(source.requests.length, 1, 'not before the back-off');
  await clock.advance(fetchLimits.backoffMsFirst);
  assert.deepEqual(source.only.granules, [1, 3]);
  await source.only.finish();
  await read;
  assert.equal(fetcher.stats.retries, 1);
  assert.equal(fetcher.stats.demand.failures, 1);
});

test('a source that keeps failing is an error with its last reason', async (t) => {
  const { blob, source, clock } = await fetchBench(t, 64, { readDeadlineMs: 1_000_000 });
  const read = blob.ensure(0, G);
  const failed = assert.rejects(read, { code: 'ERR_FETCH', message: /connection reset/ });
  for (let attempt = 0; attempt < fetchLimits.demandAttemptsMax; attempt += 1) {
    await source.only.fail(new Error('connection reset'));
    await clock.advance(fetchLimits.backoffMsMax);
  }
  await failed;
});

test('an error that a retry cannot cure is not retried', async (t) => {
  const { blob, source } = await fetchBench(t, 64);
  const read = blob.ensure(0, G);
  const denied = Object.assign(new ReplaybdError('ERR_DENIED', 'no'), { retryable: false });
  const failed = assert.rejects(read, denied);
  await source.only.fail(denied);
  await failed;
});

test('a read that is not answered fails at its deadline', async (t) => {
  const { blob, clock } = await fetchBench(t, 64, { readDeadlineMs: 5000 });
  const read = blob.ensure(0, G);
  const failed = assert.rejects(read, { code: 'ERR_READ_DEADLINE', errno: 'EIO' });
  await clock.advance(4999);
  assert.equal(await stateOf(read), 'pending');
  await clock.advance(1);
  await failed;
});

test('a request that brings nothing is given up and sent again', async (t) => {
  const { blob, source, clock } = await fetchBench(t, 64);
  const read = blob.ensure(0, 2 * G);
  const stalled = source.only;
  await stalled.send(G);
  await clock.advance(3 * fetchLimits.stallMs - 1);
  assert.equal(stalled.signal.aborted, true);
  await stalled.send(G);
  assert.equal(blob.has(G, G), false, 'what a given up request sends is ignored');
  stalled.isOver = true;
  await source.only.finish();
  await read;
});

test('a source that sends too much or too little fails, whatever it says', async (t) => {
  const { blob, source, clock } = await fetchBench(t, 64);
  const read = blob.ensure(0, G);
  const greedy = source.only;
  await greedy.send(G + 1);
  assert.equal(greedy.signal.aborted, true);
  assert.equal(blob.has(0, G), false);
  await greedy.finish();
  await clock.advance(fetchLimits.backoffMsMax);
  const scanty = source.only;
  await scanty.send(G - 1);
  await scanty.end();
  await clock.advance(fetchLimits.backoffMsMax);
  await source.only.finish();
  await read;
});

test('a throttled demand read waits as long as it is told, and prefetch rests meanwhile', async (t) => {
  const { blob, source, clock, fetcher } = await fetchBench(t, 64);
  const read = blob.ensure(0, G);
  const throttled = new ReplaybdError('ERR_THROTTLED', '429');
  await source.only.fail(Object.assign(throttled, { retryAfterMs: 2000, retryable: true }));
  const prefetch = fetcher.prefetch(blob, { offset: 8 * G, length: G });
  await clock.advance(1999);
  assert.equal(source.requests.length, 1);
  await clock.advance(1);
  assert.deepEqual(
    source.requests
      .slice(1)
      .map((request) => request.granules[0])
      .sort(),
    [0, 8],
  );
  for (const request of source.requests.slice(1)) await request.finish();
  await Promise.all([read, prefetch]);
  assert.equal(fetcher.stats.throttles, 1);
});

test('prefetch goes on after its rest, also when a timer is a little early', async (t) => {
  const clock = new FakeClock();
  const early: Clock = {
    nowMs: () => clock.nowMs(),
    wallMs: () => clock.wallMs(),
    sleep: (ms, signal) => clock.sleep(Math.max(0, ms - 0.5), signal),
  };
  const { blob, source, fetcher } = await fetchBench(t, 64, { clock: early });
  const first = fetcher.prefetch(blob, { offset: 0, length: G });
  const throttled = new ReplaybdError('ERR_THROTTLED', '503');
  await source.only.fail(Object.assign(throttled, { retryAfterMs: 2000, retryable: true }));
  const second = fetcher.prefetch(blob, { offset: 8 * G, length: G });
  await clock.advance(fetchLimits.backoffMsMax);
  for (const request of source.requests.slice(1)) await request.finish();
  assert.equal(await stateOf(first), 'done');
  assert.equal(await stateOf(second), 'done');
  assert.ok(blob.has(8 * G, G));
});

test('a prefetch that fails is given up without an error, after a few attempts', async (t) => {
  const { blob, source, clock, fetcher } = await fetchBench(t, 64);
  const prefetch = fetcher.prefetch(blob, { offset: 0, length: G });
  for (let attempt = 0; attempt < fetchLimits.prefetchAttemptsMax; attempt += 1) {
    await source.only.fail(new Error('connection reset'));
    await clock.advance(fetchLimits.backoffMsMax);
  }
  await prefetch;
  assert.equal(fetcher.stats.prefetch.failures, fetchLimits.prefetchAttemptsMax);
  await fetcher.prefetch(blob, { offset: blob.sizeBytes, length: G });
  assert.equal(source.requests.length, fetchLimits.prefetchAttemptsMax);
});

test('a demand read goes on at once when the prefetch it waited for fails', async (t) => {
  const { blob, source, fetcher } = await fetchBench(t, 64);
  void fetcher.prefetch(blob, { offset: 0, length: 4 * G });
  const read = blob.ensure(G, G);
  const failing = source.only;
  await failing.fail(new Error('connection reset'));
  const retry = source.requests.find((request) => request.lane === 'demand');
  assert.deepEqual(retry?.granules, [1, 1]);
  await retry.finish();
  await read;
});

test('cancelled prefetches leave the queue; what is under way comes in', async (t) => {
  const { blob, source, fetcher } = await fetchBench(t, 64, { prefetchConcurrency: 1 });
  const cancel = new AbortController();
  const options = { signal: cancel.signal };
  const first = fetcher.prefetch(blob, { offset: 0, length: G }, options);
  const second = fetcher.prefetch(blob, { offset: 8 * G, length: G }, options);
  cancel.abort();
  await Promise.all([first, second]);
  await source.only.finish();
  assert.equal(blob.has(0, G), true);
  await settle();
  assert.equal(source.requests.length, 1);
  assert.equal(fetcher.stats.prefetch.queued, 0);
});

test('closing a blob ends its requests and rejects its readers', async (t) => {
  const { blob, source, fetcher } = await fetchBench(t, 64, { demandConcurrency: 1 });
  const reads = [blob.ensure(0, G), blob.ensure(8 * G, G)];
  const rejected = reads.map((read) => assert.rejects(read, { code: 'ERR_DEVICE_CLOSED' }));
  const prefetch = fetcher.prefetch(blob, { offset: 16 * G, length: G });
  await blob.close();
  await Promise.all([...rejected, prefetch]);
  assert(source.requests.every((request) => request.signal.aborted));
  assert.equal(source.isClosed, true);
  await assert.rejects(blob.ensure(0, G), { code: 'ERR_DEVICE_CLOSED' });
  await source.requests[0].send(G);
  assert.equal(fetcher.stats.demand.active, 0);
});

test("a reader's own signal ends its wait, not the fetch", async (t) => {
  const { blob, source } = await fetchBench(t, 64);
  const cancel = new AbortController();
  const read = blob.ensure(0, G, { signal: cancel.signal });
  const failed = assert.rejects(read, { name: 'AbortError' });
  cancel.abort();
  await failed;
  await source.only.finish();
  assert.equal(blob.has(0, G), true);
});

test('dropped bytes are fetched again', async (t) => {
  const { blob, source } = await fetchBench(t, 64);
  const read = blob.ensure(0, 2 * G);
  await source.only.finish();
  await read;
  assert.equal(blob.drop(G + 5, 10), true);
  const again = blob.ensure(0, 2 * G);
  assert.deepEqual(source.only.granules, [1, 1]);
  await source.only.finish();
  await again;
});
