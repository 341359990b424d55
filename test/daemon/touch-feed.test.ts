import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { touchFeedLimits } from '../../src/base/touch-feed-limits.ts';
import type { TouchedBytes } from '../../src/blob/blob.ts';
import {
  TouchFeed,
  worstSource,
  type Touch,
  type TouchSource,
} from '../../src/daemon/touch-feed.ts';

// Goal: whoever asks again and again hears of every first touch once, in order, or of how many were lost.
// Method: a list as the model, asked at any moments, with more touches than the feed has room for.

const nothing: TouchedBytes = { cached: 0, prefetched: 0, late: 0, demand: 0 };
const sources: readonly TouchSource[] = ['cached', 'prefetched', 'late', 'demand'];

test('the worst of several sources is told; what was touched before is not', () => {
  assert.equal(worstSource(nothing), null);
  assert.equal(worstSource({ ...nothing, cached: 1, prefetched: 2 }), 'prefetched');
  assert.equal(worstSource({ cached: 1, prefetched: 2, late: 3, demand: 4 }), 'demand');
  const feed = new TouchFeed();
  feed.add(1500, 4096, 8192, nothing);
  assert.deepEqual(feed.page(0), { next: 0, lost: 0, touches: [] });
  feed.add(1500, 4096, 8192, { ...nothing, late: 4096 });
  assert.deepEqual(feed.page(0), { next: 1, lost: 0, touches: [[1.5, 4096, 8192, 'late']] });
});

test('pages are the list, less what there was no room for', () => {
  const bursts = fc.array(fc.integer({ min: 0, max: 7000 }), { minLength: 1, maxLength: 6 });
  fc.assert(
    fc.property(bursts, fc.boolean(), (sizes, isPolled) => {
      const feed = new TouchFeed();
      const all: Touch[] = [];
      let since = 0;
      for (const size of sizes) {
        for (let i = 0; i < size; i += 1) {
          const source = sources[all.length % sources.length];
          const touch: Touch = [all.length, all.length * 512, 512, source];
          feed.add(touch[0] * 1000, touch[1], touch[2], { ...nothing, [source]: 512 });
          all.push(touch);
        }
        if (!isPolled) continue;
        const page = feed.page(since);
        assert.equal(page.next, all.length);
        assert.equal(page.lost, Math.max(0, all.length - since - touchFeedLimits.entriesMax));
        assert.deepEqual(page.touches, all.slice(since + page.lost));
        since = page.next;
      }
      const kept = all.slice(Math.max(0, all.length - touchFeedLimits.entriesMax));
      assert.deepEqual(feed.page(0).touches, kept);
      // Somebody who watched the device of a former process.
      assert.deepEqual(feed.page(all.length + 1).touches, kept);
      assert.equal(feed.page(all.length + 1).lost, all.length - kept.length);
    }),
    { numRuns: 40 },
  );
});
