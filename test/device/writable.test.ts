// Goal: a writable device reads as a flat disk on which the same writes and discards were done, over
// whatever layers, however often it is flushed, closed, reopened and snapshotted.
// Method: random operations on both kinds of layer, with both kernels, compared with a flat array;
// then the single behaviours that matter most.
import assert from 'node:assert/strict';
import { mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, test } from 'node:test';
import fc from 'fast-check';
import type { EnsureOptions } from '../../src/blob/blob.ts';
import { openLocalBlob } from '../../src/blob/local-blob.ts';
import { ReplaybdError } from '../../src/base/errors.ts';
import { SECTOR_BYTES } from '../../src/base/limits.ts';
import type { SharedDevice } from '../../src/device/block-device.ts';
import { CachedReader } from '../../src/device/cached-reader.ts';
import { forkConfig } from '../../src/device/snapshot-config.ts';
import { openWritableUpper } from '../../src/image/lsmt/writable-upper.ts';
import type { UpperKind } from '../../src/image/lsmt/upper-map.ts';
import { emptyStack, openStack } from '../../src/image/stack.ts';
import { MemoryBlob } from '../../bench/support/memory-blob.ts';
import { kinds, newUpper, pathsIn, testFolder } from '../image/upper-support.ts';
import { lazyLayer, noise, readAsFrontends, writableDevice } from './writable-support.ts';

const DISK_SECTORS = 600;
const DISK_BYTES = DISK_SECTORS * SECTOR_BYTES;
/** Not whole regions of the index. */
const GROWTH_BYTES = 300 * SECTOR_BYTES;

type Step =
  | { do: 'write' | 'discard'; lba: number; sectors: number }
  | { do: 'flush' | 'reopen' | 'snapshot' | 'grow' };

const rangeArbitrary = fc.record({
  lba: fc.nat(DISK_SECTORS - 1),
  sectors: fc.oneof(fc.integer({ min: 1, max: 12 }), fc.integer({ min: 1, max: 300 })),
});
const stepArbitrary: fc.Arbitrary<Step> = fc.oneof(
  { weight: 6, arbitrary: rangeArbitrary.map((range): Step => ({ do: 'write', ...range })) },
  { weight: 3, arbitrary: rangeArbitrary.map((range): Step => ({ do: 'discard', ...range })) },
  { weight: 1, arbitrary: fc.constantFrom<Step>({ do: 'flush' }, { do: 'reopen' }) },
  { weight: 1, arbitrary: fc.constantFrom<Step>({ do: 'snapshot' }, { do: 'grow' }) },
);

for (const kernel of ['native', 'portable']) {
  describe(`${kernel} kernel`, () => {
    beforeEach(() => {
      if (kernel === 'portable') process.env.REPLAYBD_NATIVE = '0';
    });
    afterEach(() => {
      delete process.env.REPLAYBD_NATIVE;
    });

    for (const kind of kinds) {
      test(`random changes of a disk with a layer of kind ${kind}`, async (t) => {
        const folder = testFolder(t);
        let run = 0;
        await fc.assert(
          fc.asyncProperty(fc.array(stepArbitrary, { maxLength: 40 }), async (steps) => {
            const own = join(folder, String((run += 1)));
            await checkSteps(own, kind, steps);
            rmSync(own, { recursive: true });
          }),
          { numRuns: 10 },
        );
      });
    }
  });
}

async function checkSteps(folder: string, kind: UpperKind, steps: readonly Step[]): Promise<void> {
  mkdirSync(folder);
  const configPath = join(folder, 'config.v1.json');
  let model = Buffer.alloc(DISK_BYTES);
  const below = noise(250, 9);
  model.set(below, 100 * SECTOR_BYTES);
  const remote = await lazyLayer([{ lba: 100, sectors: 250, data: below }], DISK_BYTES);
  let paths = pathsIn(folder, 'upper0');
  const config = { lowers: [{ digest: 'x' }], upper: paths, other: { kept: true } };
  writeFileSync(configPath, JSON.stringify(config));
  let device = writableDevice(
    await openStack([remote]),
    await newUpper(paths, kind, DISK_BYTES),
    configPath,
  );
  let count = 0;
  for (const step of steps) {
    count += 1;
    if (step.do === 'write' || step.do === 'discard') {
      // The whole of a disk that has grown is written to.
      const lba = Math.floor((step.lba * model.length) / DISK_BYTES);
      const sectors = Math.min(step.sectors, model.length / SECTOR_BYTES - lba);
      const [at, end] = [lba * SECTOR_BYTES, (lba + sectors) * SECTOR_BYTES];
      if (step.do === 'write') {
        // Some sectors of zeros: a sparse layer cannot tell them from holes by itself.
        const data = count % 4 === 0 ? Buffer.alloc(end - at) : noise(sectors, count + 10);
        await device.writer.write(at, data, count % 7 === 0);
        model.set(data, at);
      } else {
        await device.writer.discard(at, end - at);
        model.fill(0, at, end);
      }
    } else if (step.do === 'flush') {
      await device.writer.flush();
    } else if (step.do === 'grow') {
      model = Buffer.concat([model, Buffer.alloc(GROWTH_BYTES)]);
      await device.grow(model.length);
      assert.equal(device.virtualSizeBytes, model.length);
    } else if (step.do === 'snapshot') {
      paths = pathsIn(folder, `upper${count}`);
      await device.snapshot(paths);
    } else {
      await device.close();
      const written = JSON.parse(readFileSync(configPath, 'utf8')) as typeof config;
      assert.deepEqual(written.upper, paths);
      assert.deepEqual(written.other, { kept: true });
      const sealed = written.lowers.slice(1) as unknown as { file: string }[];
      const blobs = await Promise.all(sealed.map(({ file }) => openLocalBlob(file)));
      const stack = await openStack([remote, ...blobs]);
      device = writableDevice(stack, await openWritableUpper(paths), configPath);
    }
    const diskSectors = model.length / SECTOR_BYTES;
    const probe = Math.floor((diskSectors * ((count * 37) % 100)) / 100);
    const sectors = Math.min(64, diskSectors - probe);
    const [from, to] = [probe * SECTOR_BYTES, (probe + sectors) * SECTOR_BYTES];
    assert.ok((await readAsFrontends(device, probe, sectors)).equals(model.subarray(from, to)));
  }
  assert.equal(device.virtualSizeBytes, model.length);
  assert.ok((await readAsFrontends(device, 0, model.length / SECTOR_BYTES)).equals(model));
  for (const { offset, length, zero } of device.extents(0, model.length)) {
    if (zero) assert.ok(model.subarray(offset, offset + length).every((byte) => byte === 0));
  }
  await device.close();
}

