import assert from 'node:assert/strict';
import { test, type TestContext } from 'node:test';
import { openMemoryCache, type BlobCache } from '../../src/blob/cache/blob-cache.ts';
import { FairShare, Flow } from '../../src/blob/fetch/fair-share.ts';
import type { RemoteBlob } from '../../src/blob/fetch/remote-blob.ts';
import { createFetcher, type Fetcher } from '../../src/blob/fetcher.ts';
import { FakeClock } from './fetch-support.ts';
import { SimulatedLink } from './simulated-link.ts';
import { digestOf } from './support.ts';

// Goal: a device whose replay is large does not starve one that begins later, and a device alone is
// served in its own order.
// Method: two devices behind one simulated link, in the time of the test's clock.

const MIB = 2 ** 20;
const SHAPE = { bitsPerSecond: 100e6, roundTripMs: 20, turnBytes: 64 * 1024 };

interface Bench {
  clock: FakeClock;
  fetcher: Fetcher;
  blobs: RemoteBlob[];
}

/** Blobs of so many bytes; those of one device have a flow in common. */
async function bench(t: TestContext, sizes: number[], flows: Flow[]): Promise<Bench> {
  const clock = new FakeClock();
  const total = sizes.reduce((sum, size) => sum + size, 0);
  const cache: BlobCache = openMemoryCache({ quotaBytes: 2 * total, clock });
  const fetcher = createFetcher({ clock, random: () => 0.5 });
  // One link for all: a server's turns between requests are by transfer.
  const link = new SimulatedLink(new Uint8Array(Math.max(...sizes)), clock, SHAPE);
  const blobs: RemoteBlob[] = [];
  for (const [i, size] of sizes.entries()) {
    const cached = await cache.blob(digestOf(`flow ${i}`), size);
    blobs.push(fetcher.remoteBlob(cached, link, flows[i]));
  }
  t.after(async () => {
    await Promise.all(blobs.map((blob) => blob.close()));
    fetcher.close();
    await cache.close();
  });
  return { clock, fetcher, blobs };
}

function prefetchAll(fetcher: Fetcher, blob: RemoteBlob): void {
  for (let offset = 0; offset < blob.sizeBytes; offset += 64 * 1024) {
    void fetcher.prefetch(blob, { offset, length: 64 * 1024 });
  }
}

test('a small replay that begins late has its half of the link', async (t) => {
  const [big, small] = [new Flow(), new Flow()];
  const { clock, fetcher, blobs } = await bench(
    t,
    [24 * MIB, 24 * MIB, 2 * MIB],
    [big, big, small],
  );
  prefetchAll(fetcher, blobs[0]);
  prefetchAll(fetcher, blobs[1]);
  await clock.advance(500);
  prefetchAll(fetcher, blobs[2]);
  let elapsedMs = 0;
  for (; !blobs[2].has(0, 2 * MIB); elapsedMs += 10) {
    assert.ok(elapsedMs < 4000, 'the small replay waits behind the big one');
    await clock.advance(10);
  }
  const aloneMs = (2 * MIB * 8000) / SHAPE.bitsPerSecond;
  t.diagnostic(`${elapsedMs} ms, ${Math.round(aloneMs)} ms if it were alone`);
  // Half of the link, and what was under way already when it began.
  assert.ok(elapsedMs < 3 * aloneMs);
  assert.ok(!blobs[1].has(0, 24 * MIB), 'the big one goes on');
});

test('places alternate by bytes, and a late flow owes nothing for the past', () => {
  const share = new FairShare();
  const [a, b] = [new Flow(), new Flow()];
  assert.deepEqual([share.place(a, 10), share.place(a, 10), share.place(a, 10)], [0, 10, 20]);
  share.leaves(10);
  assert.deepEqual([share.place(b, 5), share.place(b, 5), share.place(b, 5)], [10, 15, 20]);
  share.leaves(100);
  assert.equal(share.place(b, 1), 100);
  share.leaves(50);
  assert.equal(share.place(a, 1), 100, 'time does not go back');
});
