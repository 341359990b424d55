// Goal: the native kernels of writers do what their twins in TypeScript do.
// Method: the same data through both, every block size and codec; pieces of a file against the
// file's own bytes; what must fail, fails in both for the same reason.
import assert from 'node:assert/strict';
import { closeSync, openSync, writeFileSync } from 'node:fs';
import { test } from 'node:test';
import fc from 'fast-check';
import { createBlockCompressor, type BlockCompressor } from '../../native/block-compressor.ts';
import { systemCodec } from '../../native/codecs.ts';
import {
  readPieces,
  readPiecesNatively,
  readPiecesPortably,
  type FilePiece,
} from '../../native/file-pieces.ts';
import { noise, syntheticBytes } from '../image/zfile-support.ts';
import { scratchOf } from '../support/scratch.ts';

const coding = { codec: 'lz4', blockBytes: 4096, hasBlockCrc: true } as const;
const isNative = createBlockCompressor(coding).kind === 'native';
const skip = isNative ? false : 'needs the native kernels';

/** The stored bytes of one batch, and how long each block is. */
async function compressed(compressor: BlockCompressor, plain: Buffer) {
  const batch = compressor.makeBatch(plain.length);
  batch.plain.set(plain);
  const stored = await compressor.compress(batch, plain.length);
  assert.ok(stored >= 0);
  return { bytes: batch.stored.subarray(0, stored), lengths: [...batch.lengths] };
}

test('batches are stored in the same bytes', { skip }, async () => {
  for (const codec of ['lz4', 'zstd'] as const) {
    const twin = systemCodec(codec);
    assert.ok(twin !== null);
    for (const blockBytes of [4096, 8192, 16_384, 32_768, 65_536]) {
      for (const hasBlockCrc of [true, false]) {
        const how = { codec, blockBytes, hasBlockCrc };
        for (const plain of [syntheticBytes(300_001, blockBytes), noise(140_000)]) {
          const native = await compressed(createBlockCompressor(how), plain);
          const portable = await compressed(createBlockCompressor(how, twin), plain);
          assert.ok(native.bytes.equals(portable.bytes), JSON.stringify(how));
          assert.deepEqual(native.lengths, portable.lengths);
        }
      }
    }
  }
});

test('an encoder that was used before gives the bytes of a new one', { skip }, async () => {
  // Blocks of one batch share an encoder; a batch of one block has the state that the last left.
  const how = { codec: 'zstd', blockBytes: 65_536, hasBlockCrc: false } as const;
  const compressor = createBlockCompressor(how);
  const plain = syntheticBytes(8 * 65_536, 5);
  const { bytes, lengths } = await compressed(compressor, plain);
  let at = 0;
  for (const [block, length] of lengths.entries()) {
    const alone = await compressed(
      compressor,
      plain.subarray(block * 65_536, (block + 1) * 65_536),
    );
    assert.ok(alone.bytes.equals(bytes.subarray(at, at + length)), `block ${block}`);
    at += length;
  }
});

test('a block that does not fit is named', async () => {
  const full = { decompress: () => -1, compress: (plain: Uint8Array) => (plain[0] === 7 ? -1 : 1) };
  const compressor = createBlockCompressor(coding, full);
  const batch = compressor.makeBatch(4 * 4096);
  batch.plain.fill(0);
  batch.plain[2 * 4096] = 7;
  assert.equal(await compressor.compress(batch, 4 * 4096), -1 - 2);
});

test('any pieces of a file arrive where they belong', async (t) => {
  const scratch = scratchOf(t);
  const content = syntheticBytes(200_000, 3);
  writeFileSync(scratch.path('file'), content);
  const fd = openSync(scratch.path('file'), 'r');
  scratch.atEnd(() => closeSync(fd));
  const lengths = fc.record({ offset: fc.nat(190_000), length: fc.integer({ min: 1, max: 9000 }) });
  const joined = fc.boolean();
  await fc.assert(
    fc.asyncProperty(fc.array(lengths, { maxLength: 40 }), joined, async (wanted, isJoined) => {
      const pieces: FilePiece[] = [];
      let target = 0;
      for (const { offset, length } of wanted) {
        const last = pieces.at(-1);
        const from = isJoined && last !== undefined ? last.offset + last.length : offset;
        if (from + length > content.length) continue;
        pieces.push({ offset: from, length, target });
        target += length;
      }
      const expected = Buffer.concat(
        pieces.map(({ offset, length }) => content.subarray(offset, offset + length)),
      );
      for (const read of [readPiecesNatively, readPiecesPortably]) {
        const into = Buffer.alloc(target);
        assert.equal(await read(fd, pieces, into), null);
        assert.ok(into.equals(expected));
      }
    }),
    { numRuns: 50 },
  );
});

test('a file that ends too early, and one that is not open, are told apart', async (t) => {
  const scratch = scratchOf(t);
  writeFileSync(scratch.path('file'), 'short');
  const fd = openSync(scratch.path('file'), 'r');
  scratch.atEnd(() => closeSync(fd));
  const pieces = [{ offset: 2, length: 4, target: 0 }];
  const into = Buffer.alloc(4);
  for (const read of [readPiecesNatively, readPiecesPortably]) {
    assert.deepEqual(await read(fd, pieces, into), { errno: null });
    assert.deepEqual(await read(1_000_000, pieces, into), { errno: 9 });
  }
  await assert.rejects(readPieces(fd, pieces, into, 'layer'), {
    code: 'ERR_FILE_READ',
    message: /layer: .*it ends before/,
  });
  await assert.rejects(readPieces(1_000_000, pieces, into, 'layer'), {
    code: 'ERR_FILE_READ',
    message: /bad file descriptor/i,
  });
});
