// Goal: a device's bytes are those of its layers, whatever is local, and damage is an error in the end,
// never a wrong byte. Method: stacks of raw, LZ4 and zstd layers that are fetched lazily, read with both
// kernels and compared with a flat copy of the disk; then origins and tables that are damaged.
import assert from 'node:assert/strict';
import { afterEach, beforeEach, describe, test } from 'node:test';
import fc from 'fast-check';
import { loadNativeKernels } from '../../native/native-kernel.ts';
import { OPS_MAX } from '../../native/kernels.ts';
import { codeOf } from '../../src/base/errors.ts';
import { SECTOR_BYTES } from '../../src/base/limits.ts';
import { systemClock } from '../../src/base/clock.ts';
import { silentLogger } from '../../src/base/log.ts';
import { StackDevice } from '../../src/device/device.ts';
import { createTapMap, TapDrain } from '../../src/device/tap.ts';
import type { EnsureOptions } from '../../src/blob/blob.ts';
import { writeCommittedLayer, type LsmtExtent } from '../../src/image/lsmt/writer.ts';
import { openStack, type Stack } from '../../src/image/stack.ts';
import { ZFileWriter } from '../../src/image/zfile/writer.ts';
import type { LayerCodec } from '../../src/image/stack-map.ts';
import { MemoryBlob } from '../../bench/support/memory-blob.ts';
import { MemorySink } from '../../bench/support/memory-sink.ts';

const DISK_SECTORS = 512;
const DISK_BYTES = DISK_SECTORS * SECTOR_BYTES;
const CODECS = ['raw', 'lz4', 'zstd'] as const;
const hasNative = loadNativeKernels()?.codecs.size === 3;

/** A piece of one layer: gap before it, length, whether it is zeroed. */
const pieceArbitrary = fc.tuple(fc.nat(60), fc.integer({ min: 1, max: 90 }), fc.boolean());
const layerArbitrary = fc.record({
  codec: fc.constantFrom(...CODECS),
  pieces: fc.array(pieceArbitrary, { minLength: 1, maxLength: 10 }),
});
const readArbitrary = fc.tuple(
  fc.nat(DISK_SECTORS - 1),
  fc.oneof(fc.integer({ min: 1, max: 16 }), fc.integer({ min: 1, max: DISK_SECTORS })),
);

