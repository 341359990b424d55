import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { LatencyHistogram } from '../../src/prefetch/histogram.ts';
import type { Accesses } from '../../tui/model/accesses.ts';
import { DiskAxis, touchedExtents } from '../../tui/model/disk-axis.ts';
import { fillGrid, halveRows } from '../../tui/model/grid.ts';
import { kindCode, kindOf } from '../../tui/model/kinds.ts';
import { percentiles } from '../../tui/model/live.ts';
import { LiveScene } from '../../tui/model/live-scene.ts';
import { NOTHING } from '../../tui/model/palette.ts';
import { openedTrace } from '../../tui/model/opened-trace.ts';
import { colouredAccesses, replayedAccesses, sceneOf } from '../../tui/model/scene.ts';
import { WHOLE } from '../../tui/model/state.ts';
import { timeTicks } from '../../tui/model/time-axis.ts';
import { jumpTo, moveCursor, nearestAccess, windowOf, zoom } from '../../tui/model/viewport.ts';
import { bar, sparkline } from '../../tui/paint/bars.ts';
import { cellWidth, clip, clipStart, pad, padStart, plain } from '../../tui/paint/text.ts';
import { bytes, duration } from '../../tui/paint/units.ts';
import { bootLikeRecords, recordsOf, syntheticLayers, traceOf } from '../trace/synthetic.ts';

// Goal: positions, cells, zoom, percentiles and texts are what they should be for any trace and any text.
// Method: naive models next to the fast ones; properties; cases by hand.

const access = fc.record({
  lba: fc.integer({ min: 0, max: 200 }),
  sectors: fc.integer({ min: 1, max: 30 }),
  layer: fc.integer({ min: 0, max: 3 }),
});

function accessesOf(rows: readonly { lba: number; sectors: number; layer: number }[]): Accesses {
  const records = recordsOf(rows.map((row, index) => ({ ...row, timeUs: index * 10 })));
  return { ...records, codes: Uint8Array.from(rows, ({ layer }) => layer + 1) };
}

test('extents cover exactly what was touched, and positions count it', () => {
  fc.assert(
    fc.property(fc.array(access, { maxLength: 40 }), (rows) => {
      const accesses = accessesOf(rows);
      const sectorsOf = (layer: number | null): number[] => {
        const own = rows.filter((row) => layer === null || row.layer === layer);
        const all = own.flatMap(({ lba, sectors }) =>
          Array.from({ length: sectors }, (_, i) => lba + i),
        );
        return [...new Set(all)].sort((a, b) => a - b);
      };
      const extents = touchedExtents(accesses, null);
      const covered = extents.flatMap(({ start, end }) =>
        Array.from({ length: end - start }, (_, i) => start + i),
      );
      assert.deepEqual(covered, sectorsOf(null));
      const byAddress = new DiskAxis(accesses, 'lba');
      assert.equal(byAddress.total, covered.length);
      for (const [position, lba] of covered.entries()) {
        assert.equal(byAddress.positionOf(lba, 0), position);
        assert.equal(byAddress.at(position)?.lba, lba);
      }
      const byLayer = new DiskAxis(accesses, 'layers');
      let position = 0;
      for (const layer of [3, 2, 1, 0]) {
        for (const lba of sectorsOf(layer)) {
          assert.equal(byLayer.positionOf(lba, layer), position);
          assert.equal(byLayer.at(position)?.band.layer, layer);
          position += 1;
        }
      }
      assert.equal(byLayer.total, position);
    }),
  );
});

test('a cell shows the worst of what lies in it, and nothing is left out', () => {
  const size = fc.integer({ min: 1, max: 20 });
  fc.assert(
    fc.property(fc.array(access, { minLength: 1, maxLength: 40 }), size, size, (rows, x, y) => {
      const scene = sceneOf(accessesOf(rows), [], 'lba', rows.length * 10);
      const grid = fillGrid(scene.marks, scene.whole, x, 2 * y);
      assert.equal(Math.max(...grid.codes), Math.max(...scene.accesses.codes));
      const half = halveRows(grid);
      assert.deepEqual([half.columns, half.rows, half.codes.length], [x, y, x * y]);
      for (let cell = 0; cell < x * y; cell += 1) {
        const [row, column] = [Math.floor(cell / x), cell % x];
        const upper = grid.codes[2 * row * x + column];
        assert.equal(half.codes[cell], Math.max(upper, grid.codes[(2 * row + 1) * x + column]));
      }
    }),
  );
});

