// Goal: what commit and merge write is, byte for byte, what the original's tools wrote, for every
// write-side fixture; and what has no fixture reads back as what was written.
// Method: commit the fixtures' writable layers; write their operations anew and commit those; random
// writes and discards committed, stacked on the original's layers and compared with a flat array.
import assert from 'node:assert/strict';
import { readdirSync, readFileSync, statSync, truncateSync, writeFileSync } from 'node:fs';
import { basename, join } from 'node:path';
import { after, before, test } from 'node:test';
import fc from 'fast-check';
import { openLocalBlob } from '../../src/blob/local-blob.ts';
import type { LayerPacking } from '../../src/image/layer-writer.ts';
import { openLayerBlob } from '../../src/image/layer-blob.ts';
import { openInput } from '../../src/image/input.ts';
import { createUpper } from '../../src/image/lsmt/create-upper.ts';
import { openLsmtLayer } from '../../src/image/lsmt/layer.ts';
import { openWritableUpper } from '../../src/image/lsmt/writable-upper.ts';
import { commitSealed, commitUpper, type CommitOptions } from '../../src/image/tools/commit.ts';
import { mergeInput } from '../../src/image/tools/merge.ts';
import { sealLayer } from '../../src/image/tools/seal.ts';
import { digestOfDisk } from '../../src/image/export.ts';
import { expectations, fixtures, removeFolder, unpackFixtures } from './lsmt-support.ts';
import { fixtureOps, kinds, newUpper, pathsIn, replayOps, testFolder } from './upper-support.ts';

const PLAIN: LayerPacking = { zfile: null, tar: false };
const LZ4: LayerPacking = { zfile: { algorithm: 'lz4' }, tar: false };

let folder = '';
before(() => {
  folder = unpackFixtures();
});
after(() => removeFolder(folder));

/** A fixture: unpacked when it travels in an archive. */
function fixturePath(name: string): string {
  const unpacked = join(folder, 'lsmt', name);
  return statSync(unpacked, { throwIfNoEntry: false }) === undefined
    ? join(fixtures, name)
    : unpacked;
}

function assertSameFile(path: string, expected: string): void {
  assert.ok(readFileSync(path).equals(readFileSync(expected)), `${path} differs from ${expected}`);
}

/** How a fixture is packed, as its name tells. */
function packingOf(name: string): LayerPacking {
  const [, algorithm, kib] = /(lz4|zstd)-(\d+)k/.exec(name) ?? [];
  if (algorithm === undefined) return PLAIN;
  const coding = {
    algorithm: algorithm === 'zstd' ? 'zstd' : 'lz4',
    blockBytes: Number(kib) * 1024,
  };
  return { zfile: coding as LayerPacking['zfile'], tar: name.endsWith('.tar') };
}

/** The UUIDs and the message that a layer was committed with. */
async function identityOf(path: string): Promise<Partial<CommitOptions>> {
  const blob = await openLocalBlob(path);
  const { uuid, parentUuid, userTag } = (await openLsmtLayer((await openLayerBlob(blob)).bytes))
    .facts;
  await blob.close();
  return { uuid, parentUuid, userTag };
}

const COMMITS = [
  ['rw-append/data', 'rw-append/index', 'rw-append/commit.lsmt'],
  ['rw-append/data', 'rw-append/index', 'rw-append/commit.lz4-4k.obd'],
  ['rw-append/data', 'rw-append/index', 'rw-append/commit.zstd-64k.obd'],
  ['rw-append/data', 'rw-append/index', 'rw-append/commit.lz4-4k.tar'],
  ['rw-sparse/data', 'none', 'rw-sparse/commit.lsmt'],
  ['cli-1g/data', 'cli-1g/index', 'cli-1g/commit.lz4-4k.obd'],
] as const;

for (const [data, index, expected] of COMMITS) {
  test(`commit gives ${expected}`, async (t) => {
    const path = join(testFolder(t), 'out');
    const options = {
      path,
      packing: packingOf(expected),
      ...(await identityOf(fixturePath(expected))),
    };
    await commitUpper(fixturePath(data), fixturePath(index), options);
    assertSameFile(path, fixturePath(expected));
  });
}

test("a sealed layer, the original's or ours, commits to the same bytes", async (t) => {
  const scratch = testFolder(t);
  const expected = fixturePath('rw-append/commit.lz4-4k.tar');
  const path = join(scratch, 'out');
  const packing = packingOf(expected);
  await commitSealed(fixturePath('rw-append/sealed'), { path, packing });
  assertSameFile(path, expected);

  const ops = fixtureOps('rw-append/ops.json');
  const paths = pathsIn(scratch);
  const { vsize, uuid = null, parent_uuid: parentUuid = null } = ops;
  const identity = { uuid, parentUuid };
  await createUpper({ ...paths, ...identity, kind: 'append', virtualSizeBytes: vsize });
  const upper = await openWritableUpper(paths);
  await replayOps(upper, ops);
  await upper.close();
  await sealLayer(paths);
  assertSameFile(paths.data, fixturePath('rw-append/sealed'));
  await commitSealed(paths.data, { path, packing, replace: true });
  assertSameFile(path, expected);
});

