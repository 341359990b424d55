// Goal: no damage to a ZFile crashes a reader or passes for data. Method: flip, cut and overwrite
// bytes of small files; opening and reading must throw a ReplaybdError or give the original's
// bytes. Files without CRCs may give other bytes of the right length: nothing in them tells.
import assert from 'node:assert';
import { test } from 'node:test';
import fc from 'fast-check';
import { ReplaybdError } from '../../src/base/errors.ts';
import { openLayerBlob } from '../../src/image/layer-blob.ts';
import { MemoryBlob, type MemoryBlobKind } from '../../bench/support/memory-blob.ts';
import {
  kernelVariants,
  readWhole,
  skipUnless,
  type KernelVariant,
} from '../support/read-kernels.ts';
import { syntheticBytes, writeZFile } from './zfile-support.ts';

const plain = syntheticBytes(30_000, 11);

const change = fc.oneof(
  fc.record({
    kind: fc.constant('flip' as const),
    at: fc.nat(),
    value: fc.integer({ min: 1, max: 255 }),
  }),
  fc.record({ kind: fc.constant('cut' as const), at: fc.nat(), value: fc.constant(0) }),
  fc.record({
    kind: fc.constant('word' as const),
    at: fc.nat(),
    value: fc.constantFrom(0, 1, 0x7fff_ffff, 0xffff_ffff, 0x1_0000),
  }),
);
type Change = typeof change extends fc.Arbitrary<infer T> ? T : never;

function apply(file: Buffer, { kind, at, value }: Change): Buffer {
  const copy = Buffer.from(file);
  if (kind === 'cut') return copy.subarray(0, at % copy.length);
  // Half of the damage goes to header, jump table and trailer, which are a small part of the file.
  const tail = copy.length - 600;
  const position = at % 2 === 0 ? (at >>> 1) % copy.length : ((at >>> 1) % 696) - 96;
  const offset = position < 0 ? position + 96 : at % 2 === 0 ? position : tail + position;
  if (kind === 'flip') copy[Math.min(offset, copy.length - 1)] ^= value;
  else copy.writeUInt32LE(value, Math.min(offset, copy.length - 4));
  return copy;
}

async function survives(
  variant: KernelVariant,
  damaged: Buffer,
  hasCrc: boolean,
  kind: MemoryBlobKind,
): Promise<void> {
  assert(variant.create !== null);
  const blob = new MemoryBlob(damaged, kind);
  try {
    const { map } = await openLayerBlob(blob);
    if (map.codec === 'raw') return;
    await blob.ensure(0, blob.sizeBytes);
    const read = readWhole(variant.create([map]), map.lsmtSizeBytes);
    if (!Buffer.isBuffer(read)) assert.strictEqual(read.kind, 'bad');
    else if (hasCrc) assert(plain.equals(read));
  } catch (error) {
    assert(error instanceof ReplaybdError, String(error));
    assert(error.code.startsWith('ERR_ZFILE_'), error.message);
  }
}

for (const variant of kernelVariants) {
  test(`damaged ZFiles: ${variant.name}`, skipUnless(variant), async () => {
    const files: [Buffer, boolean][] = [];
    for (const algorithm of ['lz4', 'zstd'] as const) {
      for (const blockCrc of [true, false]) {
        const options = { algorithm, blockCrc, overwriteHeader: blockCrc };
        files.push([await writeZFile(plain, options), blockCrc]);
      }
    }
    await fc.assert(
      fc.asyncProperty(
        fc.constantFrom(...files),
        change,
        fc.boolean(),
        async ([file, hasCrc], damage, isLazy) => {
          await survives(variant, apply(file, damage), hasCrc, isLazy ? 'lazy' : 'local');
        },
      ),
      { numRuns: 400 },
    );
  });
}
