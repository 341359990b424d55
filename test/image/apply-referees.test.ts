// Goal: a layer that is applied gives what the original and other tools give.
// Method: the original's fixtures, with the kernel's listing of what it made of them; umoci and the
// kernel's driver for a tree with one of everything. e2fsck looks at every image.
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { exportToFile } from '../../src/image/export.ts';
import { openInput } from '../../src/image/input.ts';
import { needs } from '../support/needs.ts';
import {
  apply,
  baseTar,
  debugfs,
  emptyImage,
  file,
  fixture,
  folder,
  MIB,
  storedBytes,
  upperTar,
  whiteout,
} from './apply-support.ts';
import { describeTree, makeTree, mounted, needsRoot, temporaryFolder } from './ext4-tree.ts';
import { tarOf } from './tar-builder.ts';

/** What the kernel showed of the image that the original made. */
interface ListedFile {
  path: string;
  mode: string;
  uid: number;
  gid: number;
  nlink: number;
  mtime_ns: number;
  size?: number;
  sha256?: string;
  target?: string;
  dev?: [number, number];
  xattrs?: Record<string, string>;
}

function listed(name: string): ListedFile[] {
  return JSON.parse(readFileSync(fixture(name), 'utf8')) as ListedFile[];
}

/** As describeTree, of a listing. What the original leaves out of pax headers is put right. */
function describeListed(files: readonly ListedFile[]): string[] {
  return files.map((item) => {
    const isOf = (path: string) => item.path === path;
    const uid = isOf('etc/biguid') ? 3_000_000 : item.uid;
    const gid = isOf('etc/biguid') ? 2_097_152 : item.gid;
    const mtime = BigInt(Math.round(item.mtime_ns / 1e9)) * 10n ** 9n;
    const xattrs = Object.entries(item.xattrs ?? {}).map(
      ([key, value]) => `${key}=${Buffer.from(value, 'base64').toString('hex')}`,
    );
    const text = isOf('etc/subsec') ? '' : mtime;
    return [
      ...[item.path, Number(item.mode).toString(8), uid, gid, text, item.nlink],
      ...[item.size ?? '', item.sha256 ?? '', item.target ?? '', item.dev?.join(':') ?? ''],
      xattrs.sort().join(),
    ].join(' ');
  });
}

/** describeTree's lines in the form of describeListed. */
function describeMounted(mount: string): string[] {
  return describeTree(mount)
    .slice(1)
    .map((line) => {
      // The whole path was printed as bytes; names of the fixtures have no spaces.
      const [path = '', mode, uid, gid, mtime, nlink, size, rdev, , content, xattrs, target] =
        line.split(' ');
      const name = Buffer.from(path.slice(1), 'latin1').toString();
      const isRegular = content !== '';
      const device = BigInt(rdev ?? 0);
      const isDevice = device > 0n;
      const major = ((device >> 8n) & 0xfffn) | ((device >> 32n) & 0xfffff000n);
      const minor = (device & 0xffn) | ((device >> 12n) & 0xffffff00n);
      return [
        ...[name, mode, uid, gid, name === 'etc/subsec' ? '' : mtime, nlink],
        ...[isRegular ? size : '', content, Buffer.from(target ?? '', 'hex').toString()],
        isDevice ? `${major}:${minor}` : '',
        xattrs,
      ].join(' ');
    });
}

const byText = (a: string, b: string) => Buffer.compare(Buffer.from(a), Buffer.from(b));
const withoutLostFound = (lines: string[]) =>
  lines.filter((line) => !line.startsWith('lost+found ')).sort(byText);

test(
  "the original's layers come out as the kernel lists them",
  { skip: needsRoot },
  async (context) => {
    const image = await emptyImage(temporaryFolder(context));
    for (const [tar, name] of [
      [baseTar, 'layer0.files.json'],
      [upperTar, 'layer1.files.json'],
    ] as const) {
      await apply(image, tar);
      const expected = withoutLostFound(describeListed(listed(name)));
      const found = withoutLostFound(mounted(image, (mount) => describeMounted(mount)));
      assert.deepEqual(found, expected, name);
      assert(found.length > 190);
    }
    assert.match(debugfs(image, 'stat /etc/subsec'), /mtime: 0x\w+:[0-9a-f]{8}/);
  },
);

