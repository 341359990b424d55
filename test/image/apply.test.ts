// Goal: a layer's tar is laid over an ext4 image as OCI has it, nothing else changes, and the file
// system stays clean.
// Method: small layers for each rule, read back with debugfs. e2fsck looks at every image.
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { copyFileSync, mkdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import fc from 'fast-check';
import { codeOf } from '../../src/base/errors.ts';
import { applyLayer } from '../../src/image/apply/apply-layer.ts';
import {
  apply,
  baseTar,
  chunksOf,
  debugfs,
  emptyImage,
  file,
  folder,
  imageOf,
  MIB,
  namesIn,
  refused,
  upperTar,
  whiteout,
} from './apply-support.ts';
import { checkWithE2fsck, needsRoot, noise, temporaryFolder } from './ext4-tree.ts';
import { seal, tarOf, type TestEntry } from './tar-builder.ts';

test('directories merge, files replace, and the last of two entries counts', async (context) => {
  const image = await imageOf(
    context,
    [
      ...[folder('d/'), file('d/kept'), file('d/replaced', 'old'), folder('was-dir/deep/er/')],
      ...[file('was-dir/deep/file'), file('was-file'), { ...folder('d/inner/'), uid: 7 }],
    ],
    [
      ...[
        { ...folder('d/'), uid: 1000, mode: 0o700 },
        file('d/replaced', 'first'),
        file('was-dir'),
      ],
      ...[folder('was-file'), file('was-file/new'), file('d/replaced', 'last'), file('new/sub/x')],
    ],
  );
  assert.deepEqual(namesIn(image, '/'), ['d', 'new', 'was-dir', 'was-file']);
  assert.deepEqual(namesIn(image, '/d'), ['inner', 'kept', 'replaced']);
  assert.deepEqual(namesIn(image, '/was-file'), ['new']);
  assert.equal(debugfs(image, 'cat /d/replaced'), 'last');
  assert.equal(debugfs(image, 'cat /was-dir'), 'was-dir');
  assert.match(debugfs(image, 'stat /d'), /Mode: +0700 [^]*User: +1000 /);
  assert.match(debugfs(image, 'stat /d/inner'), /User: +7 /);
  // Missing folders are made, as a root's umask would have them, without a date of the day.
  assert.match(debugfs(image, 'stat /new/sub'), /Mode: +0755 [^]*mtime: 0x00000000:/);
});

for (const isFirst of [true, false]) {
  const order = isFirst ? 'first' : 'last';
  test(`whiteouts hide what lower layers have, when they come ${order}`, async (context) => {
    const marks = [
      ...[whiteout('.wh.gone'), whiteout('.wh.tree'), whiteout('opaque/.wh..wh..opq')],
      ...[whiteout('.wh.back'), whiteout('.wh.nothing'), whiteout('no/such/.wh.folder')],
      whiteout('implied/.wh.sub'),
    ];
    const entries = [
      ...[file('opaque/new'), folder('opaque/kept/'), file('back', 'new'), folder('tree/')],
      ...[file('tree/new'), file('implied/sub/new')],
    ];
    const image = await imageOf(
      context,
      [
        ...[file('gone'), folder('tree/'), file('tree/old'), file('tree/deep/old'), file('stays')],
        ...[file('opaque/old'), file('opaque/kept/old'), file('back', 'old')],
        ...[{ ...folder('implied/sub/'), uid: 9, mode: 0o700 }, file('implied/sub/old')],
      ],
      isFirst ? [...marks, ...entries] : [...entries, ...marks],
    );
    const present = ['back', 'implied', 'opaque', 'stays', 'tree'];
    assert.deepEqual(namesIn(image, '/'), present);
    assert.deepEqual(namesIn(image, '/opaque'), ['kept', 'new']);
    assert.deepEqual(namesIn(image, '/opaque/kept'), []);
    assert.deepEqual(namesIn(image, '/tree'), ['new']);
    assert.deepEqual(namesIn(image, '/implied/sub'), ['new']);
    assert.match(debugfs(image, 'stat /implied/sub'), /Mode: +0755 [^]*User: +0 /);
    assert.equal(debugfs(image, 'cat /back'), 'new');
  });
}

test('hard links: to files of the layer, of lower layers, to links, to oneself', async (context) => {
  const link = (path: string, linkTarget: string): TestEntry => ({ path, flag: '1', linkTarget });
  const image = await imageOf(
    context,
    [file('lower'), file('d/inner'), { path: 'way', flag: '2', linkTarget: 'd' }],
    [
      ...[link('a', 'lower'), link('b', '/a'), link('c', './way/inner'), link('a', 'a')],
      ...[
        link('way2', 'way'),
        whiteout('.wh.lower'),
        file('new'),
        link('new2', 'new'),
        file('new'),
      ],
    ],
  );
  assert.match(debugfs(image, 'stat /a'), /Links: 2 /);
  assert.equal(debugfs(image, 'cat /b'), 'lower');
  assert.equal(debugfs(image, 'cat /c'), 'd/inner');
  assert.match(debugfs(image, 'stat /way2'), /Type: symlink[^]*Links: 2 /);
  assert.match(debugfs(image, 'stat /new2'), /Links: 1 /);
});

test('folders that are symbolic links are followed inside the image', async (context) => {
  const link = (path: string, linkTarget: string): TestEntry => ({ path, flag: '2', linkTarget });
  const long = `/${'./'.repeat(40)}usr/bin`;
  const image = await imageOf(
    context,
    [
      folder('usr/bin/'),
      link('bin', 'usr/bin'),
      link('long', long),
      link('out', '../../../../usr'),
    ],
    [
      ...[file('bin/a'), file('long/b'), file('out/bin/c'), link('new', '/made/here')],
      ...[file('new/d'), whiteout('bin/.wh.nothing'), link('usr/self', '../usr/../usr')],
      file('usr/self/bin/e'),
    ],
    [whiteout('bin/.wh.a'), whiteout('out/bin/.wh.c')],
  );
  assert.deepEqual(namesIn(image, '/usr/bin'), ['b', 'e']);
  assert.deepEqual(namesIn(image, '/made/here'), ['d']);
  const loop = [link('x', 'y'), link('y', 'x'), file('x/z')];
  await refused(image, loop, { code: 'ERR_APPLY_LINK_LOOP', message: /"x\/z".*255/ });
  await refused(image, [file('usr/bin/b/c')], {
    code: 'ERR_APPLY_PARENT',
    message: /"usr\/bin\/b\/c"/,
  });
});

test('hostile layers are refused, and leave the image as it was', async (context) => {
  const image = await imageOf(context, [file('a'), folder('d/')]);
  const pax = (key: string, value: string): [string, string][] => [[key, value]];
  const big = 2 ** 40;
  const cases: [string, TestEntry][] = [
    ['ERR_APPLY_PATH', file('../escape')],
    ['ERR_APPLY_PATH', file('d/../../escape')],
    ['ERR_APPLY_PATH', file('/..')],
    ['ERR_APPLY_PATH', { path: 'x', flag: '1', linkTarget: '../a' }],
    ['ERR_APPLY_PATH', file('')],
    ['ERR_APPLY_PATH', { path: 'x', pax: pax('path', 'n'.repeat(256)) }],
    ['ERR_APPLY_PATH', file('.wh.')],
    ['ERR_APPLY_PATH', file('d/.wh...')],
    ['ERR_APPLY_PATH', file('.wh.x/y')],
    ['ERR_APPLY_LINK', { path: 'x', flag: '1', linkTarget: 'absent' }],
    ['ERR_APPLY_LINK', { path: 'x', flag: '1', linkTarget: 'd' }],
    ['ERR_APPLY_LINK', { path: 'x', flag: '1', linkTarget: '' }],
    ['ERR_APPLY_LINK', { path: 'x', flag: '2', linkTarget: '' }],
    ['ERR_APPLY_LINK', { path: 'x', flag: '2', pax: pax('linkpath', 't'.repeat(4096)) }],
    ['ERR_APPLY_SIZE', { path: 'x', pax: pax('size', String(big)) }],
    [
      'ERR_APPLY_SIZE',
      {
        path: 'x',
        pax: [
          ['GNU.sparse.size', String(2 ** 50)],
          ['GNU.sparse.map', ''],
        ],
      },
    ],
    ['ERR_EXT4_FULL', { path: 'x', content: noise('full', 63 * MIB) }],
    ['ERR_APPLY_XATTR', { path: 'x', pax: pax('SCHILY.xattr.user.x', 'v'.repeat(5000)) }],
    ['ERR_APPLY_XATTR', { ...folder('d'), pax: pax('SCHILY.xattr.user.x', 'v'.repeat(5000)) }],
    ['ERR_APPLY_XATTR', { ...folder('e'), pax: pax('SCHILY.xattr.user.x', 'v'.repeat(5000)) }],
    ['ERR_APPLY_XATTR', { path: 'x', pax: pax('SCHILY.xattr.system.posix_acl_access', 'junk') }],
    ['ERR_TAR_HEADER', { path: 'x', flag: '3', major: 5000 }],
  ];
  for (const [code, entry] of cases) {
    await refused(image, [file('before'), folder('d/new/'), whiteout('.wh.a'), entry], { code });
  }
  // The error comes at the very end.
  const cut = tarOf([file('before'), whiteout('.wh.a')]).subarray(0, -1100);
  await refused(image, cut, { code: 'ERR_TAR_TRUNCATED' });
  assert.deepEqual(namesIn(image, '/'), ['a', 'd']);
});

test('what belongs to AUFS is passed over', async (context) => {
  const image = await imageOf(context, [
    ...[folder('.wh..wh.plnk/'), file('.wh..wh.plnk/1.2'), file('.wh..wh.aufs'), file('real')],
  ]);
  assert.deepEqual(namesIn(image, '/'), ['real']);
});

const littleChange = [file('etc/hostname', 'one'), file('usr/share/new', 'two')];
const sumOf = (ranges: readonly { length: number }[]) =>
  ranges.reduce((sum, { length }) => sum + length, 0);

test('a change of little writes little on a large disk, and no change nothing', async (context) => {
  const image = await emptyImage(temporaryFolder(context), 64 * 1024 * MIB);
  await apply(image, baseTar);
  const nothing = await apply(image, []);
  assert.deepEqual([nothing.dirty, nothing.entries], [[], 0]);
  const { dirty } = await apply(image, littleChange);
  assert(sumOf(dirty) > 0 && sumOf(dirty) <= 64 * 1024, `${sumOf(dirty)} bytes`);
  // The same again changes nothing but the blocks that the files are in.
  const again = await apply(image, [folder('etc/'), whiteout('.wh.nothing')]);
  assert.deepEqual(sumOf(again.dirty), 4096, "etc's date is another");
});

test('all that changes is among what an application says it wrote', async (context) => {
  const scratch = temporaryFolder(context);
  const image = await emptyImage(scratch);
  await apply(image, baseTar);
  const before = join(scratch, 'before');
  copyFileSync(image, before);
  const { dirty } = await apply(image, upperTar);
  assert.deepEqual(
    dirty,
    dirty.toSorted((a, b) => a.offset - b.offset),
  );
  assert(dirty.every(({ offset, length }) => offset % 4096 === 0 && length % 4096 === 0));
  const [older, newer] = [readFileSync(before), readFileSync(image)];
  for (const { offset, length } of dirty) newer.copy(older, offset, offset, offset + length);
  assert(older.equals(newer));
  assert(sumOf(dirty) < 2 * MIB);
});

test('the same layers give the same bytes, however they are cut', async (context) => {
  const scratch = temporaryFolder(context);
  const digests = new Set<string>();
  for (const chunkBytes of [MIB, 4097]) {
    const image = await emptyImage(scratch);
    await apply(image, baseTar, chunkBytes);
    await apply(image, upperTar, chunkBytes);
    digests.add(createHash('sha256').update(readFileSync(image)).digest('hex'));
  }
  assert.equal(digests.size, 1);
});

test('what is removed is free again', async (context) => {
  const image = await emptyImage(temporaryFolder(context));
  const free = () =>
    /Free blocks: +(\d+)[^]*Free inodes: +(\d+)/.exec(debugfs(image, 'stats'))?.slice(1);
  await apply(image, [folder('d/')]);
  const before = free();
  const content = noise('content', 3 * MIB);
  const islands = Buffer.alloc(12 * MIB);
  for (let at = 0; at < islands.length; at += 128 * 1024) islands[at] = 1;
  const large: [string, string][] = [['SCHILY.xattr.user.large', 'v'.repeat(3000)]];
  await apply(image, [
    ...[
      { path: 'd/content', content },
      { path: 'd/islands', content: islands },
    ],
    ...[{ path: 'd/xattr', pax: large }, { ...folder('d/e/'), pax: large }, file('d/e/f/g')],
    { path: 'd/long', flag: '2', linkTarget: 't'.repeat(99) },
  ]);
  assert.notDeepEqual(free(), before);
  await apply(image, [whiteout('d/.wh..wh..opq')]);
  assert.deepEqual(free(), before);
});

test('ten thousand files in one folder, added in two layers, some removed', async (context) => {
  const image = await emptyImage(temporaryFolder(context), 256 * MIB);
  const names = Array.from({ length: 10_000 }, (_, index) => `many/file-${index}`);
  await apply(image, [folder('many/'), ...names.slice(0, 5000).map((path) => file(path, ''))]);
  const removed = names.slice(0, 5000).filter((_, index) => index % 3 === 0);
  await apply(image, [
    ...names.slice(5000).map((path) => file(path, '')),
    ...removed.map((path) => whiteout(path.replace('/', '/.wh.'))),
  ]);
  const gone = new Set(removed);
  const expected = names.filter((path) => !gone.has(path)).map((path) => path.slice(5));
  assert.deepEqual(namesIn(image, '/many'), expected.sort());
});

test('a folder with a hash tree is taken apart', { skip: needsRoot }, async (context) => {
  const scratch = temporaryFolder(context);
  const image = await emptyImage(scratch, 256 * MIB);
  const mount = join(scratch, 'mount');
  mkdirSync(mount);
  // The kernel makes one as soon as a folder outgrows its first block.
  execFileSync('mount', ['-o', 'loop', image, mount]);
  try {
    execFileSync('sh', [
      '-c',
      `mkdir ${mount}/many; cd ${mount}/many; seq -f file-%g 2000 | xargs touch`,
    ]);
  } finally {
    execFileSync('umount', [mount]);
  }
  assert.match(debugfs(image, 'htree_dump /many'), /Root node dump/);
  await apply(image, [file('many/new'), whiteout('many/.wh.file-7')]);
  assert.equal(namesIn(image, '/many')?.length, 2000);
  assert(namesIn(image, '/many')?.includes('new'));
});

test('images that cannot take a layer are refused', async (context) => {
  const scratch = temporaryFolder(context);
  const image = await emptyImage(scratch);
  const refuses = async (code: string, change: (path: string) => void) => {
    const copy = join(scratch, 'copy');
    copyFileSync(image, copy);
    change(copy);
    const applied = applyLayer({ imagePath: copy, tar: chunksOf(tarOf([file('a')]), MIB) });
    await assert.rejects(applied, { code }, change.toString());
  };
  const dd = (path: string, at: number, ...bytes: number[]) =>
    execFileSync('dd', [`of=${path}`, 'bs=1', `seek=${at}`, 'conv=notrunc'], {
      input: Buffer.from(bytes),
      stdio: ['pipe', 'ignore', 'ignore'],
    });
  await refuses('ERR_APPLY_NOT_EXT4', (path) => execFileSync('truncate', ['-s', '0', path]));
  await refuses('ERR_APPLY_NOT_EXT4', (path) => dd(path, 1024 + 0x38, 0));
  await refuses('ERR_APPLY_IMAGE', (path) => dd(path, 1024 + 0x3a, 0));
  await refuses('ERR_APPLY_IMAGE', (path) => dd(path, 1024 + 0x3a, 3));
  await refuses('ERR_APPLY_FEATURES', (path) =>
    execFileSync('mke2fs', ['-qF', '-b', '1024', path], { stdio: 'pipe' }),
  );
  await refuses('ERR_APPLY_FEATURES', (path) =>
    execFileSync('mke2fs', ['-qFt', 'ext4', '-b', '4096', '-O', 'inline_data,^has_journal', path], {
      stdio: 'pipe',
    }),
  );
  await refuses('ERR_EXT4_LIBRARY', (path) => dd(path, 1024 + 0x20, 1));
});

test('an aborted layer stops with the signal’s reason', async (context) => {
  const image = await emptyImage(temporaryFolder(context));
  const stop = new AbortController();
  const reason = new Error('enough');
  const applied = applyLayer({
    imagePath: image,
    tar: chunksOf(baseTar, 10_000),
    onProgress: ({ entries }) => entries > 20 && stop.abort(reason),
    signal: stop.signal,
  });
  await assert.rejects(applied, reason);
  checkWithE2fsck(image);
  assert.deepEqual(namesIn(image, '/'), []);
});

test('damaged layers are refused or applied, and leave a clean file system', async (context) => {
  const scratch = temporaryFolder(context);
  const base = await imageOf(context, [folder('d/'), file('d/lower'), file('gone')]);
  const layer = tarOf([
    ...[file('d/a'), folder('e/'), whiteout('.wh.gone'), whiteout('d/.wh..wh..opq')],
    ...[
      { path: 'l', flag: '1', linkTarget: 'd/a' },
      { path: 's', flag: '2', linkTarget: 'd' },
    ],
    { path: 'x', content: noise('x', 700), pax: [['SCHILY.xattr.user.a', 'b']] },
    ...[{ path: 'c', flag: '3', major: 1, minor: 3 }, file('s/through')],
  ]);
  const change = fc.record({ at: fc.nat(layer.length - 1), byte: fc.nat(255) });
  await fc.assert(
    fc.asyncProperty(fc.array(change, { minLength: 1, maxLength: 6 }), async (changes) => {
      const damaged = Buffer.from(layer);
      for (const { at, byte } of changes) {
        damaged[at] = byte;
        seal(damaged.subarray(at - (at % 512), at - (at % 512) + 512));
      }
      const image = join(scratch, 'image');
      copyFileSync(base, image);
      try {
        await applyLayer({ imagePath: image, tar: chunksOf(damaged, 1000) });
      } catch (error) {
        assert.match(codeOf(error), /^ERR_(?:TAR|APPLY|EXT4_FULL)/, String(error));
      }
      checkWithE2fsck(image);
    }),
    { numRuns: 40 },
  );
});
