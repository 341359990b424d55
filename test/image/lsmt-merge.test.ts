// Goal: for every sector the merged index names the layer, and the place in it, that a reader of
// the stack must see. Method: random stacks against a flat array painted layer by layer, plus the
// corners: nothing at all, LBAs far out, many segments in one bucket, entries beyond the disk.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import type { LsmtEntryColumns } from '../../src/image/lsmt/index-entries.ts';
import { findSegment, mergeLayers, sumMergedIndex } from '../../src/image/lsmt/merged-index.ts';
import { overlayLayers } from '../../src/image/lsmt/overlay.ts';
import { ZERO_LAYER, type MergedIndexMap } from '../../src/image/stack-map.ts';

const DISK_SECTORS = 300;

interface Entry {
  lba: number;
  sectors: number;
  mapped: number;
  zeroed: boolean;
}

/** Gap, length, whether zeroed, whether the data follows that of the entry before. */
const layerArbitrary = fc
  .array(fc.tuple(fc.nat(20), fc.integer({ min: 1, max: 40 }), fc.boolean(), fc.boolean()), {
    maxLength: 12,
  })
  .map((parts) => {
    const entries: Entry[] = [];
    let lba = 0;
    let mapped = 8;
    for (const [gap, sectors, zeroed, follows] of parts) {
      lba += gap;
      if (!follows) mapped += 5;
      entries.push({ lba, sectors, mapped, zeroed });
      lba += sectors;
      if (!zeroed) mapped += sectors;
    }
    return entries;
  });

test('random stacks read as the flat model does', () => {
  const stacks = fc.oneof(
    { weight: 9, arbitrary: fc.array(layerArbitrary, { minLength: 1, maxLength: 8 }) },
    { weight: 1, arbitrary: fc.array(layerArbitrary, { minLength: 200, maxLength: 255 }) },
  );
  fc.assert(
    fc.property(stacks, (stack) => {
      const map = mergeLayers(stack.map(columns), DISK_SECTORS * 512);
      checkInvariants(map);
      const expected = paint(stack);
      for (let lba = 0; lba < DISK_SECTORS; lba += 1) {
        assert.deepEqual(lookup(map, lba), expected[lba], `sector ${lba}`);
      }
    }),
    { numRuns: 300 },
  );
});

test('segments stay apart, with their own layer, for the merge of layers', () => {
  const bottom = [{ lba: 0, sectors: 100, mapped: 8, zeroed: false }];
  const top = [
    { lba: 10, sectors: 10, mapped: 8, zeroed: true },
    { lba: 20, sectors: 10, mapped: 8, zeroed: false },
  ];
  const merged = overlayLayers([columns(bottom), columns(top)]);
  const rows = Array.from({ length: merged.count }, (_, i) => [
    merged.start[i],
    merged.sectors[i],
    merged.layer[i],
    merged.zeroed[i],
  ]);
  assert.deepEqual(rows, [
    [0, 10, 0, 0],
    [10, 10, 1, 1],
    [20, 10, 1, 0],
    [30, 70, 0, 0],
  ]);
});

test('neighbours that read as one are one segment', () => {
  const zeros = [
    { lba: 0, sectors: 16_383, mapped: 8, zeroed: true },
    { lba: 16_383, sectors: 16_383, mapped: 99, zeroed: true },
    { lba: 32_766, sectors: 2, mapped: 99, zeroed: true },
  ];
  const data = [
    { lba: 32_768, sectors: 16_000, mapped: 8, zeroed: false },
    { lba: 48_768, sectors: 16_000, mapped: 16_008, zeroed: false },
    { lba: 64_768, sectors: 10, mapped: 8, zeroed: false },
  ];
  const map = mergeLayers([columns(zeros), columns(data)], 2 ** 40);
  assert.deepEqual([...map.start], [0, 32_768, 64_768]);
  assert.deepEqual([...map.sectors], [32_768, 32_000, 10]);
  assert.deepEqual(sumMergedIndex(map, 2), { dataSectors: [0, 32_010], zeroSectors: 32_768 });
});

