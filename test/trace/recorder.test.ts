import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { SparseBitmap } from '../../src/base/sparse-bitmap.ts';
import { Recorder, type ServedPiece } from '../../src/trace/recorder.ts';

// Goal: a recorder keeps exactly the first access of each sector that a layer serves. Method: the
// model is a flat array with a flag a sector; segments alternate between layers and holes.

const DISK_SECTORS = 3000;

/** Segments of 7 sectors: layer 0, layer 1, hole, layer 0 ... */
function locate(lba: number, sectors: number): ServedPiece[] {
  const pieces: ServedPiece[] = [];
  for (let at = lba; at < lba + sectors;) {
    const end = Math.min((Math.floor(at / 7) + 1) * 7, lba + sectors);
    const layer = Math.floor(at / 7) % 3;
    if (layer < 2) pieces.push({ lba: at, sectors: end - at, layer });
    at = end;
  }
  return pieces;
}

test('a recorder agrees with a flag a sector', () => {
  const access = fc.tuple(fc.nat(DISK_SECTORS - 1), fc.integer({ min: 1, max: 200 }), fc.nat(3000));
  fc.assert(
    fc.property(fc.array(access, { maxLength: 60 }), (accesses) => {
      const recorder = new Recorder({ locate });
      const firstUs = new Map<number, number>();
      let timeUs = 0;
      for (const [lba, wanted, gapUs] of accesses) {
        timeUs += gapUs;
        const sectors = Math.min(wanted, DISK_SECTORS - lba);
        recorder.access(timeUs, lba * 512, sectors * 512);
        for (let at = lba; at < lba + sectors; at += 1) {
          if (!firstUs.has(at)) firstUs.set(at, timeUs);
        }
      }
      const records = recorder.records();
      const seen = new Set<number>();
      let lastUs = 0;
      for (let i = 0; i < records.count; i += 1) {
        assert.ok(records.timeUs[i] >= lastUs);
        lastUs = records.timeUs[i];
        for (let at = records.lba[i]; at < records.lba[i] + records.sectors[i]; at += 1) {
          assert.ok(!seen.has(at), 'a sector is recorded once');
          seen.add(at);
          assert.equal(Math.floor(at / 7) % 3, records.layer[i]);
          const lateUs = (firstUs.get(at) ?? NaN) - records.timeUs[i];
          assert.ok(lateUs >= 0 && lateUs <= 2000, `${lateUs} us off`);
        }
      }
      const served = [...firstUs.keys()].filter((at) => Math.floor(at / 7) % 3 < 2);
      assert.equal(seen.size, served.length);
      assert.equal(recorder.counts.recordedSectors, served.length);
      assert.equal(recorder.counts.zeroSectors, firstUs.size - served.length);
    }),
  );
});

test('neighbours of one layer within 2 ms are one record', () => {
  const recorder = new Recorder({ locate: (lba, sectors) => [{ lba, sectors, layer: 0 }] });
  recorder.access(0, 0, 4096);
  recorder.access(2000, 4096, 4096);
  recorder.access(2001, 8192, 4096);
  const records = recorder.records();
  assert.deepEqual([...records.lba], [0, 16]);
  assert.deepEqual([...records.sectors], [16, 8]);
});

test('a first access longer than a record becomes several', () => {
  const recorder = new Recorder({ locate: (lba, sectors) => [{ lba, sectors, layer: 0 }] });
  recorder.access(0, 512, 150_000 * 512);
  assert.deepEqual([...recorder.records().sectors], [65_536, 65_536, 150_000 - 131_072]);
  assert.deepEqual([...recorder.records().lba], [1, 65_537, 131_073]);
});

test('limits on records and on memory end the recording, keeping what is there', () => {
  const whole = (lba: number, sectors: number): ServedPiece[] => [{ lba, sectors, layer: 0 }];
  const few = new Recorder({ locate: whole, recordsMax: 2 });
  for (let i = 0; i < 5; i += 1) few.access(i, i * 1_000_000 * 512, 512);
  assert.ok(few.full);
  assert.equal(few.records().count, 2);
  const small = new Recorder({ locate: whole, bitmapPagesMax: 2 });
  for (let i = 0; i < 5; i += 1) small.access(i, i * 1_000_000 * 512, 512);
  assert.ok(small.full);
  assert.deepEqual([...small.records().lba], [0, 1_000_000]);
});

test('a sparse bitmap reports maximal runs of what is new, and stops at its limit', () => {
  const interval = fc.tuple(fc.nat(70_000), fc.integer({ min: 1, max: 40_000 }));
  fc.assert(
    fc.property(fc.array(interval, { maxLength: 12 }), (intervals) => {
      const bitmap = new SparseBitmap();
      const model = new Uint8Array(120_000);
      for (const [start, count] of intervals) {
        const expected: [number, number][] = [];
        for (let at = start; at < start + count; at += 1) {
          if (model[at] === 1) continue;
          model[at] = 1;
          const last = expected.at(-1);
          if (last !== undefined && last[0] + last[1] === at) last[1] += 1;
          else expected.push([at, 1]);
        }
        const reported: [number, number][] = [];
        assert.ok(bitmap.add(start, count, (from, length) => reported.push([from, length])));
        assert.deepEqual(reported, expected);
      }
      for (let at = 0; at < model.length; at += 997) assert.equal(bitmap.has(at), model[at] === 1);
    }),
    { numRuns: 40 },
  );
  const tiny = new SparseBitmap(1);
  const reported: [number, number][] = [];
  assert.equal(
    tiny.add(32_760, 20, (start, count) => reported.push([start, count])),
    false,
  );
  assert.deepEqual(reported, [[32_760, 8]]);
});
