// Goal: committed and merged layers are byte for byte what the original's compact writes.
// Method: golden vectors by SHA-256, then fixtures read back and written again.
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import fc from 'fast-check';
import type { LayerBytes } from '../../src/image/layer-bytes.ts';
import { extentsOf } from '../../src/image/lsmt/compact.ts';
import type { LsmtEntryColumns } from '../../src/image/lsmt/index-entries.ts';
import { openLsmtLayer, type LsmtLayer } from '../../src/image/lsmt/layer.ts';
import { overlayLayers } from '../../src/image/lsmt/overlay.ts';
import { openUpper } from '../../src/image/lsmt/upper.ts';
import {
  writeCommittedLayer,
  type LsmtExtent,
  type LsmtWriterOptions,
} from '../../src/image/lsmt/writer.ts';
import {
  bytesOf,
  fileBytes,
  MemorySink,
  removeFolder,
  sha256,
  unpackFixtures,
} from './lsmt-support.ts';

const MIB = 1024 * 1024;
const GIB = 1024 * MIB;
const PARENT = 'AAAAAAAA-BBBB-4CCC-8DDD-EEEEEEEEEEEE';

let folder = '';
before(() => {
  folder = unpackFixtures();
});
after(() => removeFolder(folder));

test('a small layer: discard, overwrite, UUIDs and message', async () => {
  const low = Buffer.concat([fill('A', 512), fill('C', 512), fill('A', 3072), fill('D', 4096)]);
  const written = await write(
    {
      virtualSizeBytes: GIB,
      uuid: '99999999-8888-4777-8666-555555555555',
      parentUuid: PARENT,
      userTag: 'hello tag',
    },
    [
      { lba: 0, sectors: 16, data: low },
      { lba: 2048, sectors: 16, data: fill('B', 8192) },
      { lba: 4096, sectors: 8, zeroed: true },
    ],
  );
  assert.equal(written.length, 28_672);
  const golden = '3fb9f2dc829e65b35ec3084ab934ab1497ddde39197b45cc7c1c50b255b91fb0';
  assert.equal(sha256(written), golden);
});

test('a run longer than an entry is cut as the original cuts it', async () => {
  const data = Buffer.alloc(20 * MIB);
  for (let i = 0; i < data.length; i += 1) data[i] = Math.imul(i, 2654435761) >>> 24;
  const written = await write({ virtualSizeBytes: GIB }, inEntries(0, data));
  const golden = 'b8ff80febab99a7399d2c3b61cc3c6fade3e615155830836655c8627740d4705';
  assert.equal(sha256(written), golden);
});

test('two layers and their merge', async () => {
  const options = { virtualSizeBytes: 64 * MIB };
  const bottom = await write(options, [{ lba: 0, sectors: 128, data: fill('0', 65_536) }]);
  const bottomGolden = 'bb231307bb2f1b01c734d37e1e4f8c731415168012e19ee849d0c676621eb0c3';
  assert.equal(sha256(bottom), bottomGolden);

  const top = await write(options, [
    { lba: 16, sectors: 8, zeroed: true },
    { lba: 64, sectors: 128, data: fill('1', 65_536) },
  ]);
  const topGolden = '2c385194506612c45daab7e7b2e0e46d09968f692444ee0458f9b81c8bb93d0f';
  assert.equal(sha256(top), topGolden);

  const sources = [bytesOf('bottom', bottom), bytesOf('top', top)];
  const layers = await Promise.all(sources.map(openLsmtLayer));
  const merged = await write(options, extentsOf(overlayLayers(layers), sources));
  assert.equal(merged.length, 106_496);
  const mergedGolden = '168dc7cfa61611f2c5192c5c2cd9889fb97d0e178f7c47f74c7d20dc861005ed';
  assert.equal(sha256(merged), mergedGolden);
});

// empty, zeroed only, one page of entries exactly, one entry more, a message of 255 bytes, merged
const RECOMMITTED = [
  'rw-append/commit.lsmt',
  'rw-sparse/commit.lsmt',
  'edge/empty.lsmt',
  'edge/one-sector-last.lsmt',
  'edge/discard-only.lsmt',
  'edge/seg256.lsmt',
  'edge/seg257.lsmt',
  'edge/tag255.lsmt',
];

for (const path of RECOMMITTED) {
  test(`${path} read and committed again is the same file`, async () => {
    const bytes = fileBytes(join(folder, 'lsmt', path));
    const layer = await openLsmtLayer(bytes);
    const written = await commit(optionsOf(layer), layer, bytes);
    assert.ok(written.equals(await bytes.read(0, bytes.sizeBytes)));
  });
}

test('writable and sealed layers commit to what the original committed', async () => {
  const base = join(folder, 'lsmt');
  for (const kind of ['rw-append', 'rw-sparse']) {
    const golden = fileBytes(join(base, kind, 'commit.lsmt'));
    const options = optionsOf(await openLsmtLayer(golden));
    const expected = sha256(await golden.read(0, golden.sizeBytes));

    const data = join(base, kind, 'data');
    const upper = await openUpper(data, join(base, kind, 'index'));
    assert.equal(sha256(await commit(options, upper, fileBytes(data))), expected);

    const sealed = fileBytes(join(base, kind, 'sealed'));
    const layer = await openLsmtLayer(sealed);
    assert.equal(sha256(await commit(options, layer, sealed)), expected);
  }
});