test('a joined segment never outgrows its 16 bits', () => {
  const entries: Entry[] = [];
  for (let i = 0; i < 400_000; i += 1) {
    entries.push({ lba: i * 16_383, sectors: 16_383, mapped: 8, zeroed: true });
  }
  const map = mergeLayers([columns(entries)], 2 ** 50);
  assert.ok(map.segmentCount > 1);
  checkInvariants(map);
  assert.equal(sumMergedIndex(map, 1).zeroSectors, 400_000 * 16_383);
});

test('an empty stack has no segments, anywhere', () => {
  for (const layers of [[], [columns([])], [columns([]), columns([])]]) {
    const map = mergeLayers(layers, 2 ** 30);
    assert.equal(map.segmentCount, 0);
    assert.equal(findSegment(map, 0), 0);
    assert.equal(findSegment(map, 2 ** 50 - 1), 0);
  }
});

test('LBAs beyond 2 TiB, and up to 2^50, stay exact', () => {
  const far = 2 ** 50 - 64;
  const entries = [
    { lba: 144, sectors: 8, mapped: 8, zeroed: false },
    { lba: 2 ** 32 + 16, sectors: 8, mapped: 16, zeroed: false },
    { lba: 2 ** 32 + 25, sectors: 1, mapped: 24, zeroed: true },
    { lba: 2 ** 40 + 1, sectors: 3, mapped: 2 ** 44 + 1, zeroed: false },
    { lba: far, sectors: 63, mapped: 2 ** 45, zeroed: false },
  ];
  // Sectors up to 2^50 need more bytes than a double counts, so the disk is not the bound here.
  const map = mergeLayers([columns(entries)], Infinity);
  checkInvariants(map);
  assert.deepEqual(lookup(map, 144), [0, 8]);
  assert.equal(lookup(map, 2 ** 32 + 15), null);
  assert.deepEqual(lookup(map, 2 ** 32 + 16), [0, 16]);
  assert.deepEqual(lookup(map, 2 ** 32 + 23), [0, 23]);
  assert.equal(lookup(map, 2 ** 32 + 24), null);
  assert.deepEqual(lookup(map, 2 ** 32 + 25), [ZERO_LAYER, 0]);
  assert.deepEqual(lookup(map, 2 ** 40 + 3), [0, 2 ** 44 + 3]);
  assert.deepEqual(lookup(map, far + 62), [0, 2 ** 45 + 62]);
  assert.equal(findSegment(map, far + 63), map.segmentCount);
});

test('what lies beyond the disk is dropped, what crosses its end is cut', () => {
  const bottom = [{ lba: 0, sectors: 100, mapped: 8, zeroed: false }];
  const top = [
    { lba: 90, sectors: 20, mapped: 8, zeroed: false },
    { lba: 2 ** 49, sectors: 1, mapped: 28, zeroed: false },
  ];
  const map = mergeLayers([columns(bottom), columns(top)], 95 * 512);
  assert.deepEqual([...map.start], [0, 90]);
  assert.deepEqual([...map.sectors], [90, 5]);
  assert.ok(map.radix.length < 20);
});

test('many segments in one bucket are still found', () => {
  const entries: Entry[] = [];
  for (let i = 0; i < 5000; i += 1) {
    entries.push({ lba: 3 * i, sectors: 2, mapped: 8 + 7 * i, zeroed: false });
  }
  entries.push({ lba: 2 ** 45, sectors: 1, mapped: 8, zeroed: false });
  const map = mergeLayers([columns(entries)], Infinity);
  assert.ok(map.bucketSectors > 15_000);
  checkInvariants(map);
  for (let i = 0; i < 5000; i += 1) {
    assert.deepEqual(lookup(map, 3 * i + 1), [0, 9 + 7 * i]);
    assert.equal(lookup(map, 3 * i + 2), null);
  }
});

