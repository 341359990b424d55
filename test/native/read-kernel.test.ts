// Goal: a kernel gives exactly the bytes asked for or says why not, reads nothing that is absent,
// and leaves everything outside the destination alone, however hostile its tables. Method: every
// kernel over the same small layers, compared with a flat array; tables and presence are altered.
import assert from 'node:assert';
import { once } from 'node:events';
import { test } from 'node:test';
import { Worker } from 'node:worker_threads';
import fc from 'fast-check';
import { createReadKernel, kernelKind, OPS_MAX } from '../../native/kernels.ts';
import { loadNativeKernels } from '../../native/native-kernel.ts';
import { crc32cRaw } from '../../src/base/crc32c.ts';
import { openLayerBlob } from '../../src/image/layer-blob.ts';
import { ZERO_LAYER, type LayerMap } from '../../src/image/stack-map.ts';
import { noise, syntheticBytes, writeZFile } from '../image/zfile-support.ts';
import { MemoryBlob } from '../../bench/support/memory-blob.ts';
import { kernelVariants, skipUnless } from '../support/read-kernels.ts';

interface TestLayer {
  plain: Buffer;
  blob: MemoryBlob;
  map: LayerMap;
}

async function makeLayers(kind: 'local' | 'lazy'): Promise<TestLayer[]> {
  const plains = [
    syntheticBytes(150_000, 1),
    syntheticBytes(300_001, 2),
    syntheticBytes(90_000, 3),
  ];
  const stored = [
    await writeZFile(plains[0]),
    await writeZFile(plains[1], { algorithm: 'zstd', blockBytes: 65_536 }),
    plains[2],
  ];
  const layers: TestLayer[] = [];
  for (const [number, plain] of plains.entries()) {
    const blob = new MemoryBlob(stored[number], kind);
    const { map } = await openLayerBlob(blob);
    layers.push({ plain, blob, map });
  }
  return layers;
}

const GUARD = 0x5a;