test('a layer goes onto an image that the original made', { skip: needsRoot }, async (context) => {
  const folderPath = temporaryFolder(context);
  const image = join(folderPath, 'image');
  const input = await openInput([fixture('layer0.lz4-4k.tar')]);
  try {
    await exportToFile(input.source, image, { isDurable: false });
  } finally {
    await input.close();
  }
  // Its free counts are stale, and its lost+found is not to e2fsck's liking: put right first.
  try {
    execFileSync('e2fsck', ['-fy', image], { stdio: 'pipe' });
  } catch (error) {
    assert.equal((error as { status: number }).status, 1, 'e2fsck corrected it');
  }
  await apply(image, upperTar);
  const found = withoutLostFound(mounted(image, (mount) => describeMounted(mount)));
  const expected = withoutLostFound(describeListed(listed('layer1.files.json')));
  // The original took no owners from pax headers.
  const withoutOwner = (lines: string[]) => lines.filter((line) => !line.startsWith('etc/biguid'));
  assert.deepEqual(withoutOwner(found), withoutOwner(expected));
});

test('all of a tree arrives, whatever wrote the tar', { skip: needsRoot }, async (context) => {
  const scratch = temporaryFolder(context);
  const tree = join(scratch, 'tree');
  mkdirSync(tree);
  makeTree(tree);
  // u::rwx,u:1234:rwx,g::r-x,m::rwx,o::--x, as the kernel takes it.
  const acl =
    '0x0200000001000700ffffffff02000700d204000004000500ffffffff10000700ffffffff20000100ffffffff';
  execFileSync('setfattr', ['-n', 'system.posix_acl_access', '-v', acl, join(tree, 'a/hello')]);
  execFileSync('setfattr', ['-n', 'system.posix_acl_default', '-v', acl, join(tree, 'empty')]);
  const tar = join(scratch, 'x.tar');
  const options = ['--format=posix', '--xattrs', '--xattrs-include=*', '--sparse', '-C', tree];
  execFileSync('tar', [...options, '-cf', tar, '.']);
  const image = await emptyImage(scratch, 128 * MIB);
  await apply(image, readFileSync(tar), 100_003);
  const found = mounted(image, (mount) => describeTree(mount));
  const expected = describeTree(tree);
  const isKept = (line: string) => !line.includes('security.selinux');
  assert.deepEqual(found.slice(1).filter(isKept), expected.slice(1).filter(isKept));
  assert(found.some((line) => line.includes('system.posix_acl_default=')));
  // 100 MB of holes, and 131 MB, stayed holes.
  assert(storedBytes(image) < 16 * MIB, `${storedBytes(image)} bytes`);
});

test(
  'umoci unpacks two layers to the same tree',
  { skip: needs('root', 'umoci') },
  async (context) => {
    const scratch = temporaryFolder(context);
    const layout = join(scratch, 'layout');
    const run = (...args: string[]) => execFileSync('umoci', args, { stdio: 'pipe' });
    run('init', '--layout', layout);
    run('new', '--image', `${layout}:x`);
    const image = await emptyImage(scratch);
    const more = tarOf([
      ...[whiteout('.wh.replaced'), file('replaced', 'again'), folder('usr/')],
      ...[whiteout('manyfiles/.wh..wh..opq'), file('manyfiles/only'), whiteout('etc/.wh.conf.d')],
      ...[{ path: 'opaque', flag: '2', linkTarget: 'manyfiles' }, file('opaque/through-the-link')],
      { path: 'hl/third', flag: '1', linkTarget: '/hl/target' },
    ]);
    for (const [index, tar] of [baseTar, upperTar, more].entries()) {
      const path = join(scratch, `${index}.tar`);
      execFileSync('tee', [path], { input: tar, stdio: ['pipe', 'ignore', 'ignore'] });
      run('raw', 'add-layer', '--image', `${layout}:x`, path);
      await apply(image, tar);
    }
    run('unpack', '--keep-dirlinks', '--image', `${layout}:x`, join(scratch, 'bundle'));
    const found = mounted(image, (mount) => describeTree(mount));
    const expected = describeTree(join(scratch, 'bundle/rootfs'));
    assert.deepEqual(comparable(found), comparable(expected));
  },
);

/** umoci dates by the clock what no layer describes, and a folder that a whiteout took a folder from. */
function comparable(lines: readonly string[]): string[] {
  return lines.slice(1).filter((line) => !/^\/(?:hl|etc|etc\/p+(?:\/q+)?) /.test(line));
}