/** A registry that never answers, once its layer is open. */
class StalledBlob extends MemoryBlob {
  isStalled = false;
  asked = 0;
  override async ensure(offset: number, length: number, options?: EnsureOptions): Promise<void> {
    if (!this.isStalled) return await super.ensure(offset, length, options);
    this.asked += 1;
    await new Promise<never>(() => undefined);
  }
}

async function stalledStack() {
  const data = noise(64, 3);
  const { origin } = await lazyLayer([{ lba: 0, sectors: 64, data }], DISK_BYTES);
  const blob = new StalledBlob(origin, 'lazy');
  const stack = await openStack([blob]);
  blob.drop(0, blob.sizeBytes);
  blob.isStalled = true;
  return { blob, stack };
}

for (const kind of kinds) {
  test(`${kind}: a write of one sector of remote data waits for no registry`, async (t) => {
    const folder = testFolder(t);
    const { blob, stack } = await stalledStack();
    const paths = pathsIn(folder);
    const device = writableDevice(stack, await newUpper(paths, kind, DISK_BYTES));
    const sector = noise(1, 77);
    await device.writer.write(3 * SECTOR_BYTES, sector, true);
    const back = Buffer.alloc(SECTOR_BYTES);
    assert.ok(device.readCached(3 * SECTOR_BYTES, back));
    assert.ok(back.equals(sector));
    assert.equal(blob.asked, 0);
    // Its neighbours are still what they were: remote.
    assert.equal(device.readCached(2 * SECTOR_BYTES, back), false);
    await device.close();

    const reopened = writableDevice(stack, await openWritableUpper(paths));
    assert.ok(reopened.readCached(3 * SECTOR_BYTES, back));
    assert.ok(back.equals(sector));
    assert.equal(reopened.readCached(4 * SECTOR_BYTES, back), false);
    await reopened.close();
  });

  test(`${kind}: a read fetches only what the writable layer does not hide`, async (t) => {
    const data = noise(64, 4);
    const layer = await lazyLayer([{ lba: 0, sectors: 64, data }], DISK_BYTES);
    const stack = await openStack([layer]);
    layer.drop(0, layer.sizeBytes);
    layer.fetched.length = 0;
    const device = writableDevice(stack, await newUpper(pathsIn(testFolder(t)), kind, DISK_BYTES));
    const over = noise(40, 5);
    await device.writer.write(0, over, false);
    await device.writer.discard(48 * SECTOR_BYTES, 16 * SECTOR_BYTES);
    const expected = Buffer.concat([
      over,
      data.subarray(40 * 512, 48 * 512),
      Buffer.alloc(16 * 512),
    ]);
    assert.ok((await readAsFrontends(device, 0, 64)).equals(expected));
    const wanted = stack.blobRangeOf(stack.locate(40, 8)[0]);
    assert.deepEqual(layer.fetched, [wanted]);
    await device.close();
  });

  test(`${kind}: what the disk does not have is refused`, async (t) => {
    const upper = await newUpper(pathsIn(testFolder(t)), kind, DISK_BYTES);
    const device = writableDevice(emptyStack(DISK_BYTES), upper);
    const sector = Buffer.alloc(SECTOR_BYTES);
    const refusals = [
      { errno: 'ENOSPC', work: () => device.writer.write(DISK_BYTES, sector, false) },
      { errno: 'ENOSPC', work: () => device.writer.discard(DISK_BYTES - 512, 1024) },
      { errno: 'EINVAL', work: () => device.writer.write(7, sector, false) },
      { errno: 'EINVAL', work: () => device.writer.write(0, Buffer.alloc(100), false) },
    ];
    for (const { errno, work } of refusals) {
      await assert.rejects(
        work(),
        (error) => error instanceof ReplaybdError && error.errno === errno,
      );
    }
    assert.ok(upper.isEmpty);
    await device.close();
    assert.equal(device.readCached(0, sector), false);
    await assert.rejects(device.writer.write(0, sector, false), { code: 'ERR_UPPER_CLOSED' });
  });

  test(`${kind}: a snapshot tells other threads, and old maps answer nothing`, async (t) => {
    const folder = testFolder(t);
    const configPath = join(folder, 'config.v1.json');
    const paths = pathsIn(folder, 'first');
    writeFileSync(configPath, JSON.stringify({ lowers: [{ file: 'base' }], upper: paths }));
    const layer = await lazyLayer([], DISK_BYTES);
    const upper = await newUpper(paths, kind, DISK_BYTES);
    const device = writableDevice(await openStack([layer]), upper, configPath);
    const old = new CachedReader(device.shared, 0);
    const heard: SharedDevice[] = [];
    device.onRemap((shared) => void heard.push(shared));
    const [before, after] = [noise(2, 1), noise(2, 2)];
    await device.writer.write(0, before, false);
    const report = await device.snapshot(pathsIn(folder, 'second'));
    assert.equal(report.sealed, paths.data);
    assert.ok(report.flushMs <= report.pauseMs);
    // Over the frozen layer at first, then over the sealed one.
    assert.deepEqual(
      heard.map((shared) => shared.frozen === undefined),
      [false, true],
    );
    assert.equal(heard[1], device.shared);
    assert.equal(old.isRetired, true);
    assert.equal(old.readCached(0, Buffer.alloc(512)), false);
    assert.equal(old.upper?.write(0, after), false);
    assert.ok((await readAsFrontends(device, 0, 2)).equals(before));
    await device.writer.write(0, after, false);
    assert.ok((await readAsFrontends(device, 0, 2)).equals(after));
    assert.equal(device.stack.layers.length, 2);
    await device.close();

    const fork = { ...pathsIn(folder, 'fork'), kind, virtualSizeBytes: DISK_BYTES };
    const forkPath = join(folder, 'fork.v1.json');
    await forkConfig(configPath, forkPath, fork);
    const [own, forked] = [configPath, forkPath].map(
      (path) => JSON.parse(readFileSync(path, 'utf8')) as { lowers: unknown; upper: object },
    );
    assert.deepEqual(forked.lowers, own.lowers);
    assert.deepEqual(forked.upper, { data: fork.data, index: fork.index });
  });
  test(`${kind}: a disk grows under writers, and old maps answer nothing`, async (t) => {
    const folder = testFolder(t);
    const layer = await lazyLayer([], DISK_BYTES);
    const paths = pathsIn(folder);
    const upper = await newUpper(paths, kind, DISK_BYTES);
    const device = writableDevice(await openStack([layer]), upper);
    const old = new CachedReader(device.shared, 0);
    const told = Promise.withResolvers<void>();
    let heard = 0;
    device.onRemap(async (shared) => {
      heard += 1;
      assert.equal(shared.upper?.virtualSizeBytes, 2 * DISK_BYTES);
      await told.promise;
    });
    await device.writer.write(0, noise(2, 1), false);
    const growing = device.grow(2 * DISK_BYTES);
    await assert.rejects(device.grow(3 * DISK_BYTES), { code: 'ERR_RESIZE_BUSY', errno: 'EBUSY' });
    // These wait for the new size, and find it.
    await Promise.all(
      Array.from({ length: 8 }, (_, i) =>
        device.writer.write(8 * i * SECTOR_BYTES, noise(8, i + 2), i % 2 === 0),
      ),
    );
    told.resolve();
    await growing;
    assert.equal(heard, 1);
    assert.equal(old.isRetired, true);
    assert.equal(old.readCached(0, Buffer.alloc(512)), false);
    assert.equal(old.upper?.write(0, Buffer.alloc(512)), false);
    await device.writer.write(2 * DISK_BYTES - SECTOR_BYTES, noise(1, 99), false);
    await assert.rejects(device.grow(DISK_BYTES), { code: 'ERR_RESIZE_SHRINK', errno: 'EINVAL' });
    await device.grow(2 * DISK_BYTES);
    assert.equal(heard, 1, 'nothing changes at the present size');
    await device.close();

    const again = writableDevice(await openStack([layer]), await openWritableUpper(paths));
    assert.equal(again.virtualSizeBytes, 2 * DISK_BYTES);
    for (let i = 0; i < 8; i += 1) {
      assert.ok((await readAsFrontends(again, 8 * i, 8)).equals(noise(8, i + 2)));
    }
    const last = await readAsFrontends(again, 2 * DISK_SECTORS - 1, 1);
    assert.ok(last.equals(noise(1, 99)));
    await again.close();
  });
}
