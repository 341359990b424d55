// Goal: a layer is applied to a device as it is to a file, also when its lowers are still remote, and
// the command line does so from files, FIFOs and standard input.
// Method: the same layers go to a flat file and to writable layers; the disks must be equal. Lowers
// that are fetched on demand make the applying thread wait for the main one.
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import {
  closeSync,
  constants,
  createWriteStream,
  openSync,
  readFileSync,
  writeFileSync,
} from 'node:fs';
import { pipeline } from 'node:stream/promises';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { gzipSync, zstdCompressSync } from 'node:zlib';
import { codeOf } from '../../src/base/errors.ts';
import { applyLayer } from '../../src/image/apply/apply-layer.ts';
import { applyToDevice } from '../../src/device/apply/apply-to-device.ts';
import { changedExtents } from '../../src/image/build/changed-extents.ts';
import { createExt4 } from '../../src/image/ext4/build.ts';
import { createUpper } from '../../src/image/lsmt/create-upper.ts';
import { openWritableUpper } from '../../src/image/lsmt/writable-upper.ts';
import type { UpperKind } from '../../src/image/lsmt/upper-map.ts';
import type { LsmtExtent } from '../../src/image/lsmt/writer.ts';
import { openStack } from '../../src/image/stack.ts';
import { baseTar, chunksOf, upperTar } from '../image/apply-support.ts';
import { checkWithE2fsck } from '../image/ext4-tree.ts';
import { tarOf } from '../image/tar-builder.ts';
import { cli, cliJson, cliOutput, CliProcess } from '../support/cli.ts';
import { scratchOf, type Scratch } from '../support/scratch.ts';
import { lazyLayer, writableDevice } from './writable-support.ts';

const MIB = 1024 * 1024;
const DISK_BYTES = 64 * MIB;
const digestOf = (bytes: Buffer) => `sha256:${createHash('sha256').update(bytes).digest('hex')}`;

/** A flat image with these layers. */
async function flatImage(path: string, ...tars: Buffer[]): Promise<string> {
  writeFileSync(path, '');
  await createExt4(path, { virtualSizeBytes: DISK_BYTES });
  for (const tar of tars) await applyLayer({ imagePath: path, tar: chunksOf(tar, MIB) });
  return path;
}

async function extentsOf(path: string, sizeBytes: number): Promise<LsmtExtent[]> {
  const fd = openSync(path, 'r');
  try {
    const extents: LsmtExtent[] = [];
    for await (const extent of changedExtents({ fd, path }, null, sizeBytes)) {
      extents.push(extent.zeroed ? extent : { ...extent, data: Buffer.from(extent.data) });
    }
    return extents;
  } finally {
    closeSync(fd);
  }
}

for (const kind of ['append', 'sparse'] as const) {
  test(`a layer goes to a ${kind} layer over one that is fetched on demand`, async (t) => {
    const scratch = scratchOf(t);
    const sizeBytes = DISK_BYTES;
    const flat = await flatImage(scratch.path('flat'), baseTar);
    const blob = await lazyLayer(await extentsOf(flat, sizeBytes), sizeBytes);
    const stack = await openStack([blob]);
    const paths = { data: scratch.path('data'), index: scratch.path('index') };
    await createUpper({ ...paths, kind, virtualSizeBytes: sizeBytes });
    const device = writableDevice(stack, await openWritableUpper(paths));
    scratch.atEnd(() => device.close());
    writeFileSync(scratch.path('upper.tar.zst'), zstdCompressSync(upperTar));

    const wrong = applyToDevice(device, {
      input: scratch.path('upper.tar.zst'),
      checksum: digestOf(baseTar),
    });
    await assert.rejects(wrong, { code: 'ERR_TAR_CHECKSUM' });
    const applied = await applyToDevice(device, {
      input: scratch.path('upper.tar.zst'),
      checksum: digestOf(upperTar),
    });
    assert.deepEqual([applied.entries, applied.bytes], [17, 300_034]);
    const onFlat = await applyLayer({ imagePath: flat, tar: chunksOf(upperTar, MIB) });
    assert.deepEqual(applied.dirty, onFlat.dirty);

    const disk = Buffer.alloc(sizeBytes);
    for (let at = 0; at < sizeBytes; at += MIB) {
      await device.read(at, disk.subarray(at, at + MIB));
    }
    assert(disk.equals(readFileSync(flat)), 'both disks are the same');
  });
}

test('what fails on the main thread ends the layer', async (t) => {
  const scratch = scratchOf(t);
  const sizeBytes = DISK_BYTES;
  const flat = await flatImage(scratch.path('flat'), baseTar);
  const blob = await lazyLayer(await extentsOf(flat, sizeBytes), sizeBytes);
  const stack = await openStack([blob]);
  const paths = { data: scratch.path('data'), index: scratch.path('index') };
  await createUpper({ ...paths, kind: 'append', virtualSizeBytes: sizeBytes });
  const device = writableDevice(stack, await openWritableUpper(paths));
  scratch.atEnd(() => device.close());
  writeFileSync(scratch.path('x.tar'), upperTar);
  blob.ensure = async () => {
    await Promise.resolve();
    throw new Error('the registry is gone');
  };
  const failed = applyToDevice(device, { input: scratch.path('x.tar') });
  await assert.rejects(failed, { message: /the registry is gone/ });
  assert(device.upper.isEmpty, 'nothing was written');
});

