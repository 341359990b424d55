import assert from 'node:assert/strict';
import { test, type TestContext } from 'node:test';
import { ReplaybdError } from '../../src/base/errors.ts';
import { fetchLimits, GRANULE_BYTES as G } from '../../src/base/limits.ts';
import { openMemoryCache } from '../../src/blob/cache/blob-cache.ts';
import type { PackedPiece, PackedRequestEnd } from '../../src/blob/fetch/packed-stream.ts';
import type { RemoteBlob } from '../../src/blob/fetch/remote-blob.ts';
import { fetchBench, ScriptedSource, stateOf } from './fetch-support.ts';
import { digestOf, patternBytes, sameBytes } from './support.ts';

// Goal: pieces of several blobs come out of one packed source in few requests, each granule once; reads
// join what is under way, pass by what is not, and never fail for what the packed source does.
// Method: sources whose answers the test writes by hand, one prefetch request at a time.

const BLOB_GRANULES = 256;
/** What a first request of the stream brings. */
const REQUEST_GRANULES =
  (fetchLimits.prefetchRequestBytesMin * fetchLimits.packedRequestFactor) / G;

/** [blob, first granule, granules], one behind the other in the packed source. */
type Row = readonly [0 | 1, number, number];

/** Pieces of two blobs by turns, each of 8 granules, with as many left out between them. */
const BY_TURNS: Row[] = Array.from({ length: 32 }, (_, i) => [
  i % 2 === 0 ? 0 : 1,
  8 * (i - (i % 2)),
  8,
]);

async function packedBench(t: TestContext, rows: readonly Row[] = BY_TURNS) {
  const bench = await fetchBench(t, BLOB_GRANULES, { prefetchConcurrency: 1 });
  const { fetcher, clock } = bench;
  const content = patternBytes(BLOB_GRANULES * G, 7);
  const cache = openMemoryCache({ quotaBytes: 2 ** 30, clock });
  const second = new ScriptedSource(content);
  const other = fetcher.remoteBlob(await cache.blob(digestOf('other'), content.length), second);
  t.after(async () => {
    await other.close();
    await cache.close();
  });
  const blobs: RemoteBlob[] = [bench.blob, other];
  const contents = [bench.content, content];
  const parts = rows.map(([blob, first, granules]) =>
    contents[blob].subarray(first * G, (first + granules) * G),
  );
  const hot = new ScriptedSource(Buffer.concat(parts));
  const ends: PackedRequestEnd[] = [];
  const abort = new AbortController();
  function* pieces(): Generator<PackedPiece, void, undefined> {
    let at = 0;
    for (const [blob, first, granules] of rows) {
      yield { blob: blobs[blob], range: { offset: first * G, length: granules * G }, at };
      at += granules * G;
    }
  }
  const start = () =>
    fetcher.packed({
      ...{ source: hot, digest: digestOf('hot'), flow: bench.blob.flow, signal: abort.signal },
      pieces: pieces(),
      onRequest: (end) => void ends.push(end),
    });
  const isWhole = (): boolean =>
    rows.every(([blob, first, granules], i) => {
      const { bytes } = blobs[blob];
      const found = bytes.subarray(first * G, (first + granules) * G);
      return blobs[blob].has(first * G, granules * G) && sameBytes(found, parts[i]);
    });
  return { ...bench, blobs, hot, second, ends, abort, start, isWhole };
}

test('one request brings pieces of several blobs, in chunks of any size', async (t) => {
  const { start, hot, source, second, isWhole, ends, fetcher } = await packedBench(t);
  const stream = start();
  assert.deepEqual(hot.only.granules, [0, REQUEST_GRANULES], 'it has left');
  while (hot.requests.some(({ isOver }) => !isOver)) {
    const request = hot.only;
    for (let left = request.length; left > 0; left -= 9001)
      await request.send(Math.min(left, 9001));
    await request.end();
  }
  await stream.finished;
  assert.ok(isWhole());
  assert.ok(hot.requests.length <= 4, `${hot.requests.length} requests`);
  assert.deepEqual([source.requests.length, second.requests.length], [0, 0]);
  assert.ok(
    ends.every(({ error, missing, gapBytes }) => error === null && !missing[0] && !gapBytes),
  );
  assert.equal(fetcher.stats.prefetch.bytes, 256 * G);
});

test('reads join what is under way, and wait for no more than their own', async (t) => {
  const { start, hot, source, second, blobs } = await packedBench(t);
  const stream = start();
  const [first, later] = [blobs[1].ensure(0, 8 * G), blobs[0].ensure(16 * G, 8 * G)];
  await hot.only.send(16 * G);
  assert.equal(await stateOf(first), 'done');
  assert.equal(await stateOf(later), 'pending');
  await hot.only.send(8 * G);
  assert.equal(await stateOf(later), 'done');
  assert.deepEqual([source.requests.length, second.requests.length], [0, 0]);
  stream.giveUp('enough');
  await hot.only.finish();
  await stream.finished;
});

