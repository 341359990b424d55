// Goal: the same operations give the same bytes as with the original, and its files open for writing.
// Method: replay the lists of operations by which the original's fixtures were made and compare files;
// open those files, change them, open them again.
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { cpSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { createUpper } from '../../src/image/lsmt/create-upper.ts';
import { parseLsmtBlock } from '../../src/image/lsmt/format.ts';
import { openLsmtLayer } from '../../src/image/lsmt/layer.ts';
import { openUpper } from '../../src/image/lsmt/upper.ts';
import { openWritableUpper } from '../../src/image/lsmt/writable-upper.ts';
import * as support from './lsmt-support.ts';
import * as uppers from './upper-support.ts';

let folder = '';
before(() => {
  folder = support.unpackFixtures();
});
after(() => support.removeFolder(folder));

test('five operations are logged as the original logs them', async (t) => {
  const paths = uppers.pathsIn(uppers.testFolder(t));
  const uuid = '11111111-2222-4333-8444-555555555555';
  const parentUuid = 'AAAAAAAA-BBBB-4CCC-8DDD-EEEEEEEEEEEE';
  await createUpper({ ...paths, kind: 'append', virtualSizeBytes: 2 ** 30, uuid, parentUuid });
  const upper = await openWritableUpper(paths);
  await upper.write(0, Buffer.alloc(4096, 'A'));
  await upper.write(2 ** 20, Buffer.alloc(8192, 'B'));
  await upper.write(512, Buffer.alloc(512, 'C'));
  await upper.discard(2 ** 21, 4096);
  await upper.write(4096, Buffer.alloc(4096, 'D'));
  await upper.close();
  const index = readFileSync(paths.index);
  assert.equal(
    index.toString('hex', 4096),
    '00000000000020000800000000000000' +
      '00080000000040001000000000000000' +
      '01000000000004002000000000000000' +
      '00100000000020002100000000008000' +
      '08000000000020002100000000000000',
  );
  assert.equal(
    index.toString('hex', 0, 64),
    '4c534d5400010200657e63d29444084ca2d2c8ec4fcfae8a8601000001000000' +
      '0010000000000000000000000000000000000040000000003131313131313131',
  );
  const data = readFileSync(paths.data);
  assert.equal(data.length, 20_992);
  assert.equal(data.readUInt32LE(28), 0x03);
});

const APPEND_PAIRS = [
  { ops: 'rw-append/ops.json', data: 'rw-append/data', index: 'rw-append/index' },
  { ops: 'cli-1g/ops.json', data: 'cli-1g/data', index: 'cli-1g/index' },
  { ops: 'stack3/upper.ops.json', data: 'stack3/upper.data', index: 'stack3/upper.index' },
];
for (const { ops, data, index } of APPEND_PAIRS) {
  test(`${ops}: the files are the original's, byte for byte`, async (t) => {
    const golden = {
      data: readFileSync(join(folder, 'lsmt', data)),
      index: join(folder, 'lsmt', index),
    };
    // The tool that creates layers gives them random UUIDs.
    const { uuid, parentUuid } = parseLsmtBlock(golden.data, data, 'header');
    const steps = uppers.fixtureOps(ops);
    const paths = uppers.pathsIn(uppers.testFolder(t));
    await createUpper({
      ...paths,
      kind: 'append',
      virtualSizeBytes: steps.vsize,
      uuid,
      parentUuid,
    });
    const upper = await openWritableUpper(paths);
    await uppers.replayOps(upper, steps);
    await upper.close();
    assert.ok(readFileSync(paths.data).equals(golden.data), 'data');
    assert.ok(readFileSync(paths.index).equals(untagged(readFileSync(golden.index))), 'index');
  });
}

test("a sparse layer is the original's, byte for byte, and holds the same", async (t) => {
  const golden = join(folder, 'lsmt/rw-sparse/data');
  const { uuid, parentUuid } = parseLsmtBlock(readFileSync(golden), golden, 'header');
  const steps = uppers.fixtureOps('rw-sparse/ops.json');
  const paths = uppers.pathsIn(uppers.testFolder(t));
  await createUpper({ ...paths, kind: 'sparse', virtualSizeBytes: steps.vsize, uuid, parentUuid });
  const upper = await openWritableUpper(paths);
  await uppers.replayOps(upper, steps);
  await upper.close();
  assert.ok(readFileSync(paths.data).equals(readFileSync(golden)));
  assert.equal(readFileSync(paths.index).length, 0);
  assert.equal(await uppers.digestOfUpper(paths), support.expectations['rw-sparse/data'].sha256);
});

for (const kind of ['rw-append', 'rw-sparse']) {
  test(`${kind}: sealing gives the bytes that the original gives`, async (t) => {
    const scratch = uppers.testFolder(t);
    const paths = uppers.pathsIn(scratch);
    copyWithHoles(join(folder, 'lsmt', kind, 'data'), paths.data);
    if (kind === 'rw-append') cpSync(join(folder, 'lsmt', kind, 'index'), paths.index);
    const upper = await openWritableUpper(paths);
    const sealed = await upper.seal();
    assert.equal(sealed.path, paths.data);
    const golden = readFileSync(join(folder, 'lsmt', kind, 'sealed'));
    // Between entries and trailer the original has whatever was in its memory.
    const trailer = golden.length - 4096;
    golden.fill(0, Number(golden.readBigUInt64LE(trailer + 32)) + sealed.entries * 16, trailer);
    assert.equal(sealed.entries, Number(golden.readBigUInt64LE(trailer + 40)));
    assert.ok(readFileSync(paths.data).equals(golden));
    await assert.rejects(openWritableUpper(paths), { code: 'ERR_UPPER_SEALED' });
  });
}

for (const [name, data] of Object.entries({
  'cli-1g/{data,index}': 'cli-1g',
  'rw-append/{data,index}': 'rw-append',
  'cli-1g-sparse/{data,index}': 'cli-1g-sparse',
  'rw-sparse/data': 'rw-sparse',
})) {
  test(`${name} opens for writing, and keeps what it had`, async (t) => {
    const scratch = uppers.testFolder(t);
    const paths = uppers.pathsIn(scratch);
    const from = join(folder, 'lsmt', data);
    copyWithHoles(join(from, 'data'), paths.data);
    if (data !== 'rw-sparse') cpSync(join(from, 'index'), paths.index);
    const upper = await openWritableUpper(paths);
    await upper.close();
    assert.equal(await uppers.digestOfUpper(paths), support.expectations[name].sha256);
    const again = await openWritableUpper(paths);
    await again.write(8 * 512, Buffer.alloc(512, 'x'));
    await again.close();
    const { count, start, sectors, zeroed } = await openUpper(paths.data, paths.index);
    const row = start.findLastIndex((lba) => lba <= 8);
    assert.ok(row >= 0 && row < count && start[row] + sectors[row] > 8 && zeroed[row] === 0);
  });
}

test('a layer sealed from a log of ours opens as any other', async (t) => {
  const paths = uppers.pathsIn(uppers.testFolder(t));
  const steps = uppers.fixtureOps('rw-append/ops.json');
  const upper = await uppers.newUpper(paths, 'append', steps.vsize);
  await uppers.replayOps(upper, steps);
  await upper.seal();
  const bytes = support.fileBytes(paths.data);
  const layer = await openLsmtLayer(bytes);
  assert.equal(layer.facts.kind, 'sealed');
  const digest = await support.digestOf([{ entries: layer, bytes }], steps.vsize);
  assert.equal(digest, support.expectations['rw-append/sealed'].sha256);
});

/** Through a stack, the original notes the number of lowers with each entry, and nobody reads it. */
function untagged(index: Buffer): Buffer {
  for (let at = 4096; at < index.length; at += 16) index[at + 15] = 0;
  return index;
}

/** Holes of a sparse layer mean something. */
function copyWithHoles(from: string, to: string): void {
  execFileSync('cp', ['--sparse=auto', '--no-preserve=mode', from, to]);
}