/** A writable layer without lowers, and its configuration. */
async function emptyUpper(scratch: Scratch, kind: UpperKind): Promise<string> {
  const [data, index] = [scratch.path('data'), scratch.path('index')];
  await createUpper({ data, index, kind, virtualSizeBytes: DISK_BYTES });
  const config = scratch.path('config.v1.json');
  const upper = { data, index };
  writeFileSync(config, JSON.stringify({ repoBlobUrl: '', lowers: [], upper, resultFile: '' }));
  return config;
}

async function exported(scratch: Scratch, config: string): Promise<string> {
  const path = scratch.path('exported');
  await cliOutput(scratch, ['export', '--force', config, path]);
  return path;
}

test('from the command line: a file, a FIFO and standard input, and a disk as it is', async (t) => {
  const scratch = scratchOf(t);
  const config = await emptyUpper(scratch, 'append');
  const tarPath = scratch.path('base.tar');
  writeFileSync(tarPath, baseTar);
  const first = await cliJson<{ entries: number; bytes: number; seconds: number }>(scratch, [
    ...['apply', '--mkfs', '--checksum', digestOf(baseTar), tarPath, config],
  ]);
  assert.deepEqual([first.entries, first.bytes], [204, 2_088_321]);
  assert(first.seconds > 0);

  const fifo = scratch.path('fifo');
  execFileSync('mkfifo', [fifo]);
  const applying = cliOutput(scratch, ['apply', fifo, config]);
  await pipeline([gzipSync(upperTar)], createWriteStream(fifo));
  assert.match(await applying, /^applied 17 entries, 293\.0 KiB in /);

  const flat = await flatImage(scratch.path('flat'), baseTar, upperTar);
  execFileSync('cmp', [await exported(scratch, config), flat]);
  checkWithE2fsck(flat);

  // The layer is not there any more after another disk was put in its place.
  const otherTar = tarOf([{ path: 'other', content: 'disk' }]);
  const small = await flatImage(scratch.path('small'), otherTar);
  await cliOutput(scratch, ['apply', '--raw', small, config]);
  execFileSync('cmp', [await exported(scratch, config), small]);
  const shell = `cat "$0" | "$@"`;
  const through = ['sh', '-c', shell, tarPath];
  await cliOutput(scratch, ['apply', '-', config], { through });
  await cliOutput(scratch, ['apply', '--mkfs', '-', config], { through });
  const again = await flatImage(scratch.path('again'), baseTar);
  execFileSync('cmp', [await exported(scratch, config), again]);
});

test('the command line refuses what cannot be', async (t) => {
  const scratch = scratchOf(t);
  const config = await emptyUpper(scratch, 'sparse');
  const tarPath = scratch.path('base.tar');
  writeFileSync(tarPath, baseTar);
  const refused = async (expected: RegExp, ...args: string[]) => {
    const { code, stderr } = await cli(scratch, ['apply', ...args]);
    assert.match(stderr, expected);
    return code;
  };
  assert.equal(await refused(/ERR_APPLY_NOT_EXT4/, tarPath, config), 1);
  assert.equal(await refused(/ERR_INPUT_READ/, '--mkfs', scratch.path('absent'), config), 1);
  assert.equal(await refused(/ERR_APPLY_NOT_EXT4/, tarPath, config), 1, 'it made none before');
  assert.equal(await refused(/sha256:/, '--checksum', 'md5:1', tarPath, config), 2);
  assert.equal(await refused(/--raw goes with/, '--raw', '--mkfs', tarPath, config), 2);
  assert.equal(
    await refused(/ERR_TAR_CHECKSUM/, '--mkfs', '--checksum', digestOf(upperTar), tarPath, config),
    1,
  );
  // The file system was made; the layer is not in it.
  checkWithE2fsck(await exported(scratch, config));
  const large = scratch.path('large');
  execFileSync('truncate', ['-s', String(DISK_BYTES + 4096), large]);
  assert.equal(await refused(/ERR_APPLY_SIZE/, '--raw', large, config), 1);
  writeFileSync(config, JSON.stringify({ repoBlobUrl: '', lowers: [{ file: tarPath }] }));
  assert.equal(await refused(/ERR_APPLY_UPPER/, tarPath, config), 1);
});

/** Opens a FIFO for writing as soon as somebody reads it. */
async function openForReaders(fifo: string): Promise<number> {
  for (;;) {
    try {
      return openSync(fifo, constants.O_WRONLY | constants.O_NONBLOCK);
    } catch (error) {
      assert.equal(codeOf(error), 'ENXIO');
      await sleep(20);
    }
  }
}

test('Ctrl-C ends it while it waits for a FIFO that nobody writes to', async (t) => {
  const scratch = scratchOf(t);
  const config = await emptyUpper(scratch, 'append');
  const fifo = scratch.path('fifo');
  execFileSync('mkfifo', [fifo]);
  const applying = new CliProcess(scratch, ['apply', '--mkfs', fifo, config]);
  const writer = await openForReaders(fifo);
  applying.kill('SIGINT');
  const { code, stderr } = await applying.ended;
  assert.equal(code, 130, stderr);
  assert.match(stderr, /interrupted/);
  closeSync(writer);
  checkWithE2fsck(await exported(scratch, config));
});
