// Goal: each origin has lanes and a measured link of its own, the process's counters are their sum, and
// origins that nobody uses any more are forgotten without their counts.
// Method: blobs of several origins whose every answer the test sends by hand.
import assert from 'node:assert/strict';
import { test, type TestContext } from 'node:test';
import { fetchLimits, GRANULE_BYTES as G } from '../../src/base/limits.ts';
import { openMemoryCache } from '../../src/blob/cache/blob-cache.ts';
import type { RemoteBlob } from '../../src/blob/fetch/remote-blob.ts';
import { Fetchers } from '../../src/blob/fetchers.ts';
import { FakeClock, ScriptedSource, stateOf } from './fetch-support.ts';
import { digestOf, patternBytes } from './support.ts';

interface Opened {
  blob: RemoteBlob;
  source: ScriptedSource;
}

function bench(t: TestContext): { fetchers: Fetchers; open: (origin: string) => Promise<Opened> } {
  const clock = new FakeClock();
  const content = patternBytes(64 * G);
  const cache = openMemoryCache({ quotaBytes: 2 ** 30, clock });
  const fetchers = new Fetchers({ clock, random: () => 0.5, demandConcurrency: 1 });
  const blobs: RemoteBlob[] = [];
  t.after(async () => {
    await Promise.all(blobs.map((blob) => blob.close()));
    fetchers.close();
    await cache.close();
  });
  const open = async (origin: string): Promise<Opened> => {
    const source = new ScriptedSource(content);
    const cached = await cache.blob(digestOf('shared'), content.length);
    const blob = fetchers.remoteBlob(origin, cached, source);
    blob.readAhead = 'off';
    blobs.push(blob);
    return { blob, source };
  };
  return { fetchers, open };
}

test('an origin that does not answer fills its own lane alone, even for the same blob', async (t) => {
  const { fetchers, open } = bench(t);
  const hung = await open('https://hung.example');
  const well = await open('https://well.example');
  const stuck = hung.blob.ensure(0, G);
  const behind = hung.blob.ensure(8 * G, G);
  stuck.catch(() => undefined);
  behind.catch(() => undefined);
  assert.equal(hung.source.requests.length, 1, 'the lane has one place');
  const read = well.blob.ensure(0, G);
  await well.source.only.finish();
  await read;
  assert.deepEqual([fetchers.stats.demand.active, fetchers.stats.demand.queued], [1, 1]);
  assert.equal(fetchers.stats.demand.requests, 2);
  assert.equal(fetchers.stats.demand.bytes, G);
  // What comes late of what another origin has brought meanwhile does no harm.
  await hung.source.only.finish();
  await stuck;
  assert.equal(await stateOf(behind), 'pending');
  await hung.source.only.finish();
  await behind;
});

test('devices of one origin share its lanes; origins without devices are forgotten', async (t) => {
  const { fetchers, open } = bench(t);
  const [first, second] = [await open('https://one.example'), await open('https://one.example')];
  assert.equal(fetchers.of(first.blob), fetchers.of(second.blob));
  const read = first.blob.ensure(0, G);
  const other = second.blob.ensure(8 * G, G);
  assert.equal(second.source.requests.length, 0);
  await first.source.only.finish();
  await read;
  await second.source.only.finish();
  await other;
  const kept = fetchers.of(first.blob);
  await Promise.all([first.blob.close(), second.blob.close()]);
  const again = await open('https://one.example');
  assert.equal(fetchers.of(again.blob), kept, 'what was learned of the link is kept');
  await again.blob.close();
  for (let i = 0; i < fetchLimits.originsKept; i += 1) await open(`https://${i}.example`);
  const anew = await open('https://one.example');
  assert.notEqual(fetchers.of(anew.blob), kept);
  assert.equal(fetchers.stats.demand.requests, 2, 'what it did still counts');
  assert.equal(fetchers.stats.windowBytes, 65 * fetchLimits.windowBytesStart);
});