const FROM_OPS = [
  ...readdirSync(join(fixtures, 'edge'))
    .filter((name) => name.endsWith('.ops.json'))
    .map((name) => [`edge/${name}`, `edge/${basename(name, '.ops.json')}`]),
  ['stack3/layer0.ops.json', 'stack3/layer0.lz4-4k.tar'],
  ['stack3/layer1.ops.json', 'stack3/layer1.zstd-16k.obd'],
  ['stack3/layer2.ops.json', 'stack3/layer2.lsmt'],
];

for (const [ops = '', expected = ''] of FROM_OPS) {
  test(`the operations of ${expected}, written and committed, give its bytes`, async (t) => {
    const scratch = testFolder(t);
    const steps = fixtureOps(ops);
    const upper = await newUpper(pathsIn(scratch), 'append', steps.vsize);
    await replayOps(upper, steps);
    await upper.close();
    const path = join(scratch, 'out');
    const { data, index } = pathsIn(scratch);
    const options = {
      path,
      packing: packingOf(expected),
      ...(await identityOf(fixturePath(expected))),
    };
    await commitUpper(data, index, options);
    assertSameFile(path, fixturePath(expected));
  });
}

const STACK = ['layer0.lz4-4k.tar', 'layer1.zstd-16k.obd', 'layer2.lsmt'];

for (const [expected, zfile] of [
  ['stack3/merged.lsmt', null],
  ['stack3/merged.lz4-4k.obd', { overwriteHeader: false }],
] as const) {
  test(`merge gives ${expected}`, async (t) => {
    const path = join(testFolder(t), 'out');
    const input = await openInput(STACK.map((name) => fixturePath(`stack3/${name}`)));
    await mergeInput(input, { path, packing: { zfile, tar: false } });
    await input.close();
    assertSameFile(path, fixturePath(expected));
  });
}

/** A config.v1.json of the original's three layers, and a writable one. */
function configWith(scratch: string, upper: { data: string; index: string }): string {
  const lowers = STACK.map((name) => ({ file: fixturePath(`stack3/${name}`) }));
  const path = join(scratch, 'config.v1.json');
  writeFileSync(path, JSON.stringify({ repoBlobUrl: '', lowers, upper, resultFile: '' }));
  return path;
}

async function digestOfFiles(paths: readonly string[]): Promise<string> {
  const input = await openInput(paths);
  const digest = await digestOfDisk(input.source);
  await input.close();
  return digest;
}

for (const kind of ['', 'sparse.']) {
  test(`merging with upper.${kind}data keeps its disk, and the disk's size`, async (t) => {
    const scratch = testFolder(t);
    const upper = {
      data: fixturePath(`stack3/upper.${kind}data`),
      index: fixturePath(`stack3/upper.${kind}index`),
    };
    const path = join(scratch, 'out');
    const input = await openInput([configWith(scratch, upper)]);
    const merged = await mergeInput(input, { path, packing: LZ4 });
    await input.close();
    assert.equal(merged.virtualSizeBytes, 25_165_824);
    const expected = expectations[`stack3/upper.${kind}{data,index}`].sha256;
    assert.equal(await digestOfFiles([path]), expected);

    // And as a layer of its own on the original's.
    const top = join(scratch, 'top');
    await commitUpper(upper.data, upper.index, { path: top, packing: LZ4 });
    const layers = STACK.map((name) => fixturePath(`stack3/${name}`));
    assert.equal(await digestOfFiles([...layers, top]), expected);
  });
}

test("merging takes the disk's size from an upper that was resized", async (t) => {
  // The original takes it from the lower below, and loses what lies behind.
  const scratch = testFolder(t);
  const paths = pathsIn(scratch);
  const upper = await newUpper(paths, 'append', 24 * 2 ** 20);
  await upper.resize(64 * 2 ** 20);
  await upper.write(63 * 2 ** 20, Buffer.alloc(4096, 'end'));
  await upper.close();
  const path = join(scratch, 'out');
  const input = await openInput([configWith(scratch, paths)]);
  const digest = await digestOfDisk(input.source);
  const merged = await mergeInput(input, { path, packing: PLAIN });
  await input.close();
  assert.equal(merged.virtualSizeBytes, 64 * 2 ** 20);
  assert.equal(await digestOfFiles([path]), digest);
  assert.equal(
    (await identityOf(path)).parentUuid,
    (await identityOf(fixturePath('stack3/layer0.lz4-4k.tar'))).parentUuid,
  );
});

