// Goal: inodes and directory blocks are laid out as ext4 has them.
// Method: decode known values at the byte offsets the kernel documents, and parse directory blocks of
// random names back.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { directoryBlockCount, directoryBlocks } from '../../src/image/ext4/directory-blocks.ts';
import { encodeInode } from '../../src/image/ext4/inode.ts';
import { defaultInodeCount, defaultVirtualSizeBytes } from '../../src/image/ext4/scan.ts';

const plain = { mode: 0o100644, uid: 0, gid: 0, mtimeNs: 0n };

test('times have 34 bits of seconds and nanoseconds', () => {
  // Seconds since 1970, nanoseconds, then what the two words hold.
  const cases: [bigint, bigint, number, number][] = [
    [0n, 0n, 0, 0],
    [1n, 999_999_999n, 1, 999_999_999 * 4],
    [-1n, 5n, -1, 5 * 4],
    [-(2n ** 31n), 0n, -(2 ** 31), 0],
    [2n ** 31n, 0n, -(2 ** 31), 1],
    [2n ** 32n, 7n, 0, 7 * 4 + 1],
    [2n ** 34n - 2n ** 31n - 1n, 0n, 2 ** 31 - 1, 3],
    [2n ** 40n, 0n, 2 ** 31 - 1, 3],
    [-(2n ** 40n), 0n, -(2 ** 31), 0],
  ];
  for (const [seconds, nanoseconds, low, extra] of cases) {
    const mtimeNs = seconds * 1_000_000_000n + nanoseconds;
    const inode = encodeInode({ ...plain, mtimeNs }, 1, { kind: 'none' });
    assert.deepEqual([inode.readInt32LE(16), inode.readUInt32LE(136)], [low, extra], `${seconds}`);
    // atime, ctime and birth are the same.
    for (const [at, extraAt] of [
      [8, 140],
      [12, 132],
      [144, 148],
    ]) {
      assert.deepEqual([inode.readInt32LE(at), inode.readUInt32LE(extraAt)], [low, extra]);
    }
  }
});

test('owners have 32 bits', () => {
  const inode = encodeInode({ ...plain, uid: 0x89abcdef, gid: 0xfffffffe }, 1, { kind: 'none' });
  assert.equal(inode.readUInt16LE(2) + inode.readUInt16LE(120) * 65_536, 0x89abcdef);
  assert.equal(inode.readUInt16LE(24) + inode.readUInt16LE(122) * 65_536, 0xfffffffe);
});

test('device numbers take the old form where they fit', () => {
  const words = (major: number, minor: number) => {
    const inode = encodeInode(plain, 1, { kind: 'device', major, minor });
    return [inode.readUInt32LE(40), inode.readUInt32LE(44)];
  };
  assert.deepEqual(words(1, 3), [0x103, 0]);
  assert.deepEqual(words(259, 70_000), [0, 0x11110370]);
  assert.deepEqual(words(0xfff, 0xfffff), [0, 0xffffffff]);
});

test('directory blocks parse back to the same entries, in as many blocks as foreseen', () => {
  const names = fc.uniqueArray(fc.uint8Array({ minLength: 1, maxLength: 255 }), {
    maxLength: 200,
    selector: (name) => Buffer.from(name).toString('hex'),
  });
  fc.assert(
    fc.property(names, (list) => {
      const entries = list.map((name, index) => ({
        name: Buffer.from(name),
        inode: index + 20,
        fileType: (index % 7) + 1,
      }));
      const blocks = [...directoryBlocks(12, 2, entries)];
      assert.equal(blocks.length, directoryBlockCount(entries.map(({ name }) => name)));
      const [self, parent, ...rest] = blocks.flatMap(parseBlock);
      assert.deepEqual(self, { name: Buffer.from('.'), inode: 12, fileType: 2 });
      assert.deepEqual(parent, { name: Buffer.from('..'), inode: 2, fileType: 2 });
      assert.deepEqual(rest, entries);
    }),
    { numRuns: 50 },
  );
});

test('the default virtual size is a quarter more, and 64 MiB, in steps of 64 MiB', () => {
  const mib = 1024 * 1024;
  const sizeOf = (bytes: number, entries: number, inodeCount?: number): number =>
    defaultVirtualSizeBytes({ bytes, entries }, inodeCount) / mib;
  const sizes = [0, 100, 153.6, 154, 1000].map((size) => sizeOf(size * mib, 100));
  assert.deepEqual(sizes, [256, 256, 256, 320, 1344]);
});

test('a disk of many small files is as large as the inodes for them need', () => {
  const mib = 1024 * 1024;
  const size = { bytes: 100 * mib, entries: 100_000 };
  const bytes = defaultVirtualSizeBytes(size);
  assert.equal(bytes, 1984 * mib);
  assert.ok(defaultInodeCount(bytes, size.entries) >= 125_000);
  assert.equal(defaultInodeCount(bytes, size.entries), defaultInodeCount(bytes));
  // A smaller disk, which somebody wants, has as many as they need.
  assert.equal(defaultInodeCount(256 * mib, size.entries), 126_024);
  assert.equal(defaultInodeCount(256 * mib, 16_384 - 11), 16_384);
  // Somebody else takes care of the inodes.
  assert.equal(defaultVirtualSizeBytes(size, 150_000), 256 * mib);
});

function parseBlock(block: Buffer): { name: Buffer; inode: number; fileType: number }[] {
  const entries = [];
  let at = 0;
  while (at < 4084) {
    const length = block.readUInt8(at + 6);
    const name = Buffer.from(block.subarray(at + 8, at + 8 + length));
    entries.push({ name, inode: block.readUInt32LE(at), fileType: block.readUInt8(at + 7) });
    const bytes = block.readUInt16LE(at + 4);
    assert(bytes >= 8 + length && bytes % 4 === 0);
    at += bytes;
  }
  assert.equal(at, 4084, 'entries end where the checksum begins');
  assert.equal(block.subarray(4084, 4092).toString('hex'), '000000000c0000de');
  return entries;
}