test('columns are as narrow as the disk allows', () => {
  const entry = (lba: number, mapped: number): Entry => ({
    lba,
    sectors: 1,
    mapped,
    zeroed: false,
  });
  const bytesOf = (entries: Entry[]): number[] => {
    const { start, mapped, last } = mergeLayers([columns(entries)], Infinity);
    return [start, mapped, last].map((column) => column.BYTES_PER_ELEMENT);
  };
  assert.deepEqual(bytesOf([entry(0, 8), entry(2 ** 32 - 1, 2 ** 32 - 1)]), [4, 4, 2]);
  assert.deepEqual(bytesOf([entry(0, 8), entry(2 ** 32, 9)]), [8, 4, 4]);
  assert.deepEqual(bytesOf([entry(0, 2 ** 32), entry(2, 8)]), [4, 8, 2]);
});

test('its memory is shared, so that threads need no copy', () => {
  const entry = { lba: 0, sectors: 1, mapped: 8, zeroed: false };
  const map = mergeLayers([columns([entry])], 512);
  for (const column of [map.start, map.sectors, map.mapped, map.layer, map.last, map.radix]) {
    assert.ok(column.buffer instanceof SharedArrayBuffer);
  }
});

function columns(entries: readonly Entry[]): LsmtEntryColumns {
  return {
    count: entries.length,
    start: Float64Array.from(entries, (entry) => entry.lba),
    sectors: Uint16Array.from(entries, (entry) => entry.sectors),
    mapped: Float64Array.from(entries, (entry) => entry.mapped),
    zeroed: Uint8Array.from(entries, (entry) => (entry.zeroed ? 1 : 0)),
    hasTags: false,
  };
}

/** What sector `lba` reads: layer and sector of its file; null for a hole. */
function lookup(map: MergedIndexMap, lba: number): [number, number] | null {
  const at = findSegment(map, lba);
  if (at === map.segmentCount || map.start[at] > lba) return null;
  if (map.layer[at] === ZERO_LAYER) return [ZERO_LAYER, 0];
  return [map.layer[at], map.mapped[at] + lba - map.start[at]];
}

function paint(stack: readonly (readonly Entry[])[]): ([number, number] | null)[] {
  const disk = new Array<[number, number] | null>(DISK_SECTORS).fill(null);
  for (const [layer, entries] of stack.entries()) {
    for (const { lba, sectors, mapped, zeroed } of entries) {
      for (let i = 0; i < sectors && lba + i < DISK_SECTORS; i += 1) {
        disk[lba + i] = zeroed ? [ZERO_LAYER, 0] : [layer, mapped + i];
      }
    }
  }
  return disk;
}

/** Sorted, disjoint, joined as far as they go; and every segment is where its bucket says. */
function checkInvariants(map: MergedIndexMap): void {
  const { start, sectors, mapped, layer, last, radix, bucketSectors, segmentCount } = map;
  for (let at = 0; at < segmentCount; at += 1) {
    assert.ok(sectors[at] > 0);
    if (at === 0) continue;
    const previousEnd = start[at - 1] + sectors[at - 1];
    assert.ok(start[at] >= previousEnd);
    const isNeighbour = start[at] === previousEnd && layer[at] === layer[at - 1];
    const readsOn = layer[at] === ZERO_LAYER || mapped[at - 1] + sectors[at - 1] === mapped[at];
    assert.ok(!isNeighbour || !readsOn || sectors[at - 1] >= 2 ** 14);
  }
  assert.equal(radix[0], 0);
  assert.equal(radix.at(-1), segmentCount);
  for (let bucket = 0; bucket < radix.length - 1; bucket += 1) {
    for (let at = radix[bucket]; at < radix[bucket + 1]; at += 1) {
      assert.ok(last[at] < bucketSectors);
      assert.equal(bucket * bucketSectors + last[at], start[at] + sectors[at] - 1);
    }
  }
}
