// Goal: the cache keeps and finds granules, across reopening, refusals and foreign files.
// Method: fill blobs with a pattern, then compare what the mapping and a second opening show.
import assert from 'node:assert/strict';
import { existsSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { test, type TestContext } from 'node:test';
import { codeOf } from '../../src/base/errors.ts';
import { GRANULE_BYTES } from '../../src/base/limits.ts';
import {
  openBlobCache,
  openMemoryCache,
  type BlobCache,
  type BlobCacheOptions,
} from '../../src/blob/cache/blob-cache.ts';
import { digestOf, fill, patternBytes, sameBytes, temporaryFolder } from './support.ts';

const SIZE = 40 * GRANULE_BYTES + 123;
const digest = digestOf('blob');
const content = patternBytes(SIZE);
const quotaBytes = 64 * 1024 * 1024;

async function reopened(
  cache: BlobCache,
  path: string,
  options: Partial<BlobCacheOptions> = {},
): Promise<BlobCache> {
  await cache.close();
  return openBlobCache(path, { quotaBytes, ...options });
}

async function openHere(t: TestContext): Promise<{ cache: BlobCache; path: string }> {
  const path = await temporaryFolder(t);
  return { cache: await openBlobCache(path, { quotaBytes }), path };
}

test('granules are readable as they complete, and are still there after reopening', async (t) => {
  const { cache, path } = await openHere(t);
  const blob = await cache.blob(digest, SIZE);
  const landed: number[] = [];
  const writer = blob.writer({ offset: GRANULE_BYTES, length: 2 * GRANULE_BYTES }, (upTo) =>
    landed.push(upTo),
  );
  writer.write(content.subarray(GRANULE_BYTES, 2 * GRANULE_BYTES - 1));
  assert.equal(blob.has(GRANULE_BYTES, 1), false);
  writer.write(content.subarray(2 * GRANULE_BYTES - 1, 2 * GRANULE_BYTES + 5));
  assert.equal(blob.has(GRANULE_BYTES, GRANULE_BYTES), true);
  assert.equal(blob.has(GRANULE_BYTES, GRANULE_BYTES + 1), false);
  writer.write(content.subarray(2 * GRANULE_BYTES + 5, 3 * GRANULE_BYTES));
  assert.equal(writer.isComplete, true);
  assert.deepEqual(landed, [2 * GRANULE_BYTES, 3 * GRANULE_BYTES]);
  fill(blob, content, { offset: 40 * GRANULE_BYTES, length: 123 });
  assert.deepEqual(blob.missing(0, SIZE), [
    { offset: 0, length: GRANULE_BYTES },
    { offset: 3 * GRANULE_BYTES, length: 37 * GRANULE_BYTES },
  ]);
  await blob.close();
  assert.equal(blob.bytes.length, 0, 'a late reader finds nothing');

  const again = await reopened(cache, path);
  const found = await again.blob(digest, SIZE);
  assert.equal(found.missing(0, SIZE).length, 2);
  for (const [from, to] of [
    [GRANULE_BYTES, 3 * GRANULE_BYTES],
    [40 * GRANULE_BYTES, SIZE],
  ]) {
    assert(sameBytes(found.bytes.subarray(from, to), content.subarray(from, to)));
  }
  assert.equal(again.stats.usedBytes, 3 * GRANULE_BYTES);
  assert.equal(statSync(path).mode & 0o777, 0o700);
  await found.close();
  await again.close();
});

test('a source that sends too much is an error, and its excess is not stored', async (t) => {
  const { cache } = await openHere(t);
  const blob = await cache.blob(digest, SIZE);
  const writer = blob.writer({ offset: 0, length: GRANULE_BYTES }, () => undefined);
  const tooMuch = content.subarray(0, GRANULE_BYTES + 1);
  assert.throws(() => writer.write(tooMuch), { code: 'ERR_SOURCE_OVERRUN' });
  assert.equal(blob.has(0, 1), false);
  await blob.close();
  await cache.close();
});

test('dropped granules are absent, here and after reopening', async (t) => {
  const { cache, path } = await openHere(t);
  const blob = await cache.blob(digest, SIZE);
  fill(blob, content, { offset: 0, length: SIZE });
  blob.drop({ offset: GRANULE_BYTES + 1, length: GRANULE_BYTES });
  const absent = [{ offset: GRANULE_BYTES, length: 2 * GRANULE_BYTES }];
  assert.deepEqual(blob.missing(0, SIZE), absent);
  await blob.close();
  const again = await reopened(cache, path);
  const found = await again.blob(digest, SIZE);
  assert.deepEqual(found.missing(0, SIZE), absent);
  assert.equal(again.stats.usedBytes, 39 * GRANULE_BYTES);
  await found.close();
  await again.close();
});

test('two holds on one digest share bytes; the map lives until the last is closed', async (t) => {
  const { cache } = await openHere(t);
  const first = await cache.blob(digest, SIZE);
  const second = await cache.blob(digest, SIZE);
  assert.equal(first.identity, second.identity);
  fill(first, content, { offset: 0, length: SIZE });
  await first.close();
  await first.close();
  assert(sameBytes(second.bytes, content));
  await assert.rejects(cache.blob(digest, SIZE + 1), { code: 'ERR_BLOB_SIZE' });
  await second.close();
  const other = await cache.blob(digest, SIZE + 1);
  assert.equal(other.has(0, 1), false);
  await other.close();
  await cache.close();
});

test('a second opener of the folder is refused', async (t) => {
  const { cache, path } = await openHere(t);
  await assert.rejects(openBlobCache(path, { quotaBytes }), { code: 'ERR_CACHE_LOCKED' });
  const again = await reopened(cache, path);
  await again.close();
});

test('a damaged, truncated, older or foreign presence file means an empty blob', async (t) => {
  const damages: ((presence: Buffer) => Buffer)[] = [
    (presence) => {
      presence[80] ^= 1;
      return presence;
    },
    (presence) => presence.subarray(0, presence.length - 1),
    (presence) => presence.fill(2, 8, 9),
    () => Buffer.from('something else entirely'),
    () => Buffer.alloc(0),
  ];
  for (const damage of damages) {
    const { cache, path } = await openHere(t);
    const blob = await cache.blob(digest, SIZE);
    fill(blob, content, { offset: 0, length: SIZE });
    await blob.close();
    const folder = `${path}/sha256/${digest.slice(7)}`;
    writeFileSync(`${folder}/presence`, damage(readFileSync(`${folder}/presence`)));
    writeFileSync(`${path}/sha256/notes.txt`, 'not ours');
    const again = await reopened(cache, path);
    assert.equal(again.stats.usedBytes, 0);
    assert.equal(statSync(`${folder}/data`).blocks, 0);
    const found = await again.blob(digest, SIZE);
    assert.equal(found.has(0, 1), false);
    assert(existsSync(`${path}/sha256/notes.txt`));
    await found.close();
    await again.close();
  }
});

test('a blob in use when the machine stopped starts anew; one closed in order is kept', async (t) => {
  const { cache, path } = await openHere(t);
  const used = await cache.blob(digest, SIZE);
  fill(used, content, { offset: 0, length: SIZE });
  const closed = await cache.blob(digestOf('closed'), SIZE);
  fill(closed, content, { offset: 0, length: SIZE });
  await closed.close();
  await cache.checkpoint();
  const presence = readFileSync(`${path}/sha256/${digest.slice(7)}/presence`);
  await used.close();
  await cache.close();
  writeFileSync(`${path}/sha256/${digest.slice(7)}/presence`, presence);

  const sameBoot = await openBlobCache(path, { quotaBytes });
  assert.equal(sameBoot.stats.usedBytes, 2 * 41 * GRANULE_BYTES, 'only the process had stopped');
  const bootId = '00000000-1111-2222-3333-444444444444';
  const nextBoot = await reopened(sameBoot, path, { bootId });
  assert.equal(nextBoot.stats.usedBytes, 41 * GRANULE_BYTES);
  const kept = await nextBoot.blob(digestOf('closed'), SIZE);
  assert(sameBytes(kept.bytes, content));
  await kept.close();
  await nextBoot.close();
});

test('impossible digests and sizes are refused', async () => {
  const cache = openMemoryCache({ quotaBytes });
  for (const bad of ['sha256:../../etc', 'sha512:00', digest.toUpperCase(), `${digest}0`]) {
    await assert.rejects(cache.blob(bad, 1), (error) => codeOf(error) === 'ERR_BLOB_DIGEST');
  }
  for (const bad of [-1, 1.5, Number.NaN, 2 ** 50]) {
    await assert.rejects(cache.blob(digest, bad), (error) => codeOf(error) === 'ERR_BLOB_SIZE');
  }
  await cache.close();
});

test('a memory cache behaves the same, and forgets at the last close', async () => {
  const cache = openMemoryCache({ quotaBytes });
  const blob = await cache.blob(digest, SIZE);
  fill(blob, content, { offset: 0, length: SIZE });
  assert(sameBytes(blob.bytes, content));
  await blob.close();
  assert.equal(cache.stats.usedBytes, 0);
  const empty = await cache.blob(digestOf('empty'), 0);
  assert.deepEqual(empty.missing(0, 0), []);
  assert.equal(empty.has(0, 0), true);
  await empty.close();
  await cache.close();
});
