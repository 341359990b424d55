// Goal: no damaged layer is taken for a good one silently, or brings the process down.
// Method: one test a rule of the format, then random byte flips over headers, index and trailers:
// the result is an error of ours, or a layer whose entries hold every promise of an opened one.
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import fc from 'fast-check';
import { ReplaybdError } from '../../src/base/errors.ts';
import { openLsmtLayer, type LsmtLayer } from '../../src/image/lsmt/layer.ts';
import { openUpper } from '../../src/image/lsmt/upper.ts';
import { bytesOf, removeFolder, unpackFixtures } from './lsmt-support.ts';

let folder = '';
let good = Buffer.alloc(0);
before(() => {
  folder = unpackFixtures();
  good = readFileSync(join(folder, 'lsmt/edge/seg257.lsmt'));
});
after(() => removeFolder(folder));

const INDEX_ENTRIES = 512;
const trailerAt = () => good.length - 4096;
const indexAt = () => trailerAt() - INDEX_ENTRIES * 16;

const DAMAGES: { what: string; code: string; damage: (bytes: Buffer) => Buffer | void }[] = [
  { what: 'an empty file', code: 'ERR_LSMT_SIZE', damage: () => Buffer.alloc(0) },
  { what: 'a header alone', code: 'ERR_LSMT_SIZE', damage: (b) => b.subarray(0, 4096) },
  { what: 'a lost tail', code: 'ERR_LSMT_MAGIC', damage: (b) => b.subarray(0, -512) },
  { what: 'header magic', code: 'ERR_LSMT_MAGIC', damage: (b) => flip(b, 3) },
  { what: 'header magic, second part', code: 'ERR_LSMT_MAGIC', damage: (b) => flip(b, 20) },
  { what: 'trailer magic', code: 'ERR_LSMT_MAGIC', damage: (b) => flip(b, trailerAt()) },
  { what: 'a header that says trailer', code: 'ERR_LSMT_FLAGS', damage: (b) => flag(b, 28, 0x06) },
  { what: 'a header of an index file', code: 'ERR_LSMT_FLAGS', damage: (b) => flag(b, 28, 0x01) },
  {
    what: 'a trailer that says header',
    code: 'ERR_LSMT_FLAGS',
    damage: (b) => flag(b, trailerAt() + 28, 0x07),
  },
  {
    what: 'a trailer that is not sealed',
    code: 'ERR_LSMT_FLAGS',
    damage: (b) => flag(b, trailerAt() + 28, 0x02),
  },
  {
    what: 'too many entries',
    code: 'ERR_LSMT_ENTRIES',
    damage: (b) => word(b, trailerAt() + 40, 4_000_001n),
  },
  {
    what: 'an index that reaches into the trailer',
    code: 'ERR_LSMT_INDEX',
    damage: (b) => word(b, trailerAt() + 40, BigInt(INDEX_ENTRIES + 1)),
  },
  {
    what: 'an index beyond the file',
    code: 'ERR_LSMT_INDEX',
    damage: (b) => word(b, trailerAt() + 32, BigInt(b.length)),
  },
  {
    what: 'an index inside the header',
    code: 'ERR_LSMT_INDEX',
    damage: (b) => word(b, trailerAt() + 32, 0n),
  },
  {
    what: 'a size that no number holds',
    code: 'ERR_LSMT_RANGE',
    damage: (b) => word(b, trailerAt() + 48, 2n ** 53n),
  },
  {
    what: 'entries out of order',
    code: 'ERR_LSMT_ORDER',
    damage: (b) => b.copyWithin(indexAt() + 16, indexAt(), indexAt() + 16),
  },
  {
    what: 'data mapped into the header',
    code: 'ERR_LSMT_MAPPED',
    damage: (b) => word(b, indexAt() + 8, 7n),
  },
  {
    what: 'data mapped beyond the data',
    code: 'ERR_LSMT_MAPPED',
    damage: (b) => word(b, indexAt() + 8, BigInt(indexAt() / 512)),
  },
  {
    what: 'zeros mapped beyond the data',
    code: 'ERR_LSMT_MAPPED',
    damage: (b) => word(b, indexAt() + 8, BigInt(indexAt() / 512 + 1) | (1n << 55n)),
  },
];

