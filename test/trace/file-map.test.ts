import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import fc from 'fast-check';
import { codeOf } from '../../src/base/errors.ts';
import { SECTOR_BYTES } from '../../src/base/limits.ts';
import { watchedDisk } from '../../src/image/fs/disk.ts';
import { diskRangesOf, sizedExtents } from '../../src/image/fs/file-ranges.ts';
import { openFileSystem } from '../../src/image/fs/open.ts';
import { files, findNode } from '../../src/image/fs/walk.ts';
import { AccessedRanges } from '../../src/trace/accessed-ranges.ts';
import { buildFileMap, type FileMap, type MappedPart } from '../../src/trace/file-map.ts';
import { memoryDisk } from '../image/fs-support.ts';
import { needs } from '../support/needs.ts';
import { Scratch } from '../support/scratch.ts';
import { fileSystems, imageOf, makeFileTree } from './file-map-support.ts';

// Goal: each byte of a disk is told to belong to the file, or the structure, that it belongs to, and
// the other way round; damage is contained.
// Method: real images of one tree; a file's content is put together from the parts that the map gives to
// it; metadata is what the reader of the file system reads; random bytes are changed.

const skip = needs('mke2fs', 'mkfs.erofs');
const scratch = new Scratch();
const images = new Map<string, Buffer>();
let tree = '';

before(() => {
  if (skip !== false) return;
  tree = makeFileTree(scratch);
  for (const name of Object.keys(fileSystems)) images.set(name, imageOf(scratch, tree, name));
});
after(() => scratch.close());

function imageNamed(name: string): Buffer {
  const image = images.get(name);
  assert.ok(image !== undefined);
  return image;
}

function allParts(map: FileMap, sizeBytes: number): MappedPart[] {
  return [...map.parts(0, sizeBytes)];
}

/** The node with a path. */
function find(map: FileMap, path: string): number {
  const wanted = Buffer.from(path);
  for (let node = 0; node < map.nodeCount; node += 1) {
    if (map.node(node).paths.some((one) => one.equals(wanted))) return node;
  }
  return assert.fail(`${path} is not in the map`);
}

function assertPartition(parts: readonly MappedPart[], sizeBytes: number): void {
  let at = 0;
  for (const { offset, length } of parts) {
    assert.equal(offset, at);
    assert.ok(length > 0);
    at += length;
  }
  assert.equal(at, sizeBytes);
}

