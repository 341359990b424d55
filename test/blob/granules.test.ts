// Goal: presence says about any range what a plain list of booleans would, granules are cut right
// from chunks of any size, and a presence file returns what was written to it.
// Method: random operations on both, compared (fast-check).
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { GRANULE_BYTES } from '../../src/base/limits.ts';
import { openMemoryCache } from '../../src/blob/cache/blob-cache.ts';
import { forEachRun, GranuleBits } from '../../src/blob/cache/granule-bits.ts';
import { decodePresence, encodePresence } from '../../src/blob/cache/presence-file.ts';
import { digestOf, patternBytes, sameBytes } from './support.ts';

const BITS = 200;
const range = fc
  .tuple(fc.integer({ min: 0, max: BITS }), fc.integer({ min: 0, max: BITS }))
  .map(([a, b]) => ({ first: Math.min(a, b), end: Math.max(a, b) }));

test('granule bits agree with a list of booleans', () => {
  const operations = fc.array(fc.record({ range, value: fc.boolean() }), { maxLength: 30 });
  fc.assert(
    fc.property(operations, range, (steps, asked) => {
      const bits = new GranuleBits(BITS);
      const model: boolean[] = new Array(BITS).fill(false);
      for (const { range: changed, value } of steps) {
        const expected = model.slice(changed.first, changed.end).filter((bit) => bit !== value);
        const count = value
          ? bits.setRange(changed.first, changed.end)
          : bits.clearRange(changed.first, changed.end);
        assert.equal(count, expected.length);
        model.fill(value, changed.first, changed.end);
      }
      const { first, end } = asked;
      const part = model.slice(first, end);
      const orEnd = (index: number): number => (index < 0 ? end : first + index);
      assert.equal(bits.count, model.filter(Boolean).length);
      assert.equal(bits.countRange(first, end), part.filter(Boolean).length);
      assert.equal(bits.allSet(first, end), part.every(Boolean));
      assert.equal(bits.nextSet(first, end), orEnd(part.indexOf(true)));
      assert.equal(bits.nextClear(first, end), orEnd(part.indexOf(false)));
      const seen: boolean[] = new Array(BITS).fill(false);
      forEachRun(bits, first, end, (from, to) => seen.fill(true, from, to));
      assert.deepEqual(seen.slice(first, end), part);
    }),
    { numRuns: 300 },
  );
});

test('has, missing and the bytes agree with a flat model, whatever is written and dropped', async () => {
  const sizeBytes = 64 * GRANULE_BYTES + 17;
  const content = patternBytes(sizeBytes);
  const granules = fc.tuple(fc.integer({ min: 0, max: 64 }), fc.integer({ min: 0, max: 20 }));
  const step = fc.record({
    granules,
    isWrite: fc.boolean(),
    chunk: fc.integer({ min: 1, max: 9999 }),
  });
  const bytes = fc.tuple(fc.nat({ max: sizeBytes }), fc.nat({ max: sizeBytes }));
  await fc.assert(
    fc.asyncProperty(fc.array(step, { maxLength: 12 }), bytes, async (steps, asked) => {
      const cache = openMemoryCache({ quotaBytes: 2 ** 30 });
      const blob = await cache.blob(digestOf('model'), sizeBytes);
      const model: boolean[] = new Array(65).fill(false);
      for (const {
        granules: [first, count],
        isWrite,
        chunk,
      } of steps) {
        const end = Math.min(first + count, 65);
        const offset = first * GRANULE_BYTES;
        const stop = Math.max(offset, Math.min(end * GRANULE_BYTES, sizeBytes));
        if (isWrite) {
          const writer = blob.writer({ offset, length: stop - offset }, () => undefined);
          for (let at = offset; at < stop; at += chunk) {
            writer.write(content.subarray(at, Math.min(at + chunk, stop)));
          }
          assert(writer.isComplete);
        } else {
          blob.drop({ offset, length: stop - offset });
        }
        model.fill(isWrite, first, end);
      }
      const [from, to] = [Math.min(...asked), Math.max(...asked)];
      const first = Math.floor(from / GRANULE_BYTES);
      const part = from === to ? [] : model.slice(first, Math.ceil(to / GRANULE_BYTES));
      assert.equal(blob.has(from, to - from), from === to || part.every(Boolean));
      const absent = new Set<number>();
      for (const { offset, length } of blob.missing(from, to - from)) {
        assert.equal(offset % GRANULE_BYTES, 0);
        for (let at = offset; at < offset + length; at += GRANULE_BYTES) {
          absent.add(at / GRANULE_BYTES);
        }
      }
      part.forEach((present, index) => assert.equal(absent.has(first + index), !present));
      model.forEach((present, granule) => {
        const at = granule * GRANULE_BYTES;
        if (present) {
          const found = blob.bytes.subarray(at, at + GRANULE_BYTES);
          assert(sameBytes(found, content.subarray(at, at + GRANULE_BYTES)));
        }
      });
      await blob.close();
      await cache.close();
    }),
    // Nothing, asked for inside a granule that is absent, is there.
    { numRuns: 60, examples: [[[], [262_155, 262_155]]] },
  );
});

test('a presence file gives back what it was given, and notices any damaged byte', () => {
  const record = {
    digest: digestOf('presence'),
    sizeBytes: 40 * GRANULE_BYTES + 1,
    clean: true,
    bootId: 'a1b2c3d4-0000-1111-2222-333344445555',
    words: new Uint32Array([0xffff_0000, 0x1ff]),
  };
  const file = encodePresence(record);
  assert.deepEqual(decodePresence(file, 'presence'), record);
  for (let at = 0; at < file.length; at += 1) {
    const damaged = Uint8Array.from(file);
    damaged[at] ^= 0x40;
    assert.throws(() => decodePresence(damaged, 'presence'), { code: 'ERR_CACHE_PRESENCE' });
  }
});
