import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { constants } from 'node:fs';
import { chmod, open, truncate, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { systemClock } from '../../src/base/clock.ts';
import { silentLogger } from '../../src/base/log.ts';
import { openLocalBlob } from '../../src/blob/local-blob.ts';
import { StackDevice } from '../../src/device/device.ts';
import { createTapMap, TapDrain } from '../../src/device/tap.ts';
import { startFuse } from '../../src/frontend/fuse/fuse-frontend.ts';
import { FileSink } from '../../src/image/byte-sink.ts';
import { writeCommittedLayer } from '../../src/image/lsmt/writer.ts';
import { openStack } from '../../src/image/stack.ts';
import { ZFileWriter } from '../../src/image/zfile/writer.ts';
import { MemoryDisk } from '../../bench/support/fuse-disk.ts';
import {
  atEnd,
  leftovers,
  loopAttribute,
  run,
  serve,
  sha256,
  skipReason,
  temporaryDirectory,
} from './fuse-support.ts';

// Goal: guests read through the file, the loop device and file systems on them exactly the bytes of
// the device, whoever answers, and cannot change a read-only one.
// Method: disks in memory behind a real mount; the kernel's file systems and coreutils as guests.

const MIB = 1024 * 1024;
const sparseFileModule = import.meta.resolve('../../native/sparse-file.ts');

async function readThrough(path: string, ...flags: string[]): Promise<string> {
  return sha256(await run('dd', `if=${path}`, 'bs=1M', 'status=none', ...flags));
}

test('file and loop give the bytes of the disk', { skip: skipReason }, async (context) => {
  const disk = new MemoryDisk('whole', 64 * MIB).fillRandom();
  const frontend = await serve(context, disk);
  const expected = sha256(disk.bytes);
  const { filePath, path } = frontend;
  assert.equal(path, frontend.loopDevice);
  for (const source of [filePath, path]) {
    assert.equal(await readThrough(source, 'iflag=direct'), expected, `${source}, direct`);
    assert.equal(await readThrough(source), expected, `${source}, buffered`);
  }
  assert.equal(loopAttribute(frontend.loopDevice, 'loop/dio'), '1');
  assert.equal(loopAttribute(frontend.loopDevice, 'loop/autoclear'), '1');
  assert.equal(loopAttribute(frontend.loopDevice, 'ro'), '1');
  assert.equal(loopAttribute(frontend.loopDevice, 'loop/backing_file'), filePath);
  assert.deepEqual(disk.calls, [], 'workers answered everything');
});

test('workers read an image by themselves', { skip: skipReason }, async (context) => {
  const data = randomBytes(2 * MIB);
  const path = join(temporaryDirectory(context), 'layer');
  const layer = await open(path, 'wx');
  const zfile = new ZFileWriter(new FileSink(layer));
  const extent = { lba: 2048, sectors: data.length / 512, data };
  await writeCommittedLayer(zfile, { virtualSizeBytes: 4 * MIB }, [extent]);
  await zfile.finish();
  await layer.close();
  const blob = await openLocalBlob(path);
  atEnd(context, () => blob.close());
  const stack = await openStack([blob]);
  const tap = createTapMap(3);
  const misses: number[] = [];
  const device = new StackDevice({
    id: 'image',
    stack,
    shared: { stack: stack.map, tap },
    clock: systemClock,
    log: silentLogger,
    observer: {
      onMiss: (offset) => {
        misses.push(offset);
        return 'demand';
      },
      onMissDone: () => undefined,
    },
  });
  const drain = new TapDrain(tap);
  drain.setEnabled(true);
  const frontend = await startFuse(device, { directory: temporaryDirectory(context) });
  atEnd(context, () => frontend.close());
  const expected = Buffer.concat([Buffer.alloc(MIB), data, Buffer.alloc(MIB)]);
  assert.equal(await readThrough(frontend.path, 'iflag=direct'), sha256(expected));
  let bytes = 0;
  drain.drain((_, __, length) => (bytes += length));
  assert.equal(bytes, 4 * MIB, 'the tap saw every byte once');
  assert.deepEqual(misses, []);
});

test('a size that is no multiple of 4096 works', { skip: skipReason }, async (context) => {
  const disk = new MemoryDisk('odd', 3 * MIB + 512).fillRandom();
  const directory = temporaryDirectory(context);
  const options = { directory, reader: disk.reader, blockBytes: 4096 };
  await assert.rejects(startFuse(disk, options), { code: 'ERR_LOOP_SIZE' });
  assert.deepEqual(leftovers(directory), []);
  const frontend = await serve(context, disk, { directory });
  assert.equal(await readThrough(frontend.filePath), sha256(disk.bytes));
  assert.equal(await readThrough(frontend.path), sha256(disk.bytes));
});

test('the loop device can have blocks of 4096 bytes', { skip: skipReason }, async (context) => {
  const disk = new MemoryDisk('blocks', 4 * MIB).fillRandom();
  const frontend = await serve(context, disk, { blockBytes: 4096, readAheadKiB: 64 });
  assert.equal(loopAttribute(frontend.loopDevice, 'queue/logical_block_size'), '4096');
  assert.equal(loopAttribute(frontend.loopDevice, 'queue/read_ahead_kb'), '64');
  assert.equal(loopAttribute(frontend.loopDevice, 'loop/dio'), '1');
  assert.equal(await readThrough(frontend.path, 'iflag=direct'), sha256(disk.bytes));
});

test('direct reads need no alignment', { skip: skipReason }, async (context) => {
  for (const missBytes of [0, 4096]) {
    const disk = new MemoryDisk(`unaligned-${missBytes}`, MIB, { missBytes }).fillRandom();
    const frontend = await serve(context, disk, { loop: false });
    assert.equal(frontend.loopDevice, null);
    const file = await open(frontend.filePath, constants.O_RDONLY | constants.O_DIRECT);
    try {
      for (const [offset, length] of [
        [1, 1],
        [511, 2],
        [4095, 4098],
        [70_001, 9999],
        [MIB - 3, 99],
      ]) {
        const { buffer, bytesRead } = await file.read(Buffer.alloc(length), 0, length, offset);
        const expected = Buffer.from(disk.bytes.subarray(offset, offset + length));
        assert.ok(expected.equals(buffer.subarray(0, bytesRead)), `${length} bytes at ${offset}`);
      }
    } finally {
      await file.close();
    }
  }
});

test('misses are answered beside hits', { skip: skipReason }, async (context) => {
  const disk = new MemoryDisk('misses', 32 * MIB, { missBytes: 256 * 1024, missMs: 2 });
  const frontend = await serve(context, disk.fillRandom());
  const expected = sha256(disk.bytes);
  const readers = [
    readThrough(frontend.path, 'iflag=direct'),
    readThrough(frontend.filePath),
    readThrough(frontend.path),
    readThrough(frontend.filePath, 'iflag=direct'),
  ];
  assert.deepEqual(
    await Promise.all(readers),
    readers.map(() => expected),
  );
  assert.ok(disk.calls.length >= 64, `${disk.calls.length} misses`);
});

test('a failing miss is the error that the device names', { skip: skipReason }, async (context) => {
  const disk = new MemoryDisk('failing', MIB, { missBytes: 4096 }).fillRandom();
  const frontend = await serve(context, disk, { loop: false });
  disk.failWith('ETIMEDOUT');
  const file = await open(frontend.filePath, constants.O_RDONLY | constants.O_DIRECT);
  try {
    await assert.rejects(file.read(Buffer.alloc(512), 0, 512, 4096), { code: 'ETIMEDOUT' });
    assert.equal((await file.read(Buffer.alloc(512), 0, 512, 0)).bytesRead, 512);
  } finally {
    await file.close();
  }
});

test('a read-only device refuses changes', { skip: skipReason }, async (context) => {
  const disk = new MemoryDisk('read-only', MIB).fillRandom();
  const frontend = await serve(context, disk);
  await assert.rejects(open(frontend.filePath, 'r+'), { code: 'EROFS' });
  await assert.rejects(writeFile(frontend.path, 'x', { flag: 'r+' }), { code: 'EPERM' });
  await assert.rejects(truncate(frontend.filePath, 0), { code: 'EROFS' });
  await assert.rejects(chmod(frontend.filePath, 0o777), { code: 'EROFS' });
  assert.equal(await readThrough(frontend.filePath), sha256(disk.bytes));
});

test('holes are told from data', { skip: skipReason }, async (context) => {
  const disk = new MemoryDisk('holes', 4 * MIB);
  for (const mib of [0, 2]) disk.bytes.fill(0xaa, mib * MIB, (mib + 1) * MIB);
  const frontend = await serve(context, disk, { loop: false });
  // In a process of its own: the thread that answers must not wait for the answer.
  const script =
    `import { openSync } from 'node:fs';` +
    `import { nextDataRange } from ${JSON.stringify(sparseFileModule)};` +
    `const fd = openSync(process.argv[1], 'r');` +
    `console.log(JSON.stringify([0, 5, ${MIB + 7}, ${3 * MIB}].map((from) => nextDataRange(fd, from, ''))));`;
  const arguments_ = ['--input-type=module', '-e', script, frontend.filePath];
  const ranges: unknown = JSON.parse((await run(process.execPath, ...arguments_)).toString());
  assert.deepEqual(ranges, [
    { offset: 0, length: MIB },
    { offset: 5, length: MIB - 5 },
    { offset: 2 * MIB, length: MIB },
    null,
  ]);
});
