// Goal: devices that share a layer share its fetches, and one's end does not fail the other's.
// Method: two remote blobs over one digest, each with a scripted source of its own.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { GRANULE_BYTES as G } from '../../src/base/limits.ts';
import { openMemoryCache } from '../../src/blob/cache/blob-cache.ts';
import { createFetcher } from '../../src/blob/fetcher.ts';
import { FakeClock, ScriptedSource, stateOf } from './fetch-support.ts';
import { digestOf, patternBytes, sameBytes } from './support.ts';

test('a second device waits for the first one, and takes over when that is closed', async () => {
  const clock = new FakeClock();
  const content = patternBytes(16 * G);
  const cache = openMemoryCache({ quotaBytes: 64 * G, clock });
  const fetcher = createFetcher({ clock });
  const sources = [new ScriptedSource(content), new ScriptedSource(content)];
  const blobs = [];
  for (const source of sources) {
    const cached = await cache.blob(digestOf('shared'), content.length);
    const blob = fetcher.remoteBlob(cached, source);
    blob.readAhead = 'off';
    blobs.push(blob);
  }
  const [first, second] = blobs;
  const closed = assert.rejects(first.ensure(0, 4 * G), { code: 'ERR_DEVICE_CLOSED' });
  const read = second.ensure(G, 2 * G);
  assert.equal(sources[1].requests.length, 0);
  await sources[0].only.send(2 * G);
  assert.equal(await stateOf(read), 'pending');
  await first.close();
  await closed;
  assert.equal(await stateOf(read), 'pending');
  assert.deepEqual(sources[1].only.granules, [2, 1]);
  await sources[1].only.finish();
  await read;
  assert(sameBytes(second.bytes.subarray(G, 3 * G), content.subarray(G, 3 * G)));
  assert.equal(second.touch(G, G).cached, G, 'somebody else had fetched it');
  assert.equal(second.touch(2 * G, G).demand, G);
  await second.close();
  fetcher.close();
  await cache.close();
});
