import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { diffFile } from '../../src/trace/diff-file.ts';
import { diffTraces, type FileFinder, type TraceDiff } from '../../src/trace/diff.ts';
import type { Trace, TraceRecords } from '../../src/trace/trace.ts';
import { jitteredRuns, runs, sectorsOf, waiting } from './lab-support.ts';
import { recordsOf, syntheticLayers, traceOf } from './synthetic.ts';

// Goal: a comparison of two traces adds up, is the same from both sides, and tells what stayed, came,
// went and moved.
// Method: recordings of random accesses, whose sectors are counted one by one; traces made by hand.

const ALL = { listMax: 1000 };
const layers = syntheticLayers(2);

function rows(...list: [timeUs: number, lba: number, sectors: number, layer?: number][]): Trace {
  const all = list.map(([timeUs, lba, sectors, layer = 0]) => ({ timeUs, lba, sectors, layer }));
  return traceOf(recordsOf(all), layers);
}

/** The same comparison, seen from the other trace. */
function mirrored(diff: TraceDiff): TraceDiff {
  const swapped = <T extends { lost: unknown; new: unknown }>(counts: T): T => {
    return { ...counts, lost: counts.new, new: counts.lost };
  };
  const turned = (list: TraceDiff['largest']['lost']): TraceDiff['largest']['lost'] =>
    list.map((s) => ({ ...s, firstUs: s.secondUs, secondUs: s.firstUs }));
  const { lost, new: added, moved } = diff.largest;
  return {
    ...swapped(diff),
    layers: diff.layers.map((layer) => {
      return { ...swapped(layer), inFirst: layer.inSecond, inSecond: layer.inFirst };
    }),
    largest: { lost: turned(added), new: turned(lost), moved: turned(moved) },
  };
}

test('a trace has all of itself, and nothing moved', () => {
  fc.assert(
    fc.property(runs, (trace) => {
      const diff = diffTraces(trace, trace, ALL);
      assert.equal(diff.similarity, 1);
      assert.equal(diff.kept.bytes, sectorsOf(trace).size * 512);
      assert.equal(diff.kept.parts, trace.records.count);
      for (const kind of ['lost', 'new', 'moved'] as const) {
        assert.deepEqual(diff[kind], { bytes: 0, parts: 0 });
        assert.deepEqual(diff.largest[kind], []);
      }
    }),
    { numRuns: 60 },
  );
});

test('sectors add up, and the other way round it is the mirror image', () => {
  fc.assert(
    fc.property(runs, runs, (first, second) => {
      const diff = diffTraces(first, second, ALL);
      const [inFirst, inSecond] = [sectorsOf(first), sectorsOf(second)];
      const common = [...inFirst.keys()].filter((sector) => inSecond.has(sector)).length;
      assert.equal(diff.kept.bytes, common * 512);
      assert.equal(diff.kept.bytes + diff.lost.bytes, inFirst.size * 512);
      assert.equal(diff.kept.bytes + diff.new.bytes, inSecond.size * 512);
      assert.ok(diff.moved.bytes <= diff.kept.bytes && diff.moved.parts <= diff.kept.parts);
      assert.ok(diff.similarity >= 0 && diff.similarity <= 1);
      for (const kind of ['kept', 'moved', 'lost', 'new'] as const) {
        const byLayer = diff.layers.reduce((sum, layer) => sum + layer[kind].bytes, 0);
        assert.equal(byLayer, diff[kind].bytes);
        if (kind === 'kept') continue;
        const listed = diff.largest[kind].reduce((sum, { sectors }) => sum + sectors, 0);
        assert.equal(listed * 512, diff[kind].bytes);
      }
      assert.deepEqual(diffTraces(second, first, ALL), mirrored(diff));
      assert.deepEqual(diffTraces(waiting(first, 900), second, ALL), diff, 'waits do not count');
    }),
    { numRuns: 60 },
  );
});

test('what moved is told apart by order and by time', () => {
  const steady: [number, number, number][] = Array.from({ length: 40 }, (_, i) => {
    return [i * 1000, i * 100, 8];
  });
  const first = rows(...steady);
  const late = steady.map<[number, number, number]>(([timeUs, lba, sectors]) => [
    timeUs + (timeUs >= 30_000 ? 200_000 : 0),
    lba,
    sectors,
  ]);
  const byTime = diffTraces(first, rows(...late), ALL);
  assert.deepEqual(byTime.moved, { bytes: 10 * 8 * 512, parts: 10 });
  assert.equal(byTime.similarity, 1, 'the order is the same');
  assert.equal(byTime.largest.moved[0].firstUs, 30_000);
  assert.equal(byTime.largest.moved[0].secondUs, 230_000);
  // The first access comes last: the others each move up by one of forty places.
  const turned = [...steady.slice(1), steady[0]];
  const byOrder = diffTraces(
    first,
    rows(
      ...turned.map<[number, number, number]>(([, lba, sectors], i) => [i * 1000, lba, sectors]),
    ),
    ALL,
  );
  assert.deepEqual(byOrder.moved, { bytes: 8 * 512, parts: 1 });
  assert.equal(byOrder.largest.moved[0].lba, 0);
  assert.ok(byOrder.similarity > 0.9 && byOrder.similarity < 1);
});

