import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import fc from 'fast-check';
import { SECTOR_BYTES } from '../../src/base/limits.ts';
import { openFileSystem } from '../../src/image/fs/open.ts';
import { findNode } from '../../src/image/fs/walk.ts';
import { decodeTrace } from '../../src/trace/decode.ts';
import { encodeTrace } from '../../src/trace/encode.ts';
import { buildFileMap } from '../../src/trace/file-map.ts';
import { newFileParts } from '../../src/trace/moved-files.ts';
import { isStale, rebaseTrace, type RebaseFacts } from '../../src/trace/rebase.ts';
import type { ServedPiece } from '../../src/trace/recorder.ts';
import type { TraceTarget } from '../../src/trace/served-by.ts';
import type { Trace } from '../../src/trace/trace.ts';
import { memoryDisk } from '../image/fs-support.ts';
import { needs } from '../support/needs.ts';
import { Scratch } from '../support/scratch.ts';
import { fileSystems, imageOf, makeFileTree } from './file-map-support.ts';
import { digestOfText, recordsOf, syntheticLayers, traceOf } from './synthetic.ts';

// Goal: a rebase accounts for every sector of the old trace, never names what the new disk does not have,
// and changes nothing where nothing has changed; whatever the trace and the disks hold.
// Method: random layouts and records, those that overlap included; real file systems, damaged too.

const skip = needs('mke2fs', 'mkfs.erofs');
const scratch = new Scratch();
const images: Buffer[] = [];
const DISK_SECTORS = 8192;

before(() => {
  if (skip !== false) return;
  const tree = makeFileTree(scratch);
  for (const name of Object.keys(fileSystems)) images.push(imageOf(scratch, tree, name));
});
after(() => scratch.close());

/** An image whose layers serve slices of the disk by turns; some slices are of none. */
function targetOf(slices: readonly number[], names: readonly string[]): TraceTarget {
  const sliceSectors = DISK_SECTORS / slices.length;
  const layers = names.map((name) => ({ ...syntheticLayers(1)[0], digest: digestOfText(name) }));
  const locate = (lba: number, sectors: number) => {
    const pieces: (ServedPiece & { lsmtOffset: number })[] = [];
    const end = Math.min(lba + sectors, DISK_SECTORS);
    for (let at = lba; at < end;) {
      const slice = Math.floor(at / sliceSectors);
      const to = Math.min(end, (slice + 1) * sliceSectors);
      const layer = slices[slice];
      const piece = { lba: at, sectors: to - at, layer, lsmtOffset: at * SECTOR_BYTES };
      if (layer < layers.length) pieces.push(piece);
      at = to;
    }
    return pieces;
  };
  const virtualSizeBytes = DISK_SECTORS * SECTOR_BYTES;
  return {
    image: { manifestDigest: null, virtualSizeBytes, layers },
    stack: {
      locate,
      blobRangeOf: ({ lsmtOffset, sectors }) => {
        return { offset: lsmtOffset, length: sectors * SECTOR_BYTES };
      },
      layers: layers.map(() => ({ metadataRanges: [{ offset: 0, length: 4096 }] })),
    },
  };
}

const NAMES = ['base', 'app', 'top'];
const slicesOf = fc.array(fc.nat(NAMES.length), { minLength: 16, maxLength: 16 });
/** Records as a hostile file may have them: overlapping, of any layer, behind the disk's end. */
const rowsOf = fc
  .array(
    fc.record({
      timeUs: fc.nat(100_000),
      lba: fc.oneof(fc.nat(DISK_SECTORS - 1), fc.nat(2 ** 24)),
      sectors: fc.integer({ min: 1, max: 600 }),
      layer: fc.nat(NAMES.length - 1),
    }),
    { maxLength: 60 },
  )
  .map((rows) => rows.sort((a, b) => a.timeUs - b.timeUs));

function traceFor(target: TraceTarget, rows: Parameters<typeof recordsOf>[0]): Trace {
  return traceOf(recordsOf(rows), target.image.layers);
}

function check(old: Trace, now: Trace, facts: RebaseFacts, target: TraceTarget): void {
  const shares = [facts.kept, facts.mapped, facts.dropped];
  const sectors = old.records.sectors.reduce((sum, one) => sum + one, 0);
  assert.equal(
    shares.reduce((sum, share) => sum + share.sectors, 0),
    sectors,
  );
  assert.equal(
    shares.reduce((sum, share) => sum + share.records, 0),
    old.records.count,
  );
  for (const share of shares) assert.ok(share.sectors >= 0 && share.records >= 0);
  assert.ok(facts.staleness >= 0 && facts.staleness <= 1);
  const seen = new Set<number>();
  const { records } = now;
  for (let i = 0; i < records.count; i += 1) {
    const pieces = target.stack.locate(records.lba[i], records.sectors[i]);
    const served = pieces.filter(({ layer }) => layer === records.layer[i]);
    const count = served.reduce((sum, piece) => sum + piece.sectors, 0);
    assert.equal(count, records.sectors[i], 'the image serves it from the layer that it names');
    for (let at = 0; at < records.sectors[i]; at += 1) {
      assert.ok(!seen.has(records.lba[i] + at), 'a sector occurs once');
      seen.add(records.lba[i] + at);
    }
  }
  // What is written can be read again.
  assert.deepEqual(decodeTrace(encodeTrace(now)).records, now.records);
}

