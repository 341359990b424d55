// Goal: the writer's bytes are the original's, for any sizes of writes, and what it writes reads
// back. Method: re-encode the content of the original's files, compare bytes; golden sha256s;
// random data through every codec and block size.
import assert from 'node:assert';
import { test } from 'node:test';
import fc from 'fast-check';
import { bundledCodec, systemCodec } from '../../native/codecs.ts';
import { codeOf } from '../../src/base/errors.ts';
import { openLayerBlob } from '../../src/image/layer-blob.ts';
import { ZFileWriter, type ZFileWriterOptions } from '../../src/image/zfile/writer.ts';
import { MemoryBlob } from '../../bench/support/memory-blob.ts';
import { MemorySink } from '../../bench/support/memory-sink.ts';
import {
  expectations,
  fixture,
  goldenLsmt,
  noise,
  sha256,
  syntheticBytes,
  writeZFile,
} from './zfile-support.ts';

const skip =
  systemCodec('lz4') === null || systemCodec('zstd') === null ? 'no system codecs' : false;

async function contentOf(zfile: Uint8Array): Promise<Uint8Array> {
  const { bytes } = await openLayerBlob(new MemoryBlob(zfile));
  return bytes.read(0, bytes.sizeBytes);
}

/** The options that a fixture's name tells. */
function optionsOf(name: string): ZFileWriterOptions {
  const [, algorithm, size, ...rest] = name.split('.');
  return {
    algorithm: algorithm === 'zstd' ? 'zstd' : 'lz4',
    blockBytes: Number.parseInt(size, 10) * 1024,
    blockCrc: !rest.includes('nocrc'),
    overwriteHeader: rest.includes('hdr') || rest.includes('builder'),
  };
}

test("re-encoding the original's files gives their very bytes", { skip }, async () => {
  for (const name of Object.keys(expectations).filter((each) => each.endsWith('.zf'))) {
    const original = fixture(name);
    const plain = await contentOf(original);
    for (const pieces of [[plain.length], [1000, 1, 7, 66_000]]) {
      const written = await writeZFile(plain, optionsOf(name), pieces);
      assert(written.equals(original), `${name} in pieces of ${pieces.join()}`);
    }
  }
});

test('golden vectors: the small layer as LZ4 and zstd ZFiles', { skip }, async () => {
  const lsmt = goldenLsmt();
  const golden: [ZFileWriterOptions, string][] = [
    [
      { overwriteHeader: false },
      '0dfc1efbf55c7d2e72ee849097333c11fb34bf58a5d4e43599fdc6d6537f3738',
    ],
    [{}, 'd258d406c4076d9bd8ed05eed7650307b985d1a45742f16d6e092a3129216bfc'],
    [{ algorithm: 'zstd' }, '9a8cfbd10b4f55b032734bb187ac62dc5dc7d7f99e9ddd0a8886b4fbb4e8c061'],
  ];
  assert.strictEqual(
    sha256(lsmt),
    '3fb9f2dc829e65b35ec3084ab934ab1497ddde39197b45cc7c1c50b255b91fb0',
  );
  for (const [options, expected] of golden) {
    assert.strictEqual(sha256(await writeZFile(lsmt, options)), expected);
  }
});

test('any data in writes of any sizes reads back', async () => {
  const codings = fc.record({
    algorithm: fc.constantFrom('lz4' as const, 'zstd' as const),
    blockBytes: fc.constantFrom(4096, 8192, 16_384, 32_768, 65_536),
    blockCrc: fc.boolean(),
    overwriteHeader: fc.boolean(),
    isBundled: fc.boolean(),
  });
  const pieces = fc.array(fc.integer({ min: 1, max: 100_000 }), { minLength: 1, maxLength: 5 });
  const sizes = fc.integer({ min: 0, max: 200_000 });
  await fc.assert(
    fc.asyncProperty(codings, pieces, sizes, fc.nat(), async (coding, sizesOf, size, seed) => {
      const codec = coding.isBundled ? bundledCodec(coding.algorithm) : undefined;
      const plain = syntheticBytes(size, seed);
      const options = codec === undefined ? coding : { ...coding, codec };
      const written = await writeZFile(plain, options, sizesOf);
      assert(plain.equals(await contentOf(written)));
    }),
    { numRuns: 60 },
  );
});

test('64 KiB blocks that no codec makes smaller read back', async () => {
  const plain = noise(200_000);
  for (const algorithm of ['lz4', 'zstd'] as const) {
    for (const codec of [systemCodec(algorithm), bundledCodec(algorithm)]) {
      if (codec === null) continue;
      const written = await writeZFile(plain, { algorithm, blockBytes: 65_536, codec });
      assert(written.length > plain.length);
      assert(plain.equals(await contentOf(written)));
    }
  }
});

test('a block size that is no power of two from 4 to 64 KiB is refused', () => {
  for (const blockBytes of [0, 512, 5000, 131_072, -4096, NaN]) {
    assert.throws(
      () => new ZFileWriter(new MemorySink(), { blockBytes }),
      (error) => codeOf(error) === 'ERR_ZFILE_BLOCK_SIZE',
    );
  }
});

test('any number of threads gives the same bytes', { skip }, async () => {
  // Several batches, and a last one that is no whole block.
  const plain = syntheticBytes(5_000_001, 11);
  for (const algorithm of ['lz4', 'zstd'] as const) {
    for (const blockBytes of [4096, 65_536]) {
      const alone = await writeZFile(plain, { algorithm, blockBytes, threads: 1 });
      for (const threads of [2, 3, 9]) {
        const written = await writeZFile(plain, { algorithm, blockBytes, threads }, [300_007]);
        assert(written.equals(alone), `${algorithm} ${blockBytes} on ${threads} threads`);
      }
    }
  }
});

test('a sink that fails makes a later call fail, and nothing is written after it', async () => {
  for (const failing of [1, 2, 4]) {
    let writes = 0;
    const sink = {
      write: async () => {
        writes += 1;
        if (writes === failing) throw new Error(`write ${failing} failed`);
      },
      patch: async () => assert.fail('no header for a file that is not whole'),
    };
    const writer = new ZFileWriter(sink, { threads: 2 });
    const work = async () => {
      for (let at = 0; at < 20; at += 1) await writer.write(syntheticBytes(400_000, at));
      await writer.finish();
    };
    await assert.rejects(work(), new RegExp(`write ${failing} failed`));
    await writer.settle();
    assert.strictEqual(writes, failing);
  }
});