const SECTORS = 4096;
const changes = fc.array(
  fc.record({
    lba: fc.nat(SECTORS - 1),
    sectors: fc.integer({ min: 1, max: 300 }),
    fill: fc.constantFrom(0, 0, 65, 66),
    isDiscard: fc.boolean(),
  }),
  { minLength: 1, maxLength: 25 },
);

test('any writes and discards, committed in any packing, read back', async (t) => {
  const scratch = testFolder(t);
  const packings = fc.record({
    algorithm: fc.constantFrom('lz4' as const, 'zstd' as const),
    blockBytes: fc.constantFrom(4096, 65_536),
    threads: fc.integer({ min: 1, max: 5 }),
    isPlain: fc.boolean(),
    tar: fc.boolean(),
    dropZeroes: fc.boolean(),
  });
  const kind = fc.constantFrom(...kinds);
  let run = 0;
  await fc.assert(
    fc.asyncProperty(changes, packings, kind, async (steps, how, upperKind) => {
      const { isPlain, tar, dropZeroes, ...zfile } = how;
      const lower = Buffer.alloc(SECTORS * 512, 'lower');
      const paths = pathsIn(scratch, `upper${(run += 1)}`);
      const upper = await newUpper(paths, upperKind, lower.length);
      const disk = Buffer.from(lower);
      for (const { lba, sectors, fill, isDiscard } of steps) {
        const length = Math.min(sectors, SECTORS - lba) * 512;
        disk.fill(isDiscard ? 0 : fill, lba * 512, lba * 512 + length);
        if (isDiscard) await upper.discard(lba * 512, length);
        else await upper.write(lba * 512, Buffer.alloc(length, fill));
      }
      await upper.close();
      const base = join(scratch, `base${run}`);
      const basePaths = pathsIn(scratch, `baseUpper${run}`);
      const below = await newUpper(basePaths, 'append', lower.length);
      await below.write(0, lower);
      await below.close();
      await commitUpper(basePaths.data, basePaths.index, { path: base, packing: PLAIN });

      const path = join(scratch, `out${run}`);
      const packing = { zfile: isPlain ? null : zfile, tar };
      await commitUpper(paths.data, paths.index, { path, packing, dropZeroes });
      const input = await openInput([base, path]);
      const found = Buffer.alloc(disk.length);
      await input.source.read(0, found);
      await input.close();
      assert.ok(found.equals(disk));
    }),
    { numRuns: 25 },
  );
});

test('zeros are dropped only if that is asked for', async (t) => {
  const scratch = testFolder(t);
  const { data, index } = pathsIn(scratch);
  const upper = await newUpper({ data, index }, 'append', 2 ** 20);
  // Zeros from the middle of a block to the middle of another: six whole blocks.
  await upper.write(0, Buffer.alloc(65_536, 'x'));
  await upper.write(2048, Buffer.alloc(28_672));
  await upper.close();
  const path = join(scratch, 'out');
  const kept = await commitUpper(data, index, { path, packing: PLAIN });
  assert.equal(kept.dataBytes, 65_536);
  const options = { path, packing: PLAIN, replace: true, dropZeroes: true };
  const dropped = await commitUpper(data, index, options);
  assert.equal(dropped.dataBytes, 65_536 - 6 * 4096);
});

test('what is damaged is refused, and leaves nothing', async (t) => {
  const scratch = testFolder(t);
  const path = join(scratch, 'out');
  const options = { path, packing: LZ4 };
  const sealed = join(scratch, 'sealed');
  writeFileSync(sealed, readFileSync(fixturePath('rw-append/sealed')));
  truncateSync(sealed, statSync(sealed).size - 4096);
  await assert.rejects(commitSealed(sealed, options), { code: /^ERR_LSMT_/ });
  const data = join(scratch, 'data');
  writeFileSync(data, Buffer.alloc(8192, 'no layer'));
  await assert.rejects(commitUpper(data, data, options), { code: 'ERR_LSMT_MAGIC' });
  await assert.rejects(commitSealed(join(scratch, 'none'), options), { code: 'ERR_BLOB_OPEN' });
  const tooLong = { ...options, userTag: 'm'.repeat(257) };
  const [good, index] = ['rw-append/data', 'rw-append/index'].map(fixturePath);
  await assert.rejects(commitUpper(good, index, tooLong), { code: 'ERR_LSMT_TAG' });
  const stopped = { ...options, signal: AbortSignal.abort(new Error('stopped')) };
  await assert.rejects(commitUpper(good, index, stopped), /stopped/);
  assert.deepEqual(readdirSync(scratch).sort(), ['data', 'sealed']);
});