test('without files, what other layers serve is dropped', async () => {
  await fc.assert(
    fc.asyncProperty(slicesOf, slicesOf, rowsOf, async (before, after, rows) => {
      const target = targetOf(after, [...NAMES.slice(0, 2), 'another top']);
      const old = traceFor(targetOf(before, NAMES), rows);
      const { trace, facts } = await rebaseTrace(old, target, null);
      check(old, trace, facts, target);
      assert.equal(facts.mapped.sectors, 0);
      assert.equal(isStale(old, target), facts.dropped.sectors > 0);
    }),
    { numRuns: 200 },
  );
});

test('on the same image, everything is kept as it is', async () => {
  await fc.assert(
    fc.asyncProperty(slicesOf, fc.array(fc.nat(DISK_SECTORS / 64 - 1)), async (slices, starts) => {
      const target = targetOf(slices, NAMES);
      const rows = [...new Set(starts)].flatMap((start, i) =>
        target.stack.locate(start * 64, 1 + (start % 64)).map((piece) => {
          const { lba, sectors, layer } = piece;
          return { timeUs: i * 100, waitUs: i * 10, lba, sectors, layer };
        }),
      );
      const old = traceFor(target, rows);
      const { trace, facts } = await rebaseTrace(old, target, null);
      assert.deepEqual(trace.records, old.records);
      assert.equal(facts.staleness, 0);
      assert.equal(isStale(old, target), false);
    }),
    { numRuns: 100 },
  );
});

test(
  'through any files, damaged ones too, sums hold and nothing is invented',
  { skip },
  async () => {
    const damage = fc.array(fc.record({ place: fc.nat(), value: fc.nat(255) }), { maxLength: 20 });
    const imageNumber = fc.nat(images.length - 1);
    await fc.assert(
      fc.asyncProperty(
        ...([imageNumber, imageNumber, damage, slicesOf, slicesOf, rowsOf] as const),
        async (fromImage, toImage, changes, before, after, rows) => {
          const to = Buffer.from(images[toImage]);
          for (const { place, value } of changes) to[1024 + (place % (to.length - 1024))] = value;
          const target = targetOf(after, ['base', 'another app', 'another top']);
          const old = traceFor(targetOf(before, NAMES), rows);
          const from = await buildFileMap(memoryDisk(images[fromImage]));
          const { trace, facts } = await rebaseTrace(old, target, { from, to: memoryDisk(to) });
          check(old, trace, facts, target);
        },
      ),
      { numRuns: 60 },
    );
  },
);

test('a file is found where it is now, with the way to it', { skip }, async () => {
  const [extents] = images;
  const path = Buffer.from('size-300001');
  for (const image of images) {
    // Everything comes from a layer that has been replaced.
    const everywhere = Array.from({ length: 16 }, () => 0);
    const old = await findNode(await openFileSystem(memoryDisk(extents)), path);
    const now = await findNode(await openFileSystem(memoryDisk(image)), path);
    assert.ok(old !== null && now !== null);
    const [{ offset, length }] = await old.extents();
    const rows = [
      { timeUs: 5, lba: offset / SECTOR_BYTES, sectors: Math.floor(length / 512), layer: 0 },
    ];
    const target = targetOf(everywhere, ['rebuilt']);
    const from = await buildFileMap(memoryDisk(extents));
    const source = traceFor(targetOf(everywhere, ['base']), rows);
    const { trace, facts } = await rebaseTrace(source, target, { from, to: memoryDisk(image) });
    assert.equal(facts.mapped.sectors, rows[0].sectors);
    assert.equal(facts.staleness, 0.5);
    const { records } = trace;
    const held = (byte: number): boolean => {
      const sector = Math.floor(byte / SECTOR_BYTES);
      return Array.from({ length: records.count }).some(
        (_, i) => records.lba[i] <= sector && sector < records.lba[i] + records.sectors[i],
      );
    };
    assert.ok(held(now.inode.offset), 'its inode');
    for (const extent of await now.extents()) assert.ok(held(extent.offset), 'its content');
    assert.deepEqual([...new Set(records.timeUs)], [5], 'at the time of the old record');
  }
});

test('parts of a file whose size has changed', () => {
  const part = (fileOffset: number, fileLength: number) => ({ fileOffset, fileLength });
  const sizes = (oldSizeBytes: number, sizeBytes: number) => ({ oldSizeBytes, sizeBytes });
  const range = (offset: number, length: number) => ({ offset, length });
  assert.deepEqual(newFileParts(part(10, 20), sizes(100, 100), true), [range(10, 20)]);
  assert.deepEqual(newFileParts(part(10, 20), sizes(100, 200), false), [range(10, 20)]);
  assert.deepEqual(newFileParts(part(80, 40), sizes(100, 150), false), [
    range(80, 20),
    range(130, 20),
  ]);
  assert.deepEqual(
    newFileParts(part(80, 20), sizes(100, 150), true),
    [range(80, 20), range(100, 50)],
    'a file that was read whole',
  );
  assert.deepEqual(
    newFileParts(part(0, 100), sizes(100, 1000), true),
    [range(0, 100), range(900, 100)],
    'one that has become another',
  );
  assert.deepEqual(newFileParts(part(80, 20), sizes(100, 0), true), []);
  assert.deepEqual(newFileParts(part(50, 10), sizes(100, 40), false), []);
});