for (const [where, first, requests, gaps] of [
  ['inside what a request brings', 162, 4, 2],
  // A gap is not worth it where a request has brought little yet.
  ['where a request would begin', 130, 5, 0],
] as const) {
  test(`a read gets what is not asked for from its own blob, ${where}`, async (t) => {
    const { start, hot, source, blobs, isWhole, ends } = await packedBench(t);
    const stream = start();
    // Blob 0's granule 128 stands at granule 128 of the source: the third request would bring it.
    const read = blobs[0].ensure(first * G, 2 * G);
    assert.deepEqual(source.only.granules, [first, 2]);
    await source.only.finish();
    await read;
    while (hot.requests.some(({ isOver }) => !isOver)) await hot.only.finish();
    await stream.finished;
    assert.ok(isWhole());
    assert.equal(source.requests.length, 1, 'the stream passes it by');
    assert.equal(hot.requests.length, requests);
    const gapBytes = ends.reduce((sum, end) => sum + end.gapBytes, 0);
    assert.equal(gapBytes, gaps * G);
  });
}

test('what lies far from what is needed is left out', async (t) => {
  const { start, hot, blobs, second, isWhole } = await packedBench(t, [
    [0, 0, 4],
    [1, 0, 40],
    [0, 100, 4],
  ]);
  const read = blobs[1].ensure(0, 40 * G);
  await second.only.finish();
  await read;
  const stream = start();
  while (hot.requests.some(({ isOver }) => !isOver)) await hot.only.finish();
  await stream.finished;
  assert.deepEqual(
    hot.requests.map((request) => request.granules),
    [
      [0, 4],
      [44, 4],
    ],
  );
  assert.ok(isWhole());
});

test('a failure is told, and those who wait ask the blob itself', async (t) => {
  const { start, hot, source, blobs, ends, clock } = await packedBench(t);
  const stream = start();
  const read = blobs[0].ensure(16 * G, G);
  await hot.only.send(9 * G);
  const gone = Object.assign(new ReplaybdError('ERR_REGISTRY_NOT_FOUND', 'gone'), {
    retryable: false,
  });
  await hot.only.fail(gone);
  await stream.finished;
  assert.deepEqual(source.only.granules, [16, 1]);
  await source.only.finish();
  await read;
  assert.equal(ends.length, 1);
  const { missing, error } = ends[0];
  assert.equal(error, gone);
  // Granule 0 of the second piece had come, and the whole first piece.
  assert.equal(missing.length, REQUEST_GRANULES / 8 - 1);
  assert.equal(hot.requests.length, 1, 'what is not there is not asked for again');
  await clock.advance(0);
});

test('a few failures end the stream', async (t) => {
  const { start, hot, ends } = await packedBench(t);
  const stream = start();
  for (let i = 0; i < fetchLimits.packedFailuresMax; i += 1) {
    assert.ok(!stream.isOver);
    await hot.only.fail(new Error('reset'));
  }
  await stream.finished;
  assert.equal(hot.requests.length, fetchLimits.packedFailuresMax);
  assert.equal(ends.length, fetchLimits.packedFailuresMax);
});

test('damage is told once, and what came is forgotten on request', async (t) => {
  const { start, hot, blobs, source } = await packedBench(t);
  const stream = start();
  while (hot.requests.some(({ isOver }) => !isOver)) await hot.only.finish();
  await stream.finished;
  let damages = 0;
  blobs[0].onPackedDamage = () => (damages += 1);
  blobs[0].drop(0, 2 * G);
  assert.equal(damages, 1);
  const read = blobs[0].ensure(0, 2 * G);
  assert.deepEqual(source.only.granules, [0, 2], 'from the blob itself');
  await source.only.finish();
  await read;
  blobs[0].drop(0, 2 * G);
  assert.equal(damages, 1, 'those were its own bytes');
  assert.equal(blobs[0].dropPacked(), (16 * 8 - 2) * G);
  assert.equal(blobs[0].dropPacked(), 0);
  assert.ok(!blobs[0].has(16 * G, G) && blobs[1].has(0, 8 * G));
});

test('a cancelled stream ends at once; a blob that closes, or refuses, is left out', async (t) => {
  const { start, hot, blobs, abort } = await packedBench(t);
  blobs[1].refusesPacked = true;
  const stream = start();
  assert.deepEqual(hot.only.granules, [0, 8], 'pieces of the other blob are too large a gap');
  abort.abort(new Error('cancelled'));
  await stream.finished;
  await blobs[0].close();
  assert.ok(hot.requests[0].signal.aborted);
  await hot.only.end();
  assert.equal(hot.requests.length, 1);
});