test('whatever is zoomed and moved, the window stays inside and the cursor inside the window', () => {
  const scene = sceneOf(
    { ...bootLikeRecords(300, 3), codes: new Uint8Array(300).fill(1) },
    [],
    'lba',
    500_000,
  );
  const cells = { columns: 60, rows: 30 };
  const step = fc.oneof(
    fc.record({ by: fc.constantFrom(0.25, 0.5, 2, 4), disk: fc.boolean() }),
    fc.record({
      right: fc.integer({ min: -90, max: 90 }),
      down: fc.integer({ min: -40, max: 40 }),
    }),
    fc.record({ jump: fc.integer({ min: 0, max: 299 }) }),
  );
  fc.assert(
    fc.property(fc.array(step, { maxLength: 30 }), (steps) => {
      let viewport = WHOLE;
      for (const one of steps) {
        if ('by' in one)
          viewport = zoom(viewport, scene, one.disk ? 1 : one.by, one.disk ? one.by : 1);
        else if ('jump' in one) viewport = jumpTo(viewport, scene, one.jump);
        else viewport = moveCursor(viewport, scene, cells, [one.right, one.down]);
        const { timeFrom, timeTo, diskFrom, diskTo } = windowOf(viewport, scene);
        assert.ok(timeFrom >= 0 && timeTo <= scene.whole.timeTo + 1e-6 && timeFrom < timeTo);
        assert.ok(diskFrom >= 0 && diskTo <= scene.whole.diskTo + 1e-6 && diskFrom < diskTo);
        const { timeUs, position } = viewport.cursor ?? { timeUs: 0, position: 0 };
        assert.ok(timeUs >= timeFrom - 1e-6 && timeUs <= timeTo + 1e-6);
        assert.ok(position >= diskFrom - 1e-6 && position <= diskTo + 1e-6);
      }
    }),
  );
  const found = nearestAccess(jumpTo(WHOLE, scene, 123), scene, cells);
  assert.equal(found?.distance, 0);
  assert.equal(found?.access, 123);
});

test('a run is told by what it waited for, and by what another trace would have fetched', () => {
  const layers = syntheticLayers(2);
  const rows = [
    { timeUs: 10, waitUs: 0, lba: 0, sectors: 8, layer: 0 },
    { timeUs: 20, waitUs: 5, lba: 100, sectors: 8, layer: 0 },
    { timeUs: 30, waitUs: 5, lba: 200, sectors: 8, layer: 1 },
  ];
  const run = openedTrace('run', traceOf(recordsOf(rows), layers), 1);
  const [{ codes }] = colouredAccesses(run, 'waits');
  assert.deepEqual([...codes].map(kindOf), ['demand', 'cached', 'cached']);
  const plan = openedTrace(
    'plan',
    traceOf(
      recordsOf([
        { timeUs: 5, lba: 0, sectors: 4, layer: 0 },
        { timeUs: 15, lba: 100, sectors: 3, layer: 0 },
        { timeUs: 25, lba: 200, sectors: 8, layer: 0 },
      ]),
      layers,
    ),
    1,
  );
  const replayed = replayedAccesses(plan, run);
  // Half of the first is enough, three of eight sectors are not; another layer's bytes are no use.
  assert.deepEqual([...replayed.codes].map(kindOf), ['prefetched', 'demand', 'unused', 'demand']);
  assert.deepEqual([...replayed.timeUs], [10, 20, 25, 30]);
});

test('a replay fills what its trace expects', () => {
  const expected = openedTrace('a', traceOf(bootLikeRecords(50, 2), syntheticLayers(2)), 1);
  const live = new LiveScene(expected);
  const before = live.scene();
  assert.deepEqual(new Set(before.accesses.codes), new Set([kindCode('unused')]));
  const { lba, sectors } = expected.accesses;
  live.add([[1.5, lba[0] * 512, sectors[0] * 512, 'late']]);
  const after = live.scene();
  assert.equal(after.axis.total, before.axis.total);
  assert.equal(after.marks.position[50], before.marks.position[0]);
  assert.equal(after.accesses.codes[50], kindCode('late'));
  assert.equal(live.touches, 1);
  // However many come, and wherever: each has a place, in order of address.
  for (let i = 0; i < 3000; i += 1) {
    live.add([[2 + i, ((i * 7919) % 3000) * 65_536, 4096, 'demand']]);
    if (i % 500 === 0) live.scene();
  }
  const { marks, axis } = live.scene();
  assert.equal(marks.count, 3051);
  for (let i = 0; i < marks.count; i += 1) {
    assert.ok(marks.position[i] >= 0 && marks.position[i] <= axis.total);
  }
  const whole = new LiveScene(expected);
  whole.add(Array.from(lba, (at, i) => [i, at * 512, sectors[i] * 512, 'cached']));
  const read = whole.scene().accesses.codes;
  assert.equal(read.filter((code) => code === kindCode('unused')).length, 0);
  assert.equal(read.filter((code) => code === kindCode('cached')).length, 50);
  const alone = new LiveScene(null);
  alone.add([[0, 0, 4096, 'cached']]);
  assert.equal(alone.scene().accesses.count, 1);
});