for (const { what, code, damage } of DAMAGES) {
  test(`${what} is refused by name`, async () => {
    const copy = Buffer.from(good);
    const damaged = damage(copy) ?? copy;
    await assert.rejects(openLsmtLayer(bytesOf('bad.lsmt', damaged)), (error) => {
      assert.ok(error instanceof ReplaybdError);
      assert.equal(error.code, code);
      assert.match(error.message, /^bad\.lsmt: LSMT .*expected .*found /);
      return true;
    });
  });
}

test('padding anywhere and entries without length are left out', async () => {
  const copy = Buffer.from(good);
  const before = await openLsmtLayer(bytesOf('good', good));
  word(copy, indexAt(), 2n ** 50n - 1n);
  copy.writeUInt16LE(copy.readUInt16LE(indexAt() + 22) & 3, indexAt() + 22);
  const layer = await openLsmtLayer(bytesOf('padded', copy));
  assert.equal(layer.count, before.count - 2);
  assert.deepEqual(layer.start, before.start.slice(2));
});

test('flipped bytes never make an inconsistent layer', async () => {
  const place = fc.oneof(
    fc.nat(389),
    fc.nat(389).map((at) => trailerAt() + at),
    fc.nat(INDEX_ENTRIES * 16 - 1).map((at) => indexAt() + at),
  );
  const flips = fc.array(fc.tuple(place, fc.nat(255)), { minLength: 1, maxLength: 4 });
  await fc.assert(
    fc.asyncProperty(flips, async (changes) => {
      const copy = Buffer.from(good);
      for (const [at, value] of changes) copy[at] = value;
      let layer: LsmtLayer;
      try {
        layer = await openLsmtLayer(bytesOf('flipped', copy));
      } catch (error) {
        assert.ok(error instanceof ReplaybdError, String(error));
        return;
      }
      checkPromises(layer, copy.length);
    }),
    { numRuns: 500 },
  );
});

test('a writable layer whose log points beyond its data is refused', async () => {
  const data = join(folder, 'lsmt/cli-1g/data');
  const log = readFileSync(join(folder, 'lsmt/cli-1g/index'));
  const torn = join(folder, 'torn-index');
  const cases = [
    { code: 'ERR_LSMT_MAPPED', damage: () => word(Buffer.from(log), 4096 + 8, 2n ** 40n) },
    { code: 'ERR_LSMT_FLAGS', damage: () => flag(Buffer.from(log), 28, 0x05) },
    { code: 'ERR_LSMT_INDEX', damage: () => word(Buffer.from(log), 32, 8192n) },
    { code: 'ERR_LSMT_MAGIC', damage: () => Buffer.from(log.subarray(0, 100)) },
  ];
  for (const { code, damage } of cases) {
    await writeFile(torn, damage());
    await assert.rejects(openUpper(data, torn), { code });
  }
});

function checkPromises(layer: LsmtLayer, sizeBytes: number): void {
  let end = 0;
  for (let i = 0; i < layer.count; i += 1) {
    assert.ok(layer.start[i] >= end && layer.sectors[i] > 0);
    end = layer.start[i] + layer.sectors[i];
    const stored = layer.zeroed[i] === 1 ? 0 : layer.sectors[i];
    assert.ok(layer.mapped[i] >= 8 && (layer.mapped[i] + stored) * 512 <= sizeBytes - 4096);
  }
  assert.ok(Number.isSafeInteger(layer.facts.virtualSizeBytes));
  assert.equal(layer.facts.virtualSizeBytes % 512, 0);
}

function flip(bytes: Buffer, at: number): Buffer {
  bytes[at] ^= 0xff;
  return bytes;
}

function flag(bytes: Buffer, at: number, value: number): Buffer {
  bytes.writeUInt32LE(value, at);
  return bytes;
}

function word(bytes: Buffer, at: number, value: bigint): Buffer {
  bytes.writeBigUInt64LE(value, at);
  return bytes;
}