for (const variant of kernelVariants) {
  const title = (text: string): string => `${text}: ${variant.name}`;

  test(
    title('random reads over several layers are those of flat arrays'),
    skipUnless(variant),
    async () => {
      assert(variant.create !== null);
      const layers = await makeLayers('local');
      const kernel = variant.create(layers.map(({ map }) => map));
      const op = fc.record({
        layer: fc.integer({ min: 0, max: 3 }),
        at: fc.nat(),
        length: fc.integer({ min: 1, max: 70_000 }),
      });
      fc.assert(
        fc.property(fc.array(op, { minLength: 1, maxLength: 12 }), (wanted) => {
          const parts: Buffer[] = [];
          kernel.ops.clear();
          let target = 16;
          for (const { layer, at, length } of wanted) {
            const plain = layer === 3 ? Buffer.alloc(100_000) : layers[layer].plain;
            const offset = at % plain.length;
            const part = plain.subarray(offset, offset + length);
            kernel.ops.push(layer === 3 ? ZERO_LAYER : layer, offset, part.length, target);
            target += part.length;
            parts.push(part);
          }
          const dst = Buffer.alloc(target + 16, GUARD);
          assert.strictEqual(kernel.run(dst), 0);
          const guard = Buffer.alloc(16, GUARD);
          assert(Buffer.concat([guard, ...parts, guard]).equals(dst));
        }),
        { numRuns: 60 },
      );
    },
  );

  test(
    title('absent granules stop a read, present ones do not, cleared ones do again'),
    skipUnless(variant),
    async () => {
      assert(variant.create !== null);
      const layers = await makeLayers('lazy');
      const kernel = variant.create(layers.map(({ map }) => map));
      for (const [number, { blob, plain }] of layers.entries()) {
        blob.drop(0, blob.sizeBytes);
        const dst = Buffer.alloc(5000);
        const attempt = (): number => {
          kernel.ops.clear();
          kernel.ops.push(number, 70_000, 5000, 0);
          return kernel.run(dst);
        };
        assert.strictEqual(attempt(), 1);
        const { kind, reason, layer, blobOffset, blobLength } = kernel.failure;
        assert.deepStrictEqual([kind, reason, layer], ['missing', 'missing', number]);
        await blob.ensure(blobOffset, blobLength);
        assert.strictEqual(attempt(), 0);
        assert(plain.subarray(70_000, 75_000).equals(dst));
        blob.drop(blobOffset + blobLength - 1, 1);
        assert.strictEqual(attempt(), 1);
      }
    },
  );

  test(
    title('nothing is decoded before all ops are known to be present'),
    skipUnless(variant),
    async () => {
      assert(variant.create !== null);
      const [first, , raw] = await makeLayers('lazy');
      await first.blob.ensure(0, first.blob.sizeBytes);
      raw.blob.drop(0, raw.blob.sizeBytes);
      const kernel = variant.create([first.map, raw.map]);
      const dst = Buffer.alloc(8192, GUARD);
      kernel.ops.push(0, 0, 4096, 0);
      kernel.ops.push(1, 0, 4096, 4096);
      assert.strictEqual(kernel.run(dst), 1);
      assert.strictEqual(kernel.failure.op, 1);
      assert(dst.every((byte) => byte === GUARD));
    },
  );

  test(
    title('a damaged block is named, with the bytes to fetch again'),
    skipUnless(variant),
    async () => {
      assert(variant.create !== null);
      for (const number of [0, 1]) {
        const { blob, map } = (await makeLayers('local'))[number];
        assert(map.zfile !== null);
        const { blockBytes, withinGroup } = map.zfile;
        blob.bytes[512 + withinGroup[1]] ^= 0x10;
        const kernel = variant.create([map]);
        kernel.ops.push(0, blockBytes - 10, 20, 0);
        assert.strictEqual(kernel.run(Buffer.alloc(100)), 2);
        assert.deepStrictEqual(kernel.failure, {
          kind: 'bad',
          reason: 'checksum',
          op: 0,
          layer: 0,
          block: 1,
          blobOffset: 512 + withinGroup[1],
          blobLength: withinGroup[2] - withinGroup[1],
        });
      }
    },
  );

  test(
    title('a block that decodes to another length is refused'),
    skipUnless(variant),
    async () => {
      assert(variant.create !== null);
      for (const algorithm of ['lz4', 'zstd'] as const) {
        const short = await writeZFile(syntheticBytes(5000, 4), { algorithm, blockCrc: false });
        const { map } = await openLayerBlob(new MemoryBlob(short));
        // The last block holds 904 bytes; now it should hold 905, or 903.
        for (const lsmtSizeBytes of [5001, 4999]) {
          const kernel = variant.create([{ ...map, lsmtSizeBytes }]);
          kernel.ops.push(0, 4096, 800, 0);
          assert.strictEqual(kernel.run(Buffer.alloc(1000)), 2);
          assert.strictEqual(kernel.failure.reason, 'decode');
        }
      }
    },
  );

  test(title('bytes behind a zstd frame are refused'), skipUnless(variant), async () => {
    assert(variant.create !== null);
    const written = await writeZFile(Buffer.alloc(4096, 7), { algorithm: 'zstd', blockCrc: false });
    const { map } = await openLayerBlob(new MemoryBlob(written));
    assert(map.zfile !== null);
    // The jump table's 4 bytes follow the only block: count them in.
    map.zfile.withinGroup[1] += 4;
    const kernel = variant.create([map]);
    kernel.ops.push(0, 0, 4096, 0);
    assert.strictEqual(kernel.run(Buffer.alloc(4096)), 2);
    assert.strictEqual(kernel.failure.reason, 'decode');
  });

  test(
    title('no jump table leads outside the blob or the destination'),
    skipUnless(variant),
    async () => {
      assert(variant.create !== null);
      const { create } = variant;
      const layers = (await makeLayers('lazy')).slice(0, 2);
      for (const { blob } of layers) await blob.ensure(0, blob.sizeBytes);
      const hostile = fc.constantFrom(
        NaN,
        Infinity,
        -Infinity,
        -1,
        -1e300,
        2 ** 53,
        1e300,
        4096.5,
        1e6,
      );
      const change = fc.record({
        layer: fc.integer({ min: 0, max: 1 }),
        base: fc.option(hostile),
        entry: fc.nat(100),
        within: fc.oneof(fc.nat(0xffff_ffff), fc.nat(100_000)),
      });
      fc.assert(
        fc.property(change, ({ layer, base, entry, within }) => {
          const { map, plain } = layers[layer];
          assert(map.zfile !== null);
          const zfile = {
            ...map.zfile,
            groupBase: new Float64Array(copyShared(map.zfile.groupBase.buffer)),
            withinGroup: new Uint32Array(copyShared(map.zfile.withinGroup.buffer)),
          };
          zfile.withinGroup[entry % zfile.withinGroup.length] = within;
          if (base !== null) zfile.groupBase[0] = base;
          const kernel = create([{ ...map, zfile }]);
          kernel.ops.push(0, 0, plain.length, 16);
          const dst = Buffer.alloc(plain.length + 32, GUARD);
          const result = kernel.run(dst);
          if (result === 0) assert(plain.equals(dst.subarray(16, -16)));
          assert(dst.subarray(0, 16).every((byte) => byte === GUARD));
          assert(dst.subarray(-16).every((byte) => byte === GUARD));
        }),
        { numRuns: 150 },
      );
    },
  );

  test(
    title('ops outside their layer or the destination are refused'),
    skipUnless(variant),
    async () => {
      assert(variant.create !== null);
      const [{ map, plain }] = await makeLayers('local');
      const kernel = variant.create([map]);
      const dst = Buffer.alloc(8192, GUARD);
      const bad: [number, number, number, number][] = [
        [0, plain.length - 1, 2, 0],
        [0, -1, 10, 0],
        [0, NaN, 10, 0],
        [0, 2 ** 60, 10, 0],
        [0, 0, 0, 0],
        [0, 0, 4096, 4097],
        [0, 0, 0xffff_ffff, 0],
        [0, 0, 10, 0xffff_fff0],
        [1, 0, 10, 0],
        [ZERO_LAYER, 0, 8193, 0],
      ];
      for (const [layer, offset, length, target] of bad) {
        kernel.ops.clear();
        kernel.ops.push(layer, offset, length, target);
        assert.strictEqual(kernel.run(dst), 2);
        assert.strictEqual(kernel.failure.reason, 'range');
      }
      assert(dst.every((byte) => byte === GUARD));
    },
  );

  test(title('64 KiB blocks longer than 64 KiB read back'), skipUnless(variant), async () => {
    assert(variant.create !== null);
    const plain = noise(140_000);
    for (const algorithm of ['lz4', 'zstd'] as const) {
      const written = await writeZFile(plain, { algorithm, blockBytes: 65_536 });
      const blob = new MemoryBlob(written, 'lazy');
      const { map } = await openLayerBlob(blob);
      await blob.ensure(0, blob.sizeBytes);
      const kernel = variant.create([map]);
      const dst = Buffer.alloc(plain.length);
      kernel.ops.push(0, 0, plain.length, 0);
      assert.strictEqual(kernel.run(dst), 0);
      assert(plain.equals(dst));
    }
  });

  test(
    title('a full table of ops, small and detached destinations'),
    skipUnless(variant),
    async () => {
      assert(variant.create !== null);
      const [{ map, plain }] = await makeLayers('local');
      const kernel = variant.create([map]);
      const dst = Buffer.alloc(OPS_MAX * 8);
      for (let op = 0; op < OPS_MAX; op += 1) kernel.ops.push(0, op * 100, 8, op * 8);
      assert.strictEqual(kernel.run(dst), 0);
      for (let op = 0; op < OPS_MAX; op += 1) {
        assert(plain.subarray(op * 100, op * 100 + 8).equals(dst.subarray(op * 8, op * 8 + 8)));
      }
      kernel.ops.push(0, 0, 8, 0);
      assert.throws(() => kernel.run(dst));
      kernel.ops.clear();
      assert.strictEqual(kernel.run(dst), 0);
      const small = new Uint8Array(5);
      kernel.ops.push(0, 3, 5, 0);
      assert.strictEqual(kernel.run(small), 0);
      assert.deepStrictEqual([...small], [...plain.subarray(3, 8)]);
      structuredClone(small.buffer, { transfer: [small.buffer] });
      assert.strictEqual(kernel.run(small), 2);
    },
  );
}

