import assert from 'node:assert/strict';
import { test, type TestContext } from 'node:test';
import { ReplaybdError } from '../../src/base/errors.ts';
import { fetchLimits, GRANULE_BYTES } from '../../src/base/limits.ts';
import { rangeEnd, type ByteRange } from '../../src/base/range.ts';
import { fetchBench, stateOf } from './fetch-support.ts';
import { settle } from './support.ts';

// Goal: prefetches that are asked for together share requests where the origin answers several
// ranges at once, without any granule being fetched twice or waited for longer than for itself.
// Method: a source whose answers the test writes by hand.

const G = GRANULE_BYTES;

/** One request for several ranges. */
interface ManyRequest {
  ranges: readonly ByteRange[];
  signal: AbortSignal;
  /** Sends one range whole. */
  send: (index: number) => Promise<void>;
  end: (error?: unknown) => Promise<void>;
}

/** A fetch bench whose source answers up to `rangesMax` ranges at once. */
async function manyBench(t: TestContext, rangesMax = 8) {
  const bench = await fetchBench(t, 512);
  const requests: ManyRequest[] = [];
  bench.source.many = {
    rangesMax,
    isRangesMaxKnown: true,
    fetch: (ranges, { signal, onData }) => {
      const { promise, resolve, reject } = Promise.withResolvers<void>();
      requests.push({
        ranges,
        signal,
        send: (index) => {
          onData(bench.content.subarray(ranges[index].offset, rangeEnd(ranges[index])), index);
          return settle();
        },
        end: (error) => {
          if (error === undefined) resolve();
          else reject(error);
          return settle();
        },
      });
      return promise;
    },
  };
  const prefetch = (...granules: number[]): Promise<void>[] =>
    bench.fetcher.gather(() =>
      granules.map((granule) =>
        bench.fetcher.prefetch(bench.blob, { offset: granule * G, length: G }),
      ),
    );
  return { ...bench, requests, prefetch };
}

function granulesOf(request: ManyRequest): number[] {
  return request.ranges.map(({ offset }) => offset / G);
}

test('ranges asked for together leave in one request, in the order they were asked for', async (t) => {
  const { blob, source, fetcher, requests, prefetch } = await manyBench(t);
  const [nine, three, seven] = prefetch(9, 3, 7);
  assert.deepEqual(requests.map(granulesOf), [[9, 3, 7]]);
  assert.equal(source.requests.length, 0);
  assert.equal(fetcher.stats.prefetch.requests, 1);
  assert.equal(fetcher.stats.prefetch.activeBytes, 3 * G);
  await requests[0].send(0);
  assert.equal(await stateOf(nine), 'done');
  assert.equal(await stateOf(three), 'pending');
  await requests[0].send(1);
  await requests[0].send(2);
  await requests[0].end();
  await Promise.all([three, seven]);
  assert.ok(blob.has(3 * G, G) && blob.has(7 * G, G));
  assert.equal(fetcher.stats.prefetch.activeBytes, 0);
  assert.equal(fetcher.stats.prefetch.bytes, 3 * G);
});

test('a request carries no more ranges than the origin takes, and no more bytes than are due', async (t) => {
  const { requests, source, prefetch, fetcher, blob } = await manyBench(t, 2);
  prefetch(0, 10, 20, 30, 40);
  assert.deepEqual(requests.map(granulesOf), [
    [0, 10],
    [20, 30],
  ]);
  assert.deepEqual(source.requests[0].granules, [40, 1]);
  const most = fetchLimits.prefetchRequestBytesMin;
  void fetcher.gather(() => {
    void fetcher.prefetch(blob, { offset: 100 * G, length: most - G });
    return fetcher.prefetch(blob, { offset: 200 * G, length: 3 * G });
  });
  assert.deepEqual(requests[2].ranges, [
    { offset: 100 * G, length: most - G },
    { offset: 200 * G, length: G },
  ]);
  assert.deepEqual(source.requests[1].granules, [201, 2]);
});

test('a demand read over a range of a request under way waits for that range only', async (t) => {
  const { blob, fetcher, requests, prefetch, source } = await manyBench(t);
  prefetch(0, 10);
  const read = blob.ensure(10 * G, G);
  assert.equal(fetcher.stats.joins, 1);
  await requests[0].send(0);
  assert.equal(await stateOf(read), 'pending');
  await requests[0].send(1);
  await read;
  assert.equal(source.requests.length, 0);
});

test('an origin that refuses several ranges is asked for each at once, and none failed', async (t) => {
  const { blob, fetcher, requests, prefetch, source } = await manyBench(t);
  const asked = prefetch(0, 10);
  const read = blob.ensure(10 * G, G);
  assert.ok(source.many);
  source.many = { ...source.many, rangesMax: 1 };
  await requests[0].end(new ReplaybdError('ERR_RANGES_REFUSED', 'one at a time'));
  assert.deepEqual(source.requests.map(({ granules }) => granules).sort(), [
    [0, 1],
    [10, 1],
  ]);
  for (const request of [...source.requests]) await request.finish();
  await Promise.all([...asked, read]);
  const { prefetch: lane, demand } = fetcher.stats;
  assert.equal(lane.failures + demand.failures, 0);
  assert.equal(fetcher.stats.retries, 0);
});

test('what a broken answer brought is kept, the rest is asked for again', async (t) => {
  const { blob, clock, requests, prefetch, source } = await manyBench(t);
  const [first, second] = prefetch(0, 10);
  await requests[0].send(0);
  await requests[0].end(new Error('connection reset'));
  await clock.advance(fetchLimits.backoffMsMax);
  assert.equal(await stateOf(first), 'done');
  assert.deepEqual(source.only.granules, [10, 1]);
  await source.only.finish();
  await second;
  assert.ok(blob.has(10 * G, G));
});

test('closing a blob ends a request for several ranges', async (t) => {
  const { blob, fetcher, requests, prefetch } = await manyBench(t);
  const asked = prefetch(0, 10);
  await blob.close();
  await Promise.all(asked);
  assert.equal(requests[0].signal.aborted, true);
  assert.equal(fetcher.stats.prefetch.active, 0);
});