for (const kernel of ['native', 'portable']) {
  describe(`${kernel} kernel`, { skip: kernel === 'native' && !hasNative }, () => {
    beforeEach(() => {
      if (kernel === 'portable') process.env.REPLAYBD_NATIVE = '0';
    });
    afterEach(() => {
      delete process.env.REPLAYBD_NATIVE;
    });

    test('random reads of random stacks are those of the flat disk', async () => {
      const layers = fc.tuple(layerArbitrary, layerArbitrary, layerArbitrary);
      const reads = fc.array(readArbitrary, { minLength: 1, maxLength: 30 });
      await fc.assert(
        fc.asyncProperty(layers, reads, async (stack, list) => {
          const model = Buffer.alloc(DISK_BYTES);
          const blobs: MemoryBlob[] = [];
          for (const [number, { codec, pieces }] of stack.entries()) {
            const extents = extentsOf(pieces, number);
            for (const extent of extents) paint(model, extent);
            blobs.push(await layerBlob(codec, extents));
          }
          const device = deviceOf(await openStack(blobs));
          for (const [lba, wanted] of list) {
            const sectors = Math.min(wanted, DISK_SECTORS - lba);
            const expected = model.subarray(lba * SECTOR_BYTES, (lba + sectors) * SECTOR_BYTES);
            assert.deepEqual(await readAsFrontends(device, lba, sectors), expected);
            assert.ok(device.readCached(lba * SECTOR_BYTES, Buffer.alloc(expected.length)));
          }
        }),
        { numRuns: 40 },
      );
    });

    test('a read of more segments than one run of the kernel takes', async () => {
      const sectors = 3 * OPS_MAX;
      const bottom = noise(sectors, 1);
      const top = noise(sectors, 2);
      const model = Buffer.alloc(sectors * SECTOR_BYTES);
      // Sector by sector: the top layer, the bottom one, nothing.
      const pick = (from: Buffer, phase: number): LsmtExtent[] => {
        const extents: LsmtExtent[] = [];
        for (let lba = phase; lba < sectors; lba += 3) {
          const data = from.subarray(lba * SECTOR_BYTES, (lba + 1) * SECTOR_BYTES);
          extents.push({ lba, sectors: 1, data });
        }
        for (const extent of extents) paint(model, extent);
        return extents;
      };
      const size = sectors * SECTOR_BYTES;
      const blobs = [
        await layerBlob('raw', pick(bottom, 0), size),
        await layerBlob('lz4', pick(top, 1), size),
      ];
      const device = deviceOf(await openStack(blobs));
      assert.deepEqual(await readAsFrontends(device, 0, sectors), model);
      assert.deepEqual(
        await readAsFrontends(device, 7, sectors - 9),
        model.subarray(7 * 512, -1024),
      );
    });

    test('disks of more than 2 TiB, and what lies past their last segment', async () => {
      const far = 2 ** 33 + 5;
      const data = noise(8, 3);
      const extents: LsmtExtent[] = [
        { lba: 1, sectors: 8, data },
        { lba: far, sectors: 8, data },
      ];
      const device = deviceOf(await openStack([await layerBlob('zstd', extents, 2 ** 43)]));
      const around = Buffer.concat([Buffer.alloc(512), data, Buffer.alloc(512)]);
      assert.deepEqual(await readAsFrontends(device, far - 1, 10), around);
      assert.deepEqual(await readAsFrontends(device, 0, 10), around);
      const past = await readAsFrontends(device, 2 ** 34 - 100, 100);
      assert.ok(past.every((byte) => byte === 0));
    });

    test('a block damaged on its way is dropped and fetched again', async () => {
      for (const codec of ['lz4', 'zstd'] as const) {
        const { device, blob, data, block } = await oneBlockDevice(codec);
        const good = blob.origin[block.offset];
        blob.origin[block.offset] ^= 0xff;
        blob.onFetch = () => {
          // The second time, the origin has recovered.
          if (blob.fetched.length > 1) blob.origin[block.offset] = good;
        };
        assert.deepEqual(await readAsFrontends(device, 0, 8), data);
        assert.equal(blob.fetched.length, 2);
      }
    });

    test('a block damaged at its origin fails after three attempts', async () => {
      const { device, blob, block } = await oneBlockDevice('lz4');
      blob.origin[block.offset + 9] ^= 1;
      const read = device.read(0, Buffer.alloc(8 * SECTOR_BYTES));
      await assert.rejects(read, (error: Error) => {
        assert.equal(codeOf(error), 'ERR_BLOCK_VERIFY');
        assert.equal((error as { errno?: string }).errno, 'EIO');
        assert.match(error.message, /memory-blob: block at byte \d+ .* after 3 attempt/);
        return true;
      });
      assert.equal(blob.fetched.length, 3);
    });

    test('tables that lead nowhere fail at once: there is nothing to fetch again', async () => {
      const pointOutside = ({ map }: Stack): void => {
        map.index.mapped[0] += 1000;
      };
      const shortenBlock = ({ map }: Stack): void => {
        const { zfile } = map.layers[0];
        assert.ok(zfile !== null);
        zfile.withinGroup[2] = zfile.withinGroup[1] + 4;
      };
      for (const [reason, damage] of [
        ['range', pointOutside],
        ['table', shortenBlock],
      ] as const) {
        const { device, stack, blob } = await oneBlockDevice('lz4');
        await blob.ensure(0, blob.sizeBytes);
        blob.fetched.length = 0;
        damage(stack);
        await assert.rejects(
          device.read(0, Buffer.alloc(8 * SECTOR_BYTES)),
          (error: Error) =>
            codeOf(error) === 'ERR_BLOCK_VERIFY' &&
            error.message.includes(`outside the layer (${reason}) after 1 attempt`),
        );
        assert.deepEqual(blob.fetched, []);
      }
    });
  });
}

test('an aborted read ends, and the device goes on', async () => {
  class SlowBlob extends MemoryBlob {
    isSlow = false;
    override async ensure(offset: number, length: number, options?: EnsureOptions): Promise<void> {
      const signal = options?.signal;
      if (this.isSlow && signal !== undefined) {
        const aborted = Promise.withResolvers<never>();
        signal.addEventListener('abort', () => aborted.reject(signal.reason as Error));
        await aborted.promise;
      }
      await super.ensure(offset, length);
    }
  }
  const data = noise(8, 4);
  const { origin } = await layerBlob('lz4', [{ lba: 0, sectors: 8, data }]);
  const blob = new SlowBlob(origin, 'lazy');
  const device = deviceOf(await openStack([blob]));
  blob.drop(0, blob.sizeBytes);
  blob.isSlow = true;
  const abort = new AbortController();
  const read = device.read(0, Buffer.alloc(4096), abort.signal);
  abort.abort(new Error('the guest has gone'));
  await assert.rejects(read, /the guest has gone/);
  blob.isSlow = false;
  assert.deepEqual(await readAsFrontends(device, 0, 8), data);
});