function copyShared(buffer: SharedArrayBuffer): SharedArrayBuffer {
  const copy = new SharedArrayBuffer(buffer.byteLength);
  new Uint8Array(copy).set(new Uint8Array(buffer));
  return copy;
}

test("both native CRCs are the package's, of every length", (t) => {
  const native = loadNativeKernels();
  if (native === null) return t.skip('no native kernels on this machine');
  // Three lanes of up to 1,536 bytes, and what does not fill them.
  const all = noise(15_000);
  for (let length = 0; length <= all.length; length += length < 5000 ? 1 : 37) {
    const bytes = all.subarray(all.length - length);
    const expected = crc32cRaw(100_007, bytes);
    assert.strictEqual(native.crc32cRaw(100_007, bytes, length, 0), expected, `${length} bytes`);
    assert.strictEqual(native.crc32cRaw(100_007, bytes, length, 1), expected, `${length} bytes`);
  }
  fc.assert(
    fc.property(fc.nat(0xffff_ffff), fc.uint8Array({ maxLength: 3000 }), (seed, bytes) => {
      const expected = crc32cRaw(seed, bytes);
      assert.strictEqual(native.crc32cRaw(seed, bytes, bytes.length, 0), expected);
      assert.strictEqual(native.crc32cRaw(seed, bytes, bytes.length, 1), expected);
    }),
  );
});

test('workers read from the maps they are posted, and end without trace', async () => {
  const layers = await makeLayers('lazy');
  for (const { blob } of layers) await blob.ensure(0, blob.sizeBytes);
  const workerData = layers.map(({ map }) => map);
  const runs = Array.from({ length: 3 }, async () => {
    const worker = new Worker(new URL('./read-worker.ts', import.meta.url), { workerData });
    const answers: { result: number; bytes: Uint8Array }[] = [];
    worker.on('message', (answer: (typeof answers)[number]) => answers.push(answer));
    assert.deepStrictEqual(await once(worker, 'exit'), [0]);
    assert.strictEqual(answers.length, layers.length);
    for (const [number, { result, bytes }] of answers.entries()) {
      assert.strictEqual(result, 0);
      assert(layers[number].plain.equals(bytes));
    }
  });
  await Promise.all(runs);
});

test('REPLAYBD_NATIVE=0 selects the portable kernel', (t) => {
  const before = process.env.REPLAYBD_NATIVE;
  t.after(() => {
    if (before === undefined) delete process.env.REPLAYBD_NATIVE;
    else process.env.REPLAYBD_NATIVE = before;
  });
  process.env.REPLAYBD_NATIVE = '0';
  assert.strictEqual(kernelKind(), 'portable');
  assert.strictEqual(createReadKernel([]).kind, 'portable');
});
