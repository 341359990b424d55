// Goal: every ZFile of the original tools reads as the bytes it was made from, and every damaged
// one is refused with an error that names it. Method: fixtures as the original wrote them, each
// kernel, the whole content compared by the sha256 that the fixtures' makers computed.
import assert from 'node:assert';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { ReplaybdError } from '../../src/base/errors.ts';
import { openLayerBlob } from '../../src/image/layer-blob.ts';
import { kernelVariants, readWhole, skipUnless } from '../support/read-kernels.ts';
import { MemoryBlob } from '../../bench/support/memory-blob.ts';
import { expectations, fixture, sha256 } from './zfile-support.ts';

for (const variant of kernelVariants) {
  test(
    `the original's ZFiles read as what they were made from: ${variant.name}`,
    skipUnless(variant),
    async () => {
      assert(variant.create !== null);
      for (const [name, { rawSha256, rawSizeBytes }] of Object.entries(expectations)) {
        const { map } = await openLayerBlob(new MemoryBlob(fixture(name), 'local', name));
        assert.strictEqual(map.lsmtSizeBytes, rawSizeBytes, name);
        const read = readWhole(variant.create([map]), rawSizeBytes);
        assert(Buffer.isBuffer(read), `${name}: ${JSON.stringify(read)}`);
        assert.strictEqual(sha256(read), rawSha256, name);
      }
    },
  );
}

test('facts of a ZFile are those its header states', async () => {
  const plain = await openLayerBlob(new MemoryBlob(fixture('mixed.zstd.64k.crc.zf')));
  assert.deepStrictEqual(plain.facts.zfile, {
    algorithm: 'zstd',
    blockBytes: 65_536,
    blockCount: 3,
    originalBytes: 185_005,
    storedBytes: 32_506,
    hasBlockCrc: true,
    hasDigest: true,
    isHeaderOverwritten: false,
  });
  const overwritten = await openLayerBlob(new MemoryBlob(fixture('mixed.lz4.4k.nocrc.hdr.zf')));
  assert.strictEqual(overwritten.facts.zfile?.isHeaderOverwritten, true);
  assert.strictEqual(overwritten.facts.zfile?.hasBlockCrc, false);
  assert.strictEqual(overwritten.map.codec, 'lz4');
});

const refused: Record<string, RegExp> = {
  'block-flip.zf': /^ERR_ZFILE_BLOCK_CHECKSUM$/,
  'crc-flip.zf': /^ERR_ZFILE_BLOCK_CHECKSUM$/,
  'nocrc-block-flip.zf': /^ERR_ZFILE_BLOCK_CHECKSUM$/,
  'index-flip.zf': /^ERR_ZFILE_TABLE_CHECKSUM$/,
  'header-flip.zf': /^ERR_ZFILE_DIGEST$/,
  'trailer-flip.zf': /^ERR_ZFILE_DIGEST$/,
  'truncated.zf': /^ERR_ZFILE_MAGIC$/,
};

for (const [name, code] of Object.entries(refused)) {
  test(`damage is refused: ${name}`, async () => {
    const attempt = async (): Promise<void> => {
      const { bytes } = await openLayerBlob(new MemoryBlob(fixture(`bad/${name}`), 'local', name));
      await bytes.read(0, bytes.sizeBytes);
    };
    await assert.rejects(attempt, (error) => {
      assert(error instanceof ReplaybdError);
      assert.match(error.code, code);
      assert(error.message.startsWith(`${name}: `), error.message);
      return true;
    });
  });
}

test('a file without the magic is not taken for a ZFile', async () => {
  const { map, facts } = await openLayerBlob(new MemoryBlob(fixture('bad/magic.zf')));
  assert.strictEqual(facts.zfile, null);
  assert.strictEqual(map.codec, 'raw');
});

test('an overwritten header is enough without the trailer', async () => {
  const { bytes } = await openLayerBlob(new MemoryBlob(fixture('bad/hdr-trailer-gone.zf')));
  const expected = expectations['mixed.lz4.4k.crc.hdr.zf'].rawSha256;
  assert.strictEqual(sha256(await bytes.read(0, bytes.sizeBytes)), expected);
});

test('a layer in a ZFile in a tar is found', async () => {
  const blob = new MemoryBlob(
    readFileSync(new URL('../fixtures/lsmt/rw-append/commit.lz4-4k.tar', import.meta.url)),
  );
  const { bytes, facts } = await openLayerBlob(blob);
  assert.deepStrictEqual(facts.payload, { offset: 1536, length: 236_893 });
  assert.strictEqual(bytes.sizeBytes, 1_349_120);
  for (const at of [0, bytes.sizeBytes - 4096]) {
    assert.strictEqual(Buffer.from(await bytes.read(at, 4)).toString(), 'LSMT');
  }
});

test('what writers before 2022 left uninitialised is ignored', async () => {
  const legacy = fixture('mixed.lz4.4k.crc.zf');
  for (const at of [0, legacy.length - 512]) {
    // Digest, the upper flag bits, and everything behind the last field were garbage.
    legacy.writeUInt32LE(0xdead_beef, at + 28);
    legacy.writeUInt32LE(0xa464_0b40 + (legacy.readUInt32LE(at + 32) & 0b1111), at + 32);
    legacy.writeUInt32LE(0x7ffe, at + 36);
    legacy.writeUInt32LE(0x1234_5678, at + 64);
    legacy.fill(0xaa, at + 89, at + 512);
  }
  legacy.fill(0xbb, 40, 64);
  const { bytes, facts } = await openLayerBlob(new MemoryBlob(legacy));
  assert.strictEqual(facts.zfile?.hasDigest, false);
  const expected = expectations['mixed.lz4.4k.crc.zf'].rawSha256;
  assert.strictEqual(sha256(await bytes.read(0, bytes.sizeBytes)), expected);
});
