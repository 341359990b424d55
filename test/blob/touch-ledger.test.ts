import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { GRANULE_BYTES } from '../../src/base/limits.ts';
import { TouchLedger } from '../../src/blob/touch-ledger.ts';
import { touchedOfPlan } from '../../src/prefetch/planned-touches.ts';

// Goal: what was touched of a range is counted in whole granules, each once, the short last one too.
// Method: any touches of a small blob, with a set of granules as the model.

const GRANULES = 70;

test('the bytes of a range that were touched are those of its touched granules', () => {
  const ranges = fc.array(fc.tuple(fc.nat({ max: GRANULES - 1 }), fc.nat({ max: GRANULES })), {
    maxLength: 8,
  });
  fc.assert(
    fc.property(
      fc.integer({ min: 1, max: GRANULE_BYTES }),
      ranges,
      ranges,
      (tail, touches, asked) => {
        const sizeBytes = (GRANULES - 1) * GRANULE_BYTES + tail;
        const ledger = new TouchLedger(sizeBytes);
        const touched = new Set<number>();
        const bytesOf = (granule: number) => (granule === GRANULES - 1 ? tail : GRANULE_BYTES);
        const rangeOf = ([first, count]: [number, number]) => {
          const offset = first * GRANULE_BYTES;
          return { offset, length: Math.min(count * GRANULE_BYTES, sizeBytes - offset) };
        };
        for (const [first, count] of touches) {
          const { offset, length } = rangeOf([first, count]);
          ledger.touch(offset, length, () => 'demand');
          for (let i = first; i < Math.min(first + count, GRANULES); i += 1) touched.add(i);
        }
        for (const [first, count] of asked) {
          const { offset, length } = rangeOf([first, count]);
          let bytes = 0;
          for (let i = first; i < Math.min(first + count, GRANULES); i += 1) {
            if (touched.has(i)) bytes += bytesOf(i);
          }
          assert.equal(ledger.touchedIn(offset, length), bytes);
        }
      },
    ),
  );
});

test('of a plan counts what is touched, in layers that are there and within their ends', () => {
  const ledgers = [1, 2].map(() => new TouchLedger(4 * GRANULE_BYTES));
  const blobs = ledgers.map((ledger) => ({
    sizeBytes: 4 * GRANULE_BYTES,
    touchedIn: (offset: number, length: number) => ledger.touchedIn(offset, length),
  }));
  ledgers[0].touch(GRANULE_BYTES, 2 * GRANULE_BYTES, () => 'cached');
  ledgers[1].touch(0, 1, () => 'demand');
  const plan = {
    count: 4,
    blob: Uint16Array.of(0, 1, 0, 2),
    offset: Float64Array.of(2, 0, 3, 0).map((granule) => granule * GRANULE_BYTES),
    length: Float64Array.of(2, 1, 2, 1).map((granules) => granules * GRANULE_BYTES),
    dueUs: Float64Array.of(0, 1, 2, 3),
  };
  assert.equal(touchedOfPlan(plan, blobs), 2 * GRANULE_BYTES);
});