for (const name of Object.keys(fileSystems)) {
  test(`${name}: the parts of a file are its content`, { skip }, async () => {
    const bytes = imageNamed(name);
    const map = await buildFileMap(memoryDisk(bytes));
    const parts = allParts(map, bytes.length);
    assertPartition(parts, bytes.length);
    assert.deepEqual(map.unmapped, []);
    const fs = await openFileSystem(memoryDisk(bytes));
    for await (const { path, node } of files(fs)) {
      const number = find(map, path.toString());
      const own = parts.filter((part) => part.node === number && part.kind === 'file');
      if (node.isCompressed) {
        // Every byte of the file is in some part, and no part is outside of it.
        const held = own.reduce((sum, { fileLength }) => sum + fileLength, 0);
        assert.ok(held >= node.sizeBytes, `${path.toString()}: ${held} of ${node.sizeBytes}`);
        continue;
      }
      const content = Buffer.alloc(node.sizeBytes);
      for (const { offset, length, fileOffset, fileLength } of own) {
        assert.equal(fileLength, length);
        bytes.copy(content, fileOffset, offset, offset + length);
      }
      const expected = readFileSync(join(tree, path.toString()));
      assert.ok(content.equals(expected), path.toString());
    }
  });

  test(`${name}: a part of a file lies where the map says it does`, { skip }, async () => {
    const bytes = imageNamed(name);
    const fs = await openFileSystem(memoryDisk(bytes));
    const map = await buildFileMap(memoryDisk(bytes));
    const node = await findNode(fs, Buffer.from('size-300001'));
    assert.ok(node !== null);
    const extents = await sizedExtents(node, fs.blockBytes);
    for (const [offset, length] of [
      [0, 1],
      [4096, 4096],
      [100_000, 70_000],
      [299_990, 11],
    ]) {
      const ranges = diskRangesOf(extents, { offset, length }, node.isCompressed);
      const found = ranges.flatMap((range) => [...map.parts(range.offset, range.length)]);
      for (const part of found) assert.equal(part.node, find(map, 'size-300001'));
      const first = Math.min(...found.map(({ fileOffset }) => fileOffset));
      const last = Math.max(...found.map((part) => part.fileOffset + part.fileLength));
      assert.ok(first <= offset && last >= offset + length, `${first} to ${last}`);
      if (!node.isCompressed) assert.equal(last - first, length);
    }
    assert.deepEqual(diskRangesOf(extents, { offset: 2 ** 40, length: 9 }, false), []);
  });

  test(`${name}: what is read to find files is metadata`, { skip }, async () => {
    const bytes = imageNamed(name);
    const map = await buildFileMap(memoryDisk(bytes));
    const kinds = new Set<string>();
    const watched = watchedDisk(memoryDisk(bytes), (offset, length) => {
      const isSuperblock = offset === 1024 && length === 1024;
      if (isSuperblock) return;
      for (const part of map.parts(offset, length)) kinds.add(part.kind);
    });
    const fs = await openFileSystem(watched);
    for await (const { node } of files(fs)) await node.extents();
    // Small content lies in inodes, of whichever file system has room for it there.
    assert.ok(kinds.has(fs.type === 'ext4' ? 'inode table' : 'inode'));
    for (const kind of ['unknown', 'bitmaps', 'journal']) assert.ok(!kinds.has(kind), kind);
  });

  test(`${name}: names of one file are one node`, { skip }, async () => {
    const map = await buildFileMap(memoryDisk(imageNamed(name)));
    const { paths, kind, sizeBytes } = map.node(find(map, 'usr/hard'));
    assert.deepEqual(paths.map(String).sort(), ['size-300001', 'usr/hard']);
    assert.deepEqual([kind, sizeBytes], ['file', 300_001]);
    assert.deepEqual(map.node(0), { ...map.node(0), kind: 'directory', paths: [Buffer.alloc(0)] });
    assert.equal(map.node(find(map, 'long')).kind, 'symlink');
    assert.equal(map.node(find(map, 'usr/lib/deep/with space ✓')).sizeBytes, 9000);
  });

  test(
    `${name}: accesses to one file map that file, by a part of the reads`,
    { skip },
    async () => {
      const bytes = imageNamed(name);
      const wanted = 'usr/lib/deep/with space ✓';
      const accesses: { lba: number; sectors: number }[] = [];
      const access = (offset: number, length: number): void => {
        const lba = Math.floor(offset / SECTOR_BYTES);
        accesses.push({ lba, sectors: Math.ceil((offset + length) / SECTOR_BYTES) - lba });
      };
      const node = await findNode(
        await openFileSystem(watchedDisk(memoryDisk(bytes), access)),
        Buffer.from(wanted),
      );
      assert.ok(node !== null);
      const accessed = new AccessedRanges({
        count: accesses.length,
        lba: Float64Array.from(accesses, ({ lba }) => lba),
        sectors: Uint32Array.from(accesses, ({ sectors }) => sectors),
      });
      const whole = await buildFileMap(memoryDisk(bytes));
      const map = await buildFileMap(memoryDisk(bytes), { accessed });
      assert.ok(map.nodeCount < whole.nodeCount, `${map.nodeCount} of ${whole.nodeCount}`);
      const [{ offset, length }] = await node.extents();
      const [part] = map.parts(offset, length);
      assert.deepEqual([part.node, part.kind], [find(map, wanted), 'file']);
    },
  );

  test(`${name}: any damage is contained`, { skip }, async () => {
    const sound = imageNamed(name);
    const places = Array.from(sound.keys()).filter((at) => at >= 1024 && sound[at] !== 0);
    const change = fc.record({ place: fc.nat(places.length - 1), value: fc.nat(255) });
    await fc.assert(
      fc.asyncProperty(fc.array(change, { minLength: 1, maxLength: 40 }), async (changes) => {
        const bytes = Buffer.from(sound);
        for (const { place, value } of changes) bytes[places[place]] = value;
        try {
          assertPartition(
            allParts(await buildFileMap(memoryDisk(bytes)), bytes.length),
            bytes.length,
          );
        } catch (error) {
          if (!codeOf(error).startsWith('ERR_FS_')) throw error;
        }
      }),
      { numRuns: 60 },
    );
  });
}

test('an interrupted walk ends with the reason', { skip }, async () => {
  const signal = AbortSignal.abort(new Error('stop'));
  const building = buildFileMap(memoryDisk(imageNamed('ext2')), { signal });
  await assert.rejects(building, /stop/);
});
