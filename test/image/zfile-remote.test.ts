// Goal: a layer that is fetched piece by piece opens in one round trip, fetches only what a read
// needs, and heals from damage that the origin does not have. Method: a lazy blob that counts its
// fetches.
import assert from 'node:assert';
import { test } from 'node:test';
import { codeOf } from '../../src/base/errors.ts';
import { rangeEnd } from '../../src/base/range.ts';
import { blobRange, openLayerBlob } from '../../src/image/layer-blob.ts';
import { MemoryBlob } from '../../bench/support/memory-blob.ts';
import { noise, syntheticBytes, writeZFile } from './zfile-support.ts';

const plain = Buffer.concat([noise(600_000), syntheticBytes(400_000, 5)]);

test('opening asks for both ends at once and for nothing else', async () => {
  for (const overwriteHeader of [true, false]) {
    const blob = new MemoryBlob(await writeZFile(plain, { overwriteHeader }), 'lazy');
    const { metadataRanges } = await openLayerBlob(blob);
    assert.strictEqual(blob.fetched.length, 2);
    assert.deepStrictEqual(blob.fetched[0], { offset: 0, length: 4096 });
    assert(blob.fetched[1].offset > blob.sizeBytes / 2);
    const tableOffset = blob.sizeBytes - 512 - Math.ceil(plain.length / 4096) * 4;
    assert(metadataRanges.some((range) => range.offset === tableOffset));
    assert(metadataRanges.every((range) => rangeEnd(range) <= blob.sizeBytes));
  }
});

test('opening guesses nothing where a replay fetches the end already', async () => {
  const blob = new MemoryBlob(await writeZFile(plain), 'lazy');
  const asked: number[][] = [];
  const isUnderWay = (offset: number, length: number): boolean => {
    asked.push([offset, length]);
    return true;
  };
  const { metadataRanges } = await openLayerBlob(Object.assign(blob, { isUnderWay }));
  assert.deepStrictEqual(asked, [[blob.sizeBytes - 16_384, 16_384]]);
  const isNeeded = (offset: number): boolean =>
    metadataRanges.some((range) => range.offset <= offset && offset < rangeEnd(range));
  for (const range of blob.fetched) {
    assert(isNeeded(range.offset) && isNeeded(rangeEnd(range) - 1), `${range.offset}`);
  }
});

test('a jump table that is longer than the guess is fetched as well', async () => {
  // 40,000 blocks of zeros: a table of 160 kB in a file of 1.6 MB.
  const zeros = Buffer.alloc(40_000 * 4096);
  const blob = new MemoryBlob(await writeZFile(zeros), 'lazy');
  const { bytes, facts } = await openLayerBlob(blob);
  assert.strictEqual(facts.zfile?.blockCount, 40_000);
  assert.strictEqual(blob.fetched.length, 3);
  assert((await bytes.read(zeros.length - 5000, 5000)).every((byte) => byte === 0));
});

test('a read fetches the granules of its blocks', async () => {
  const blob = new MemoryBlob(await writeZFile(plain), 'lazy');
  const { map, bytes } = await openLayerBlob(blob);
  blob.fetched.length = 0;
  const read = await bytes.read(300_000, 10_000);
  assert(plain.subarray(300_000, 310_000).equals(read));
  assert.deepStrictEqual(blob.fetched, [blobRange(map, 300_000, 10_000)]);
  assert(blobRange(map, 300_000, 10_000).length < 17_000);
  const last = blobRange(map, plain.length - 1, 1);
  assert(rangeEnd(last) < blob.sizeBytes);
});

test('a block damaged on its way is fetched again, and read', async () => {
  const blob = new MemoryBlob(await writeZFile(plain), 'lazy');
  const { bytes } = await openLayerBlob(blob);
  let damages = 2;
  const at = 100_000;
  blob.onFetch = () => {
    damages -= 1;
    if (damages === 1 || damages === 0) blob.origin[at] ^= 0xff;
  };
  assert(plain.subarray(90_000, 110_000).equals(await bytes.read(90_000, 20_000)));
  assert.strictEqual(damages, 0);
});

test('a block that is damaged at its origin is given up after three attempts', async () => {
  const blob = new MemoryBlob(await writeZFile(plain), 'lazy');
  const { bytes } = await openLayerBlob(blob);
  blob.origin[100_000] ^= 0xff;
  blob.fetched.length = 0;
  const failed = bytes.read(90_000, 20_000);
  await assert.rejects(failed, (error) => codeOf(error) === 'ERR_ZFILE_BLOCK_CHECKSUM');
  assert.strictEqual(blob.fetched.length, 3);
});

test('damaged metadata is fetched again while opening', async () => {
  const blob = new MemoryBlob(await writeZFile(plain), 'lazy');
  const at = blob.sizeBytes - 600;
  blob.origin[at] ^= 0xff;
  let fetches = 0;
  blob.onFetch = () => {
    fetches += 1;
    if (fetches === 3) blob.origin[at] ^= 0xff;
  };
  const { bytes } = await openLayerBlob(blob);
  assert(plain.equals(await bytes.read(0, plain.length)));
  assert(fetches >= 3);
});

test('a range outside the layer is refused', async () => {
  const { bytes } = await openLayerBlob(new MemoryBlob(await writeZFile(plain)));
  for (const [offset, length] of [
    [0, plain.length + 1],
    [-1, 1],
    [plain.length, 1],
    [NaN, 1],
  ]) {
    await assert.rejects(
      bytes.read(offset, length),
      (error) => codeOf(error) === 'ERR_LAYER_RANGE',
    );
  }
  assert.strictEqual((await bytes.read(plain.length, 0)).length, 0);
});