test('random extents, up to far LBAs, read back as they were written', async () => {
  const extentArbitrary = fc.record({
    gap: fc.oneof(fc.nat(3), fc.integer({ min: 0, max: 2 ** 40 })),
    sectors: fc.integer({ min: 1, max: 200 }),
    zeroed: fc.boolean(),
    byte: fc.integer({ min: 1, max: 255 }),
  });
  await fc.assert(
    fc.asyncProperty(fc.array(extentArbitrary, { maxLength: 20 }), async (parts) => {
      let lba = 0;
      const extents = parts.map(({ gap, sectors, zeroed, byte }): LsmtExtent => {
        const at = lba + gap;
        lba = at + sectors;
        if (zeroed) return { lba: at, sectors, zeroed };
        return { lba: at, sectors, data: Buffer.alloc(sectors * 512, byte) };
      });
      const bytes = bytesOf('random', await write({ virtualSizeBytes: GIB }, extents));
      const layer = await openLsmtLayer(bytes);
      for (const extent of extents) {
        for (let i = 0; i < extent.sectors; i += 1) {
          const found = await readSector(layer, bytes, extent.lba + i);
          const expected = extent.zeroed ? 0 : extent.data[0];
          assert.deepEqual(found, Buffer.alloc(512, expected));
        }
      }
      const sectorsWritten = extents.reduce((sum, extent) => sum + extent.sectors, 0);
      const sectorsFound = layer.sectors.reduce((sum, sectors) => sum + sectors, 0);
      assert.equal(sectorsFound, sectorsWritten);
    }),
    { numRuns: 50 },
  );
});

test('what cannot be written is refused', async () => {
  const options = { virtualSizeBytes: MIB };
  const one = { lba: 0, sectors: 1, zeroed: true } as const;
  await assert.rejects(write({ ...options, uuid: 'no uuid' }, []), { code: 'ERR_LSMT_UUID' });
  await assert.rejects(write({ ...options, userTag: 'é'.repeat(129) }, []), {
    code: 'ERR_LSMT_TAG',
  });
  await assert.rejects(write(options, [one, one]), { code: 'ERR_ASSERTION' });
  await assert.rejects(write(options, [{ lba: 0, sectors: 2, data: fill('x', 512) }]), {
    code: 'ERR_ASSERTION',
  });
});

test('a layer holds as many entries as the original opens, and not one more', async () => {
  const max = 999_936;
  const options = { virtualSizeBytes: GIB };
  // Zeros of the longest entries: neighbours that long do not join.
  const zeroed = (entries: number) =>
    [{ lba: 0, sectors: entries * 16_383, zeroed: true }] satisfies LsmtExtent[];
  const layer = await openLsmtLayer(bytesOf('full', await write(options, zeroed(max))));
  assert.equal(layer.facts.entries, max);
  await assert.rejects(write(options, zeroed(max + 1)), { code: 'ERR_LSMT_ENTRIES' });
});

/** Data as the original's writer logs it: in entries of at most 4 MiB. */
function* inEntries(lba: number, data: Buffer): Generator<LsmtExtent> {
  for (let offset = 0; offset < data.length; offset += 4 * MIB) {
    const part = data.subarray(offset, offset + 4 * MIB);
    yield { lba: lba + offset / 512, sectors: part.length / 512, data: part };
  }
}

/** By the plainest search there is: the merged index has tests of its own. */
async function readSector(layer: LsmtLayer, bytes: LayerBytes, lba: number): Promise<Buffer> {
  const at = layer.start.findIndex((start, i) => start <= lba && lba < start + layer.sectors[i]);
  assert.ok(at >= 0, `no entry has sector ${lba}`);
  if (layer.zeroed[at] === 1) return Buffer.alloc(512);
  return Buffer.from(await bytes.read((layer.mapped[at] + lba - layer.start[at]) * 512, 512));
}

function fill(character: string, length: number): Buffer {
  return Buffer.alloc(length, character);
}

function optionsOf({ facts }: LsmtLayer): LsmtWriterOptions {
  const { virtualSizeBytes, uuid, parentUuid, userTag } = facts;
  return { virtualSizeBytes, uuid, parentUuid, userTag };
}

function commit(
  options: LsmtWriterOptions,
  columns: LsmtEntryColumns,
  bytes: LayerBytes,
): Promise<Buffer> {
  return write(options, extentsOf(overlayLayers([columns]), [bytes]));
}

async function write(
  options: LsmtWriterOptions,
  extents: Iterable<LsmtExtent> | AsyncIterable<LsmtExtent>,
): Promise<Buffer> {
  const sink = new MemorySink();
  const written = await writeCommittedLayer(sink, options, extents);
  assert.equal(written.sizeBytes, sink.bytes.length);
  return sink.bytes;
}
