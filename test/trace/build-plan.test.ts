import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { traceLimits } from '../../src/base/limits.ts';
import { buildPlan, type LocatedPiece, type PlanResolver } from '../../src/trace/build-plan.ts';
import { decodeTrace } from '../../src/trace/decode.ts';
import { encodeTrace } from '../../src/trace/encode.ts';
import { isTruncated, takeRecords, type TracePlan } from '../../src/trace/trace.ts';
import { recordsOf, syntheticLayers, traceOf } from './synthetic.ts';

// Goal: a plan holds exactly the granules the records need, once, in the order they are first
// needed, after the metadata. Method: a resolver whose blobs are a third of the disk's size, and a
// map from granule to its first due time as the model.

const BLOB_BYTES = 3_000_077;

/** Stripes of 40 sectors alternate between two layers; blobs are "compressed" three to one. */
const resolver: PlanResolver = {
  locate: (lba, sectors) => {
    const pieces: LocatedPiece[] = [];
    for (let at = lba; at < lba + sectors;) {
      const end = Math.min((Math.floor(at / 40) + 1) * 40, lba + sectors);
      const layer = Math.floor(at / 40) % 2;
      pieces.push({ lba: at, sectors: end - at, layer, lsmtOffset: at * 512 });
      at = end;
    }
    return pieces;
  },
  blobRangeOf: (piece) => ({
    offset: Math.floor(piece.lsmtOffset / 3) + 100,
    length: Math.ceil((piece.sectors * 512) / 3),
  }),
};

const layers = syntheticLayers(2, BLOB_BYTES);
const metadataRanges = [
  [
    { offset: 0, length: 512 },
    { offset: BLOB_BYTES - 600, length: 600 },
  ],
  [{ offset: 0, length: 9000 }],
];

const row = fc.record({
  gapUs: fc.nat(5000),
  lba: fc.nat(16_000),
  sectors: fc.integer({ min: 1, max: 300 }),
  layer: fc.nat(1),
});

test('a plan is the granules the records need, each once, earliest due first', () => {
  fc.assert(
    fc.property(fc.array(row, { maxLength: 40 }), (rows) => {
      let timeUs = 0;
      const records = recordsOf(rows.map((r) => ({ ...r, timeUs: (timeUs += r.gapUs) })));
      const due = new Map<string, number>();
      const need = (layer: number, offset: number, length: number, dueUs: number): void => {
        const last = Math.floor((offset + length - 1) / 4096);
        for (let granule = Math.floor(offset / 4096); granule <= last; granule += 1) {
          const key = `${layer}/${granule}`;
          if (!due.has(key)) due.set(key, dueUs);
        }
      };
      for (const [layer, ranges] of metadataRanges.entries()) {
        for (const range of ranges) need(layer, range.offset, range.length, 0);
      }
      for (let i = 0; i < records.count; i += 1) {
        for (const piece of resolver.locate(records.lba[i], records.sectors[i])) {
          if (piece.layer !== records.layer[i]) continue;
          const range = resolver.blobRangeOf(piece);
          need(piece.layer, range.offset, range.length, records.timeUs[i]);
        }
      }
      const plan = buildPlan({ records, layers, resolver, metadataRanges });
      const planned = new Set<string>();
      for (let i = 0; i < plan.count; i += 1) {
        assert.ok(i === 0 || plan.dueUs[i] >= plan.dueUs[i - 1]);
        const end = plan.offset[i] + plan.length[i];
        assert.equal(plan.offset[i] % 4096, 0);
        assert.ok(end % 4096 === 0 || end === BLOB_BYTES);
        for (let at = plan.offset[i]; at < end; at += 4096) {
          const key = `${plan.blob[i]}/${at / 4096}`;
          assert.ok(!planned.has(key), `${key} twice`);
          planned.add(key);
          const earlyUs = (due.get(key) ?? NaN) - plan.dueUs[i];
          assert.ok(earlyUs >= 0 && earlyUs <= 2000, `${key} is planned ${earlyUs} us early`);
        }
      }
      assert.equal(planned.size, due.size);
      const trace = { ...traceOf(records, layers), plan };
      assert.deepEqual(decodeTrace(encodeTrace(trace)).plan, plan);
    }),
    { numRuns: 60 },
  );
});

test('a range is due when a run that waits for nothing needs it', () => {
  const records = recordsOf([
    { timeUs: 5000, lba: 0, sectors: 8, layer: 0 },
    { timeUs: 90_000, waitUs: 80_000, lba: 8000, sectors: 8, layer: 0 },
  ]);
  const plan = buildPlan({ records, layers, resolver, metadataRanges: [] });
  assert.deepEqual([...plan.dueUs], [5000, 10_000]);
});

test('metadata comes first, layer by layer, cut at the end of the blob', () => {
  const records = recordsOf([{ timeUs: 5000, lba: 0, sectors: 8, layer: 0 }]);
  const plan = buildPlan({ records, layers, resolver, metadataRanges });
  assert.deepEqual([...plan.blob], [0, 0, 1]);
  assert.deepEqual([...plan.offset], [0, 2_998_272, 0]);
  assert.deepEqual([...plan.length], [4096, BLOB_BYTES - 2_998_272, 12_288]);
  assert.deepEqual([...plan.dueUs], [0, 0, 0]);
});

test('of more ranges than a plan may have the earliest are kept, and the plan says so', () => {
  const rows = traceLimits.planRangesMax + 2;
  // Every second granule, from the last to the first.
  const records = {
    count: rows,
    timeUs: Float64Array.from({ length: rows }, (_, i) => i),
    waitUs: new Float64Array(rows),
    lba: Float64Array.from({ length: rows }, (_, i) => (rows - i) * 16),
    sectors: new Uint32Array(rows).fill(8),
    layer: new Uint16Array(rows),
    weight: new Uint16Array(rows).fill(1),
  };
  const plain: PlanResolver = {
    locate: (lba, sectors) => [{ lba, sectors, layer: 0, lsmtOffset: lba * 512 }],
    blobRangeOf: ({ lsmtOffset, sectors }) => ({ offset: lsmtOffset, length: sectors * 512 }),
  };
  const planOf = (count: number): TracePlan =>
    buildPlan({
      records: takeRecords(records, count),
      layers: syntheticLayers(1, 2 ** 34),
      resolver: plain,
      metadataRanges: [],
    });
  const whole = planOf(traceLimits.planRangesMax - 1);
  assert.deepEqual([whole.count, isTruncated(whole)], [traceLimits.planRangesMax - 1, false]);
  const plan = planOf(rows);
  assert.deepEqual([plan.count, isTruncated(plan)], [traceLimits.planRangesMax, true]);
  assert.equal(plan.offset.at(-1), 3 * 16 * 512);
});
