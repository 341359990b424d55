// Goal: layers of every kind that the original tools wrote open to the bytes they stand for.
// Method: open each fixture, compare its index with what the original library loaded, and the
// SHA-256 of the whole disk with the one an independent model of the operations gave.
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { openLsmtLayer } from '../../src/image/lsmt/layer.ts';
import { openUpper } from '../../src/image/lsmt/upper.ts';
import * as support from './lsmt-support.ts';

let folder = '';
before(() => {
  folder = support.unpackFixtures();
});
after(() => support.removeFolder(folder));

const KINDS: Record<string, string> = {
  'rw-append/sealed': 'sealed',
  'rw-append/commit.lsmt': 'committed',
  'rw-sparse/commit.lsmt': 'committed',
  'rw-sparse/sealed': 'sealed-sparse',
  'stack3/merged.lsmt': 'merged',
  'edge/empty.lsmt': 'committed',
  'edge/one-sector-last.lsmt': 'committed',
  'edge/discard-only.lsmt': 'committed',
  'edge/seg256.lsmt': 'committed',
  'edge/seg257.lsmt': 'committed',
  'edge/tag255.lsmt': 'committed',
};

for (const [path, kind] of Object.entries(KINDS)) {
  test(`${path} reads as the original reads it`, async () => {
    const expected = support.expectations[path];
    const bytes = support.fileBytes(join(folder, 'lsmt', path));
    const layer = await openLsmtLayer(bytes);
    assert.equal(layer.facts.kind, kind);
    if (expected.virtualSizeBytes !== null) {
      assert.equal(layer.facts.virtualSizeBytes, expected.virtualSizeBytes);
    }
    if (expected.segments !== undefined) assert.deepEqual(segmentsOf(layer), expected.segments);
    const digest = await support.digestOf(
      [{ entries: layer, bytes }],
      layer.facts.virtualSizeBytes,
    );
    assert.equal(digest, expected.sha256);
  });
}

const UPPERS = [
  { path: 'rw-append/{data,index}', data: 'rw-append/data', index: 'rw-append/index' },
  { path: 'rw-sparse/data', data: 'rw-sparse/data', index: 'rw-sparse/data' },
  { path: 'cli-1g/{data,index}', data: 'cli-1g/data', index: 'cli-1g/index' },
  {
    path: 'cli-1g-sparse/{data,index}',
    data: 'cli-1g-sparse/data',
    index: 'cli-1g-sparse/index',
  },
];

for (const { path, data, index } of UPPERS) {
  test(`the writable layer ${path} reads as the original reads it`, async () => {
    const dataPath = join(folder, 'lsmt', data);
    const upper = await openUpper(dataPath, join(folder, 'lsmt', index));
    const expected = support.expectations[path];
    assert.equal(upper.virtualSizeBytes, expected.virtualSizeBytes);
    const bytes = support.fileBytes(dataPath);
    const digest = await support.digestOf([{ entries: upper, bytes }], upper.virtualSizeBytes);
    assert.equal(digest, expected.sha256);
  });
}

for (const kind of ['', 'sparse.']) {
  test(`upper.${kind}data lies over the three layers below it`, async () => {
    const base = join(folder, 'lsmt/stack3');
    const dataPath = join(base, `upper.${kind}data`);
    const upper = await openUpper(dataPath, join(base, `upper.${kind}index`));
    const lowerBytes = support.fileBytes(join(base, 'merged.lsmt'));
    const lower = await openLsmtLayer(lowerBytes);
    const layers = [
      { entries: lower, bytes: lowerBytes },
      { entries: upper, bytes: support.fileBytes(dataPath) },
    ];
    const digest = await support.digestOf(layers, lower.facts.virtualSizeBytes);
    assert.equal(digest, support.expectations[`stack3/upper.${kind}{data,index}`].sha256);
  });
}

test('a layer tells who it is', async () => {
  const base = join(folder, 'lsmt');
  const tagged = await openLsmtLayer(support.fileBytes(join(base, 'rw-append/commit.lsmt')));
  assert.equal(tagged.facts.uuid, '000000A2-1111-4222-8333-0123456789AB');
  assert.equal(tagged.facts.parentUuid, '000000A0-1111-4222-8333-0123456789AB');
  assert.equal(tagged.facts.userTag, 'hello tag');
  const long = await openLsmtLayer(support.fileBytes(join(base, 'edge/tag255.lsmt')));
  assert.equal(long.facts.userTag.length, 255);
  const merged = await openLsmtLayer(support.fileBytes(join(base, 'stack3/merged.lsmt')));
  assert.equal(merged.facts.uuid, null);
  assert.deepEqual(merged.metadataRanges, [
    { offset: 0, length: 4096 },
    { offset: 2433024 - 4096 - 8192, length: 8192 },
    { offset: 2433024 - 4096, length: 4096 },
  ]);
});

function segmentsOf(layer: Awaited<ReturnType<typeof openLsmtLayer>>): number[][] {
  return Array.from({ length: layer.count }, (_, i) => [
    layer.start[i],
    layer.sectors[i],
    layer.mapped[i],
    layer.zeroed[i],
  ]);
}
