// Goal: what bounds a writable layer - its disk, its data file, its log, the file system - is an error
// or a wait, and loses nothing; far ends of large disks are like any other place.
// Method: maps with small bounds, disks of terabytes, a file system of a mebibyte, hostile logs.
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { test } from 'node:test';
import fc from 'fast-check';
import { ReplaybdError } from '../../src/base/errors.ts';
import { upperLimits } from '../../src/base/limits.ts';
import { SharedUpper } from '../../src/image/lsmt/shared-upper.ts';
import { openUpper } from '../../src/image/lsmt/upper.ts';
import { openWritableUpper } from '../../src/image/lsmt/writable-upper.ts';
import { needs } from '../support/needs.ts';
import { scratchOf } from '../support/scratch.ts';
import { digestOfUpper, kinds, newUpper, pathsIn, testFolder } from './upper-support.ts';

const MIB = 2 ** 20;
const TIB = 2 ** 40;
const sector = Buffer.alloc(512, 3);

test('a data file that may not grow refuses writes, and takes discards', async (t) => {
  const upper = await newUpper(pathsIn(testFolder(t)), 'append', MIB);
  const small = new SharedUpper({ ...upper.map, mappedBytes: 4096 + 1024 });
  assert.ok(small.write(0, sector));
  assert.ok(small.write(512, sector));
  assert.throws(() => small.write(1024, sector), { code: 'ERR_UPPER_FULL', errno: 'ENOSPC' });
  assert.ok(small.discard(0, 512));
  assert.equal((await upper.entries()).count, 2);
  await upper.close();
});

test('a full log hands writes to the main thread, which makes room', async (t) => {
  const upper = await newUpper(pathsIn(testFolder(t)), 'append', MIB);
  const small = new SharedUpper({ ...upper.map, log: new SharedArrayBuffer(2 * 16) });
  assert.deepEqual(
    [0, 1, 2].map((lba) => small.write(lba * 512, sector)),
    [true, true, false],
  );
  await upper.flush();
  assert.ok(small.write(1024, sector));
  await upper.close();
});

for (const kind of kinds) {
  test(`${kind}: the far end of a disk of 5 TiB`, async (t) => {
    const paths = pathsIn(testFolder(t));
    const upper = await newUpper(paths, kind, 5 * TIB);
    await upper.write(5 * TIB - 512, sector);
    await upper.write(3 * TIB - 4096, Buffer.alloc(8192, 4));
    await upper.discard(2 * TIB - 512, 1024);
    await upper.close();
    const check = async () => {
      const { count, start, sectors, zeroed } = await openUpper(paths.data, paths.index);
      const pieces = Array.from({ length: count }, (_, i) => [start[i], sectors[i], zeroed[i]]);
      assert.deepEqual(pieces, [
        [2 ** 32 - 1, 2, 1],
        [3 * 2 ** 31 - 8, 16, 0],
        [5 * 2 ** 31 - 1, 1, 0],
      ]);
    };
    await check();
    const again = await openWritableUpper(paths);
    assert.equal(again.shared.sectors.find(3 * 2 ** 31 - 8, 2 ** 31), 16);
    assert.equal(again.shared.sectors.find(0, 5 * 2 ** 31), 2 ** 32 - 1);
    await again.close();
    await check();
  });

  test(
    `${kind}: a full disk is ENOSPC, and keeps what was flushed`,
    { skip: needs('root', 'mount') },
    async (t) => {
      const scratch = scratchOf(t);
      const folder = scratch.path('small');
      mkdirSync(folder);
      execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=1m', 'tmpfs', folder]);
      scratch.atEnd(() => execFileSync('umount', [folder]));
      const paths = pathsIn(folder);
      const upper = await newUpper(paths, kind, 4 * MIB);
      const block = Buffer.alloc(65_536);
      let written = 0;
      const fill = async (): Promise<void> => {
        for (; written < 64; written += 1) {
          await upper.write(written * block.length, block.fill(written + 1));
          await upper.flush();
        }
      };
      await assert.rejects(
        fill(),
        (error) => error instanceof ReplaybdError && error.errno === 'ENOSPC',
      );
      assert.ok(written > 8 && written < 16);
      await upper.close();
      const { count, sectors, zeroed } = await openUpper(paths.data, paths.index);
      let kept = 0;
      for (let i = 0; i < count; i += 1) kept += zeroed[i] === 0 ? sectors[i] : 0;
      assert.ok(kept >= written * 128);
      await (await openWritableUpper(paths)).close();
    },
  );
}

test('a disk that is larger than any that we write is refused', async (t) => {
  const paths = pathsIn(testFolder(t));
  for (const size of [0, 100, upperLimits.virtualSizeBytesMax + 512]) {
    await assert.rejects(newUpper(paths, 'append', size), { code: 'ERR_UPPER_SIZE' });
  }
});

test('any log opens to sorted entries inside the data, or is refused', async (t) => {
  const paths = pathsIn(testFolder(t));
  const upper = await newUpper(paths, 'append', MIB);
  for (let lba = 0; lba < 64; lba += 1) await upper.write(lba * 1024, sector);
  await upper.close();
  const good = readFileSync(paths.index);
  const dataSectors = 8 + 64;
  const change = fc.tuple(fc.integer({ min: 4096, max: good.length - 1 }), fc.nat(255));
  const changes = fc.array(change, { minLength: 1, maxLength: 6 });
  await fc.assert(
    fc.asyncProperty(changes, fc.nat(40), async (list, cut) => {
      const bytes = Buffer.from(good);
      for (const [at, value] of list) bytes[at] = value;
      writeFileSync(paths.index, bytes.subarray(0, bytes.length - cut));
      try {
        const { count, start, sectors, mapped, zeroed } = await openUpper(paths.data, paths.index);
        let end = 0;
        for (let i = 0; i < count; i += 1) {
          assert.ok(start[i] >= end && sectors[i] > 0 && mapped[i] >= 8);
          assert.ok(mapped[i] + (zeroed[i] === 1 ? 0 : sectors[i]) <= dataSectors);
          end = start[i] + sectors[i];
        }
      } catch (error) {
        assert.ok(error instanceof ReplaybdError, String(error));
      }
    }),
    { numRuns: 300 },
  );
  writeFileSync(paths.index, good);
  await digestOfUpper(paths);
});