test('a record is unused until any of its sectors is read', () => {
  const touch = fc.record({
    lba: fc.integer({ min: 0, max: 230 }),
    sectors: fc.integer({ min: 1, max: 9 }),
  });
  const lists = [fc.array(access, { maxLength: 40 }), fc.array(touch, { maxLength: 8 })] as const;
  fc.assert(
    fc.property(...lists, (rows, touches) => {
      const records = recordsOf(rows.map((row, index) => ({ ...row, timeUs: index * 10 })));
      const live = new LiveScene(openedTrace('a', traceOf(records, syntheticLayers(4)), 1));
      live.add(touches.map(({ lba, sectors }) => [1, lba * 512, sectors * 512, 'late']));
      const { codes } = live.scene().accesses;
      for (const [i, { lba, sectors }] of rows.entries()) {
        const isRead = touches.some((one) => {
          return one.lba < lba + sectors && lba < one.lba + one.sectors;
        });
        assert.equal(codes[i], isRead ? NOTHING : kindCode('unused'));
      }
    }),
  );
});

test('percentiles between two looks are those of what came in between', () => {
  const latencies = fc.array(fc.double({ min: 0.01, max: 5000, noNaN: true }), { maxLength: 50 });
  fc.assert(
    fc.property(latencies, latencies, (first, second) => {
      const all = new LatencyHistogram();
      for (const ms of first) all.add(ms);
      const before = all.buckets();
      const alone = new LatencyHistogram();
      for (const ms of second) {
        all.add(ms);
        alone.add(ms);
      }
      const found = percentiles(before, all.buckets());
      assert.deepEqual(found, percentiles([], alone.buckets()));
      if (second.length === 0) assert.deepEqual(found, { p50: null, p95: null, p99: null });
      else {
        const sorted = [...second].sort((a, b) => a - b);
        const exact = sorted[Math.ceil(0.95 * sorted.length) - 1];
        assert.ok((found.p95 ?? 0) >= exact * 0.999 && (found.p95 ?? 0) <= exact * 1.1);
      }
    }),
  );
});

test('hostile texts are plain, and any text fits where it has to', () => {
  const text = fc.string({ unit: 'binary', maxLength: 30 });
  fc.assert(
    fc.property(text, fc.integer({ min: 0, max: 20 }), (foreign, width) => {
      const shown = plain(foreign);
      assert.doesNotMatch(shown, /[\u0000-\u001f\u007f-\u009f\u202a-\u202e\u2028\u2029]/);
      assert.ok(cellWidth(clip(shown, width)) <= width);
      assert.ok(cellWidth(clipStart(shown, width)) <= width);
      assert.equal(cellWidth(pad(shown, width)), width);
      assert.equal(cellWidth(padStart(shown, width)), width);
    }),
  );
  assert.equal(plain('a\u001b[2Jb\u0007\u202ec'), 'a?[2Jb??c');
  assert.equal(clip('文件文件', 5), '文件…');
  assert.equal(clipStart('/usr/lib/app', 7), '…ib/app');
});

test('axes, bars and units', () => {
  const labels = (from: number, to: number, gap: number): string[] =>
    timeTicks(from, to, gap).map(({ label }) => label);
  assert.deepEqual(labels(0, 9_180_000, 1_000_000), [
    ...['0', '1 s', '2 s', '3 s', '4 s', '5 s', '6 s', '7 s', '8 s', '9 s'],
  ]);
  assert.deepEqual(labels(100, 900, 300), ['0.5 ms']);
  assert.deepEqual(labels(2_000_000, 2_500_000, 150_000), ['2.0 s', '2.2 s', '2.4 s']);
  assert.equal(bar(0.5, 3), '█▌ ');
  assert.equal(bar(7, 3), '███');
  assert.equal(sparkline([null, 0, 1, 8], 6, 8), '   ▁▂█');
  assert.deepEqual([0, 999, 1000, 2 ** 20, 2 ** 50].map(bytes), [
    ...['0 B', '999 B', '1.0 KiB', '1.0 MiB', '1.0 PiB'],
  ]);
  assert.deepEqual([0, 0.5, 1, 20, 1000, 100_000].map(duration), [
    ...['0 µs', '500 µs', '1.00 ms', '20 ms', '1.00 s', '100 s'],
  ]);
});