test('similarity is known for what is equal, turned round, halved and disjoint', () => {
  const first = rows([0, 0, 8], [1, 100, 8], [2, 200, 8], [3, 300, 8]);
  const turned = rows([0, 300, 8], [1, 200, 8], [2, 100, 8], [3, 0, 8]);
  const half = rows([0, 0, 8], [1, 100, 8]);
  const other = rows([0, 0, 8, 1], [1, 5000, 8]);
  const empty = rows();
  const similarity = (a: Trace, b: Trace): number => diffTraces(a, b, ALL).similarity;
  assert.equal(similarity(first, first), 1);
  assert.equal(similarity(first, turned), 0);
  assert.equal(similarity(first, half), 0.5);
  assert.equal(similarity(first, other), 0);
  assert.equal(similarity(first, empty), 0);
  assert.equal(similarity(empty, empty), 1);
  const [one, another] = jitteredRuns(2);
  const ofReruns = diffTraces(one, another, ALL);
  assert.ok(ofReruns.sectorShare > 0.9 && ofReruns.orderCorrelation > 0.9);
});

test('places at the end of the largest disk are exact', () => {
  const end = 2 ** 41;
  const far = Array.from({ length: 5000 }, (_, i): [number, number, number] => {
    return [i, i % 2 === 0 ? i * 8 : end - 8 * i, 8];
  });
  const trace = rows(...far);
  assert.equal(diffTraces(trace, rows(...far.toReversed()), ALL).kept.bytes, 5000 * 4096);
  assert.equal(diffTraces(trace, trace, ALL).kept.parts, 5000);
});

test('layers of different images meet by digest', () => {
  const first = rows([0, 0, 8, 0], [1, 100, 8, 1]);
  const records: TraceRecords = recordsOf([
    { timeUs: 0, lba: 100, sectors: 8, layer: 0 },
    { timeUs: 1, lba: 0, sectors: 8, layer: 1 },
  ]);
  const [, shared] = layers;
  const fresh = { ...shared, digest: `sha256:${'f'.repeat(64)}` };
  const second = traceOf(records, [shared, fresh]);
  const diff = diffTraces(first, second, ALL);
  const facts = diff.layers.map(({ digest, inFirst, inSecond, kept, lost, new: added }) => {
    return [digest, inFirst, inSecond, kept.bytes, lost.bytes, added.bytes];
  });
  assert.deepEqual(facts, [
    [layers[0].digest, true, false, 0, 4096, 0],
    [shared.digest, true, true, 4096, 0, 0],
    [fresh.digest, false, true, 0, 0, 4096],
  ]);
});

test('the parts of a file are what the comparison counts of it', () => {
  // Files of 1,000 sectors, one behind the other.
  const filesOf: FileFinder = (_, lba, sectors) => {
    const pieces = [];
    for (let at = lba; at < lba + sectors;) {
      const end = Math.min(lba + sectors, (Math.floor(at / 1000) + 1) * 1000);
      const path = `/${Math.floor(at / 1000)}`;
      pieces.push({ path, lba: at, sectors: end - at, fileOffset: (at % 1000) * 512 });
      at = end;
    }
    return pieces;
  };
  fc.assert(
    fc.property(runs, runs, (first, second) => {
      const { files } = diffTraces(first, second, { listMax: 0, filesMax: 5, filesOf });
      assert.ok(files !== null && files.length <= 5);
      for (const file of files) {
        const parts = diffFile(first, second, { path: file.path, filesOf });
        const sum = (...kinds: string[]): number =>
          parts.reduce((all, one) => all + (kinds.includes(one.kind) ? one.sectors * 512 : 0), 0);
        assert.equal(sum('kept', 'moved'), file.keptBytes);
        assert.equal(sum('moved'), file.movedBytes);
        assert.equal(sum('lost'), file.lostBytes);
        assert.equal(sum('new'), file.newBytes);
        for (const { kind, lba, fileOffset, firstUs, secondUs } of parts) {
          assert.equal(fileOffset, (lba % 1000) * 512);
          assert.deepEqual(
            [firstUs === null, secondUs === null],
            [kind === 'new', kind === 'lost'],
          );
        }
        const offsets = parts.map(({ fileOffset }) => fileOffset);
        assert.deepEqual(
          offsets,
          [...offsets].sort((a, b) => a - b),
        );
      }
    }),
    { numRuns: 60 },
  );
});

test('lists are bounded, and have the largest stretches and files', () => {
  const lost = Array.from({ length: 100 }, (_, i): [number, number, number] => {
    return [i, i * 1000, 8 * (1 + (i % 50))];
  });
  const filesOf: FileFinder = (_, lba, sectors) => [
    { path: `/${Math.floor(lba / 10_000)}`, lba, sectors, fileOffset: 0 },
  ];
  const diff = diffTraces(rows(...lost), rows(), { listMax: 3, filesOf });
  assert.deepEqual(
    diff.largest.lost.map(({ lba, sectors }) => [lba, sectors]),
    [
      [49_000, 400],
      [99_000, 400],
      [48_000, 392],
    ],
  );
  assert.equal(diff.lost.parts, 100);
  assert.deepEqual(
    diff.files?.map(({ path }) => path),
    ['/4', '/9', '/3'],
  );
  // Neighbours are one stretch.
  const joined = diffTraces(rows([0, 0, 8], [50, 8, 16]), rows(), ALL).largest.lost;
  assert.deepEqual(
    joined.map(({ lba, sectors, firstUs }) => [lba, sectors, firstUs]),
    [[0, 24, 0]],
  );
});
