// Goal: the tar reader understands what the usual programs write, refuses what is damaged or hostile
// with an error of its own, and does not care how the bytes are cut into chunks.
// Method: GNU tar writes archives of a tree in each of its formats; hand-made headers reach what it does
// not write; fast-check damages and cuts archives.
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { linkSync, lstatSync, mkdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { promisify } from 'node:util';
import { gzip, zstdCompress } from 'node:zlib';
import fc from 'fast-check';
import { codeOf } from '../../src/base/errors.ts';
import { decompressed } from '../../src/image/tar/decompress.ts';
import type { TarEntry } from '../../src/image/tar/entry.ts';
import { TarReader } from '../../src/image/tar/reader.ts';
import { noise, sparseFile, temporaryFolder } from './ext4-tree.ts';
import { member, padding, paxRecord, seal, tarOf, type TestEntry } from './tar-builder.ts';

interface ReadEntry extends TarEntry {
  /** Its pieces, with what lies between. */
  content: Buffer;
  pieces: number;
}

/** Sparse content is not put together beyond this. */
const CONTENT_BYTES_MAX = 4 * 1024 * 1024;

function readTar(tar: Buffer, chunkBytes = tar.length): ReadEntry[] {
  const entries: ReadEntry[] = [];
  const reader = new TarReader({
    entry(entry) {
      const content = Buffer.alloc(Math.min(entry.sizeBytes, CONTENT_BYTES_MAX));
      entries.push({ ...entry, content, pieces: 0 });
    },
    content(offset, bytes) {
      const entry = entries.at(-1);
      assert(entry !== undefined && bytes.length > 0);
      bytes.copy(entry.content, offset);
      entry.pieces += bytes.length;
    },
    endEntry() {
      const entry = entries.at(-1);
      assert.equal(entry?.pieces, entry?.storedBytes, 'all content came');
    },
  });
  for (let at = 0; at < tar.length; at += chunkBytes) {
    // A copy that is spoilt afterwards: the reader must keep nothing of it.
    const chunk = Buffer.from(tar.subarray(at, at + chunkBytes));
    reader.push(chunk);
    chunk.fill(0xaa);
  }
  reader.end();
  return entries;
}

function makeTree(folder: string): void {
  mkdirSync(join(folder, 'd/e'), { recursive: true });
  writeFileSync(join(folder, 'd/small'), 'hello');
  writeFileSync(join(folder, 'd/empty'), '');
  writeFileSync(join(folder, 'd/e/block'), noise('block', 512));
  writeFileSync(join(folder, 'd/e/large'), noise('large', 100_001));
  linkSync(join(folder, 'd/small'), join(folder, 'd/hard'));
  symlinkSync('../to/nowhere', join(folder, 'd/soft'));
  execFileSync('mkfifo', [join(folder, 'd/fifo')]);
  execFileSync('chmod', ['6755', join(folder, 'd/e/block')]);
  execFileSync('touch', ['-d', '1965-01-02 03:04:05', join(folder, 'd/empty')]);
}

for (const format of ['v7', 'oldgnu', 'gnu', 'ustar', 'posix']) {
  test(`GNU tar's ${format} format`, (context) => {
    const folder = temporaryFolder(context);
    makeTree(folder);
    const isOld = format === 'v7';
    const longName = 'n'.repeat(120);
    if (format === 'gnu' || format === 'posix') {
      writeFileSync(join(folder, 'd', longName), 'long');
      symlinkSync('t'.repeat(150), join(folder, 'd/long-target'));
    }
    if (isOld || format === 'ustar') {
      // Neither can tell of times before 1970, nor of FIFOs the older one.
      execFileSync('touch', ['-d', '1985-01-02 03:04:05', join(folder, 'd/empty')]);
    }
    const exclude = isOld ? ['--exclude=fifo'] : [];
    const tarPath = join(folder, 'x.tar');
    execFileSync('tar', ['-C', folder, `--format=${format}`, ...exclude, '-cf', tarPath, 'd']);
    const entries = readTar(readFileSync(tarPath));
    const listed = execFileSync('tar', ['-tf', tarPath]).toString().trim().split('\n');
    assert.deepEqual(
      entries.map(({ path }) => path),
      listed,
    );
    for (const entry of entries) {
      const stats = lstatSync(join(folder, entry.path), { bigint: true });
      if (entry.type === 'link') {
        assert.match(`${entry.path} ${entry.linkTarget}`, /^d\/(?:small d\/hard|hard d\/small)$/);
        continue;
      }
      const ns = format === 'posix' ? stats.mtimeNs : stats.mtimeNs - (stats.mtimeNs % 10n ** 9n);
      assert.equal(entry.mtimeNs, ns, entry.path);
      assert.equal(entry.mode, Number(stats.mode) & 0o7777, entry.path);
      if (entry.type === 'file') {
        assert.deepEqual(entry.content, readFileSync(join(folder, entry.path)), entry.path);
      }
    }
    const types = new Set(entries.map(({ type }) => type));
    assert(types.has('symlink') && types.has('link') && types.has('directory'));
    assert.equal(types.has('fifo'), !isOld);
  });
}

test("GNU tar's four sparse formats", (context) => {
  const folder = temporaryFolder(context);
  // More ranges than a header and one extension block hold.
  const offsets = Array.from({ length: 40 }, (_, index) => index * 70_000);
  sparseFile(join(folder, 'holes'), 3_000_000, offsets);
  sparseFile(join(folder, 'all-hole'), 1_000_000, []);
  const digest = (bytes: Buffer) => createHash('sha256').update(bytes).digest('hex');
  for (const format of [
    ['--format=gnu'],
    ...['0.0', '0.1', '1.0'].map((version) => ['--format=posix', `--sparse-version=${version}`]),
  ]) {
    const tarPath = join(folder, 'x.tar');
    execFileSync('tar', ['-C', folder, ...format, '-Scf', tarPath, 'holes', 'all-hole']);
    for (const chunkBytes of [1 << 20, 100]) {
      const [holes, allHole] = readTar(readFileSync(tarPath), chunkBytes);
      assert.equal(holes?.path, 'holes');
      assert(holes.storedBytes < 200_000, format.join(' '));
      assert.equal(digest(holes.content), digest(readFileSync(join(folder, 'holes'))));
      assert.deepEqual([allHole?.path, allHole?.sizeBytes], ['all-hole', 1_000_000]);
      assert.equal(allHole?.storedBytes, 0);
    }
  }
});

test('pax headers say more than the header', () => {
  const value = Buffer.from([0, 1, 0xff, 0x0a, 0x3d]);
  const tar = tarOf([
    {
      path: 'g',
      flag: 'g',
      content: Buffer.concat([paxRecord('uid', '7'), paxRecord('comment', 'x')]),
    },
    {
      path: 'short',
      content: 'abc',
      pax: [
        ...[
          ['path', 'long/ü'],
          ['uid', '3000000'],
          ['gid', '4294967295'],
        ],
        ...[
          ['mtime', '-1.5'],
          ['hdrcharset', 'BINARY'],
          ['size', '3'],
        ],
      ] as [string, string][],
    },
    { path: 'next', pax: [['mtime', '1700000000.1234567899']] },
    {
      path: 'x',
      pax: [
        ['SCHILY.xattr.user.a=b', ''],
        ['SCHILY.xattr.security.capability', value],
      ],
    },
    { path: 'y', pax: [['LIBARCHIVE.xattr.user.p%3Dq', 'AAH/']] },
    {
      path: 'd',
      flag: '3',
      pax: [
        ['SCHILY.devmajor', '4095'],
        ['SCHILY.devminor', '1048575'],
      ],
    },
    {
      path: 'z',
      pax: [
        ['uid', '9'],
        ['uid', ''],
      ],
      uid: 5,
    },
  ]);
  for (const chunkBytes of [tar.length, 1]) {
    const [first, next, x, y, d, z] = readTar(tar, chunkBytes);
    assert.equal(first?.path, Buffer.from('long/ü').toString('latin1'));
    assert.deepEqual(
      [first.uid, first.gid, first.mtimeNs],
      [3_000_000, 4294967295, -1_500_000_000n],
    );
    assert.deepEqual([next?.uid, next?.mtimeNs], [7, 1_700_000_000_123_456_789n]);
    assert.deepEqual(x?.attributes[0]?.name.toString(), 'user.a');
    assert.deepEqual(x?.attributes[1]?.value, value);
    assert.deepEqual(y?.attributes, [
      { name: Buffer.from('user.p=q'), value: Buffer.of(0, 1, 255) },
    ]);
    assert.deepEqual(d?.device, { major: 4095, minor: 1_048_575 });
    assert.equal(z?.uid, 5, 'an empty value takes back');
  }
});

test('numbers beyond octal, prefixes, old directories', () => {
  const base256 = (value: bigint, at: number, bytes: number) => (header: Buffer) => {
    for (let index = 0; index < bytes; index += 1) {
      header[at + bytes - 1 - index] = Number((value >> BigInt(8 * index)) & 0xffn);
    }
    header[at] = (header[at] ?? 0) | 0x80;
  };
  const [uid, mtime, prefix, star, old] = readTar(
    tarOf([
      { path: 'uid', change: base256(4_000_000_000n, 108, 8), magic: 'ustar  \0' },
      { path: 'mtime', change: base256(-86_400n, 136, 12), magic: 'ustar  \0' },
      { path: 'name', change: (header) => header.write('a/b', 345) },
      { path: 'name', change: (header) => header.write('c', 345) && header.write('tar\0', 508) },
      { path: 'old/', flag: '\0', magic: '' },
    ]),
  );
  assert.equal(uid?.uid, 4_000_000_000);
  assert.equal(mtime?.mtimeNs, -86_400n * 10n ** 9n);
  assert.deepEqual([prefix?.path, star?.path], ['a/b/name', 'c/name']);
  assert.deepEqual([old?.path, old?.type], ['old/', 'directory']);
});

test('signed checksums are taken, others are not', () => {
  const tar = tarOf([{ path: 'ü' }]);
  const header = tar.subarray(0, 512);
  header.fill(' ', 148, 156);
  const sum = header.reduce((total, byte) => total + ((byte << 24) >> 24), 0);
  header.write(`${sum.toString(8).padStart(6, '0')}\0 `, 148, 'latin1');
  assert.equal(readTar(tar).length, 1);
  header.write('7', 148);
  assert.throws(() => readTar(tar), { code: 'ERR_TAR_HEADER' });
});

test('ends: two blocks of zeros, or the end of the input between entries', () => {
  const one = member({ path: 'a', content: 'x' });
  assert.equal(readTar(one).length, 1);
  assert.equal(readTar(Buffer.alloc(0)).length, 0);
  const trailed = Buffer.concat([one, Buffer.alloc(1024), Buffer.from('anything')]);
  assert.equal(readTar(trailed).length, 1);
  const lone = Buffer.concat([one, Buffer.alloc(512), one]);
  assert.throws(() => readTar(lone), { code: 'ERR_TAR_HEADER' });
  const truncated = [one.subarray(0, 100), one.subarray(0, 512), one.subarray(0, 1023)];
  const onlyPax = member({ path: 'a', pax: [['path', 'b']] }).subarray(0, 1024);
  for (const cut of [...truncated, onlyPax, Buffer.concat([one, Buffer.alloc(512)])]) {
    assert.throws(() => readTar(cut), { code: 'ERR_TAR_TRUNCATED' }, `${cut.length} bytes`);
  }
  assert.throws(() => readTar(Buffer.concat([onlyPax, Buffer.alloc(1024)])), {
    code: 'ERR_TAR_HEADER',
  });
});

test('hostile headers are refused by name', () => {
  const pax = (key: string, value: string): TestEntry => ({ path: 'x', pax: [[key, value]] });
  const sparse = (...records: [string, string][]): TestEntry => ({
    path: 'x',
    content: 'abc',
    pax: records,
  });
  const cases: [string, Buffer][] = [
    ['ERR_TAR_TYPE', tarOf([{ path: 'x', flag: 'M' }])],
    ['ERR_TAR_HEADER', tarOf([{ path: 'x', change: (bytes) => bytes.write('9z', 124) }])],
    ['ERR_TAR_HEADER', tarOf([{ path: 'x', change: (bytes) => bytes.fill(0xff, 124, 136) }])],
    ['ERR_TAR_HEADER', tarOf([{ path: 'x', change: (bytes) => bytes.fill(0xbf, 124, 136) }])],
    ['ERR_TAR_HEADER', tarOf([{ path: 'x', flag: '3', major: 0o10000 }])],
    ['ERR_TAR_HEADER', tarOf([{ path: 'x', flag: 'x', size: 2 ** 30 }])],
    ['ERR_TAR_HEADER', tarOf([{ path: 'x', flag: 'L', size: 2 ** 32 }])],
    ['ERR_TAR_HEADER', tarOf([pax('path', 'p/'.repeat(10_000))])],
    ['ERR_TAR_PAX', tarOf([pax('uid', '-1')])],
    ['ERR_TAR_PAX', tarOf([pax('size', '1e3')])],
    ['ERR_TAR_PAX', tarOf([pax('size', '99999999999999999999')])],
    ['ERR_TAR_PAX', tarOf([pax('path', 'a\0b')])],
    ['ERR_TAR_PAX', tarOf([pax('mtime', '1.2.3')])],
    ['ERR_TAR_PAX', tarOf([pax('hdrcharset', 'KOI8-R')])],
    ['ERR_TAR_PAX', tarOf([{ path: 'x', flag: 'g', content: paxRecord('path', 'everything') }])],
    ['ERR_TAR_PAX', tarOf([{ path: 'x', flag: 'g', content: paxRecord('size', '1') }])],
    ['ERR_TAR_PAX', tarOf([{ path: 'x', flag: 'x', content: '999 path=a\n' }])],
    ['ERR_TAR_PAX', tarOf([{ path: 'x', flag: 'x', content: '9 path=abc' }])],
    ['ERR_TAR_PAX', tarOf([{ path: 'x', flag: 'x', content: '0 path=a\n' }])],
    ['ERR_TAR_PAX', tarOf([{ path: 'x', flag: 'x', content: '6 =a=\n' }])],
    ['ERR_TAR_PAX', tarOf([pax(`SCHILY.xattr.user.${'n'.repeat(300)}`, 'v')])],
    ['ERR_TAR_SPARSE', tarOf([sparse(['GNU.sparse.size', '10'], ['GNU.sparse.map', '0,2,9,2'])])],
    ['ERR_TAR_SPARSE', tarOf([sparse(['GNU.sparse.size', '10'], ['GNU.sparse.map', '5,1,0,2'])])],
    ['ERR_TAR_SPARSE', tarOf([sparse(['GNU.sparse.size', '10'], ['GNU.sparse.map', '0,2,1,1'])])],
    ['ERR_TAR_SPARSE', tarOf([sparse(['GNU.sparse.size', '10'], ['GNU.sparse.map', '0,2'])])],
    ['ERR_TAR_SPARSE', tarOf([sparse(['GNU.sparse.size', '10'], ['GNU.sparse.map', '0,4'])])],
    ['ERR_TAR_SPARSE', tarOf([sparse(['GNU.sparse.size', '10'], ['GNU.sparse.map', '0'])])],
    ['ERR_TAR_SPARSE', tarOf([sparse(['GNU.sparse.map', '0,3'])])],
    ['ERR_TAR_SPARSE', tarOf([sparse(['GNU.sparse.major', '2'], ['GNU.sparse.realsize', '9'])])],
    ['ERR_TAR_SPARSE', tarOf([sparse(['GNU.sparse.major', '1'], ['GNU.sparse.realsize', '9'])])],
    ['ERR_TAR_PAX', tarOf([sparse(['GNU.sparse.numbytes', '1'])])],
    ['ERR_TAR_SPARSE', gnuSparse(10, [[0, 20]])],
    [
      'ERR_TAR_SPARSE',
      gnuSparse(2 ** 40, [
        [8, 3],
        [4, 0],
      ]),
    ],
    ['ERR_TAR_SPARSE', contentMap('99999999\n0\n0\n')],
    ['ERR_TAR_SPARSE', contentMap('1\n0\nx\n')],
    ['ERR_TAR_SPARSE', contentMap('1'.repeat(400))],
  ];
  for (const [index, [code, tar]] of cases.entries()) {
    assert.throws(() => readTar(tar), { code }, `case ${index}`);
    assert.throws(() => readTar(tar, 7), { code }, `case ${index}, in small pieces`);
  }
});

function gnuSparse(realSize: number, map: [number, number][]): Buffer {
  return tarOf([
    {
      path: 'x',
      flag: 'S',
      content: 'abc',
      magic: 'ustar  \0',
      change(header) {
        for (const [index, numbers] of map.entries()) {
          const text = numbers.map((value) => `${value.toString(8).padStart(11, '0')}\0`).join('');
          header.write(text, 386 + index * 24, 'latin1');
        }
        header.write(`${realSize.toString(8).padStart(11, '0')}\0`, 483, 'latin1');
      },
    },
  ]);
}

function contentMap(map: string): Buffer {
  const content = Buffer.concat([Buffer.from(map), padding(map.length), Buffer.from('data')]);
  const pax: [string, string][] = [
    ['GNU.sparse.major', '1'],
    ['GNU.sparse.minor', '0'],
    ['GNU.sparse.realsize', '1000000'],
  ];
  return tarOf([{ path: 'x', content, pax }]);
}

test('damaged archives end in an error of the reader, or in entries', () => {
  const base = Buffer.concat([
    member({ path: 'g', flag: 'g', content: paxRecord('gid', '3') }),
    gnuSparse(10, [[0, 3]]).subarray(0, 1024),
    tarOf([
      {
        path: 'long',
        pax: [
          ['path', 'a/b'],
          ['SCHILY.xattr.user.x', 'y'],
        ],
        content: noise('c', 700),
      },
      { path: 'x', flag: 'L', content: 'long-name\0' },
      { path: 'y', content: 'z' },
      { path: 'n', flag: '1', linkTarget: 'y' },
    ]),
  ]);
  const change = fc.record({
    at: fc.nat(base.length - 1),
    byte: fc.nat(255),
    isSealed: fc.boolean(),
  });
  fc.assert(
    fc.property(
      fc.array(change, { maxLength: 8 }),
      fc.integer({ min: 1, max: 2000 }),
      (list, n) => {
        const tar = Buffer.from(base);
        for (const { at, byte, isSealed } of list) {
          tar[at] = byte;
          // Half of them past the checksum, if the block is a header.
          if (isSealed) seal(tar.subarray(at - (at % 512), at - (at % 512) + 512));
        }
        const outcome = (chunkBytes: number) => {
          try {
            return readTar(tar, chunkBytes);
          } catch (error) {
            assert.match(codeOf(error), /^ERR_TAR_/, String(error));
            return codeOf(error);
          }
        };
        assert.deepEqual(outcome(n), outcome(tar.length));
      },
    ),
    { numRuns: 400 },
  );
});

async function* cut(bytes: Buffer, chunkBytes: number): AsyncGenerator<Buffer> {
  await Promise.resolve();
  for (let at = 0; at < bytes.length; at += chunkBytes) yield bytes.subarray(at, at + chunkBytes);
}

async function collect(chunks: AsyncIterable<Uint8Array>): Promise<Buffer> {
  const all: Uint8Array[] = [];
  for await (const chunk of chunks) all.push(Buffer.from(chunk));
  return Buffer.concat(all);
}

test('gzip and zstd are told by their first bytes, also in several members', async () => {
  const plain = tarOf([{ path: 'a', content: noise('a', 30_000) }]);
  const [half, rest] = [plain.subarray(0, 10_000), plain.subarray(10_000)];
  const gz = promisify(gzip);
  const zst = promisify(zstdCompress);
  const skippable = Buffer.from('502a4d180400000061626364', 'hex');
  const forms = {
    plain,
    gzip: await gz(plain),
    zstd: await zst(plain),
    members: Buffer.concat([await gz(half), await gz(rest)]),
    frames: Buffer.concat([skippable, await zst(half), await zst(rest), skippable]),
  };
  for (const [name, bytes] of Object.entries(forms)) {
    for (const chunkBytes of [1 << 20, 1000, 29]) {
      const found = await collect(decompressed(cut(bytes, chunkBytes)));
      assert(found.equals(plain), `${name} in chunks of ${chunkBytes}`);
    }
  }
  for (const bytes of [forms.gzip, forms.zstd, forms.frames.subarray(0, -skippable.length)]) {
    const short = collect(decompressed(cut(bytes.subarray(0, -9), 4096)));
    await assert.rejects(short, { code: 'ERR_TAR_COMPRESSION' });
    const junk = collect(decompressed(cut(Buffer.concat([bytes, Buffer.from('junk!')]), 4096)));
    await assert.rejects(junk, { code: 'ERR_TAR_COMPRESSION' });
  }
  const xz = collect(decompressed(cut(Buffer.from('fd377a585a00', 'hex'), 3)));
  await assert.rejects(xz, { code: 'ERR_TAR_COMPRESSION', message: /xz/ });
});

test("the input's own error comes out, and a reader that stops ends the input", async () => {
  const bytes = await promisify(gzip)(noise('x', 100_000));
  const failing = async function* () {
    yield* cut(bytes.subarray(0, 50_000), 1000);
    throw new Error('the network is gone');
  };
  await assert.rejects(collect(decompressed(failing())), /the network is gone/);
  let isEnded = false;
  const watched = async function* () {
    try {
      yield* cut(bytes, 1000);
    } finally {
      isEnded = true;
    }
  };
  for await (const chunk of decompressed(watched())) {
    assert(chunk.length > 0);
    break;
  }
  assert(isEnded);
});