test('the tap hears of a read once, and whether it hit', async () => {
  const { stack } = await oneBlockDevice('raw');
  const tap = createTapMap(1);
  const drain = new TapDrain(tap);
  drain.setEnabled(true);
  const device = deviceOf(stack, tap);
  await readAsFrontends(device, 0, 8);
  await readAsFrontends(device, 2, 1);
  const seen: [number, number, boolean][] = [];
  drain.drain((_, offset, length, hit) => seen.push([offset, length, hit]));
  assert.deepEqual(seen, [
    [0, 4096, false],
    [1024, 512, true],
  ]);
});

test('extents tell data from zeros and holes, without fetching', async () => {
  const blob = await layerBlob('lz4', [
    { lba: 8, sectors: 8, data: noise(8, 5) },
    { lba: 16, sectors: 8, zeroed: true },
    { lba: 24, sectors: 8, data: noise(8, 6) },
  ]);
  const device = deviceOf(await openStack([blob]));
  blob.fetched.length = 0;
  assert.deepEqual(device.extents(0, 40 * SECTOR_BYTES), [
    { offset: 0, length: 4096, zero: true },
    { offset: 4096, length: 4096, zero: false },
    { offset: 8192, length: 4096, zero: true },
    { offset: 12_288, length: 4096, zero: false },
    { offset: 16_384, length: 4096, zero: true },
  ]);
  assert.deepEqual(blob.fetched, []);
});

/** What a front end does: the hit path first, then the other one. */
async function readAsFrontends(device: StackDevice, lba: number, sectors: number): Promise<Buffer> {
  const into = Buffer.alloc(sectors * SECTOR_BYTES, 0xee);
  if (!device.readCached(lba * SECTOR_BYTES, into)) await device.read(lba * SECTOR_BYTES, into);
  return into;
}

function deviceOf(stack: Stack, tap = createTapMap(1)): StackDevice {
  return new StackDevice({
    id: 'test',
    stack,
    shared: { stack: stack.map, tap },
    clock: systemClock,
    log: silentLogger,
    observer: { onMiss: () => 'demand', onMissDone: () => undefined },
  });
}

/** A layer as a blob of which nothing is local. */
async function layerBlob(
  codec: LayerCodec,
  extents: readonly LsmtExtent[],
  virtualSizeBytes: number = DISK_BYTES,
): Promise<MemoryBlob> {
  const sink = new MemorySink();
  if (codec === 'raw') {
    await writeCommittedLayer(sink, { virtualSizeBytes }, extents);
  } else {
    const zfile = new ZFileWriter(sink, { algorithm: codec });
    await writeCommittedLayer(zfile, { virtualSizeBytes }, extents);
    await zfile.finish();
  }
  return new MemoryBlob(sink.bytes, 'lazy');
}

/** A disk whose first 4 KiB are block 1 of its only layer, of which nothing is local any more. */
async function oneBlockDevice(codec: LayerCodec) {
  const data = noise(8, 7);
  const blob = await layerBlob(codec, [{ lba: 0, sectors: 8, data }]);
  const stack = await openStack([blob]);
  const [block] = stack.locate(0, 8).map((piece) => stack.blobRangeOf(piece));
  blob.drop(0, blob.sizeBytes);
  blob.fetched.length = 0;
  return { device: deviceOf(stack), stack, blob, data, block };
}

function extentsOf(pieces: readonly [number, number, boolean][], seed: number): LsmtExtent[] {
  const extents: LsmtExtent[] = [];
  let lba = 0;
  for (const [gap, wanted, zeroed] of pieces) {
    lba += gap;
    const sectors = Math.min(wanted, DISK_SECTORS - lba);
    if (sectors <= 0) break;
    const data = noise(sectors, seed * DISK_SECTORS + lba);
    extents.push(zeroed ? { lba, sectors, zeroed } : { lba, sectors, data });
    lba += sectors;
  }
  return extents;
}

function paint(model: Buffer, extent: LsmtExtent): void {
  const at = extent.lba * SECTOR_BYTES;
  if (extent.zeroed) model.fill(0, at, at + extent.sectors * SECTOR_BYTES);
  else model.set(extent.data, at);
}

/** Sectors that differ everywhere and compress somewhat. */
function noise(sectors: number, seed: number): Buffer {
  const bytes = Buffer.alloc(sectors * SECTOR_BYTES);
  let state = seed + 1;
  for (let at = 0; at < bytes.length; at += 2) {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    bytes[at] = state >>> 24;
  }
  return bytes;
}
