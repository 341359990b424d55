// Goal: ext4 images hold exactly what their source directory holds, are valid, and are reproducible.
// Method: build images of a tree with one of everything, and let the original tools (e2fsck, dumpe2fs,
// debugfs) and the kernel's own driver tell what is in them.
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import {
  chownSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { addTree, buildExt4, createExt4 } from '../../src/image/ext4/build.ts';
import {
  checkWithE2fsck,
  copyAndTouch,
  describeTree,
  isRoot,
  makeTree,
  mounted,
  needsRoot,
  noise,
  sparseFile,
  temporaryFolder,
} from './ext4-tree.ts';

const MIB = 1024 * 1024;
/** The user without rights. */
const NOBODY = 65_534;

const shared = mkdtempSync(join(tmpdir(), 'replaybd-test-'));
const everything = join(shared, 'everything');
before(() => makeTree(everything));
after(() => rmSync(shared, { recursive: true, force: true }));

async function build(rootfs: string, imagePath: string, virtualSizeBytes?: number): Promise<void> {
  writeFileSync(imagePath, '');
  await buildExt4({ rootfs, imagePath, ...(virtualSizeBytes ? { virtualSizeBytes } : {}) });
}

function debugfs(image: string, command: string): string {
  return execFileSync('debugfs', ['-R', command, image], { stdio: 'pipe' }).toString();
}

function fileSystemFacts(image: string): Map<string, string> {
  const text = execFileSync('dumpe2fs', ['-h', image], { stdio: 'pipe' }).toString();
  const pairs = text.split('\n').map((line) => /^([^:]+):\s*(.*)$/.exec(line));
  return new Map(pairs.flatMap((pair) => (pair === null ? [] : [[pair[1], pair[2]]])));
}

test('a tree with everything becomes a clean file system of the expected kind', async (context) => {
  const folder = temporaryFolder(context);
  const image = join(folder, 'image');
  await build(everything, image);

  checkWithE2fsck(image);
  const facts = fileSystemFacts(image);
  assert.equal(facts.get('Filesystem UUID'), 'bdf7bb2e-c231-43ce-87c2-299792458ef5');
  assert.equal(facts.get('Block size'), '4096');
  assert.equal(facts.get('Inode size'), '256');
  assert.equal(facts.get('Filesystem state'), 'clean');
  const features = facts.get('Filesystem features')?.split(/\s+/) ?? [];
  for (const name of ['extent', '64bit', 'metadata_csum']) assert(features.includes(name), name);
  assert(!features.includes('has_journal'));
  for (const name of ['Filesystem created', 'Last write time', 'Last checked']) {
    assert.equal(new Date(`${facts.get(name)} UTC`).getTime(), 1000, name);
  }
  assert.match(debugfs(image, 'stat /a/hello'), /Mode: +04751 .*\n[^]*Links: 3 /);
  assert.match(debugfs(image, 'stat /lost+found'), /Type: directory/);
  assert.match(debugfs(image, 'stat /l59'), /Fast link dest/);
  // One extent each: content is contiguous.
  assert.match(debugfs(image, 'stat /size-3000001'), /EXTENTS:\n\(0-732\):\d+-\d+\n/);
  // Two blocks, and not 100 MB.
  assert.equal(Number(/Blockcount: (\d+)/.exec(debugfs(image, 'stat /sparse'))?.[1]), 16);
  assert.equal(Number(/Blockcount: (\d+)/.exec(debugfs(image, 'stat /all-hole'))?.[1]), 0);
  assert.equal(Number(/Blockcount: (\d+)/.exec(debugfs(image, 'stat /short-gaps'))?.[1]), 32);
});

test('the kernel sees the source tree in it', { skip: needsRoot }, async (context) => {
  const folder = temporaryFolder(context);
  await build(everything, join(folder, 'image'));
  const found = mounted(join(folder, 'image'), (mount) => describeTree(mount));
  const expected = describeTree(everything);
  // The root directory of the image has one more sub-directory, lost+found.
  const links = (line: string) => Number(line.split(' ')[5]);
  assert.equal(links(found[0]), links(expected[0]) + 1);
  assert.deepEqual(found.slice(1), expected.slice(1));
  assert(expected.length > 1220, 'the walk saw the whole tree');
});

test('equal content gives equal bytes', async (context) => {
  const folder = temporaryFolder(context);
  copyAndTouch(everything, join(folder, 'second'));
  await build(everything, join(folder, 'first.ext4'));
  await build(join(folder, 'second'), join(folder, 'second.ext4'));
  execFileSync('cmp', [join(folder, 'first.ext4'), join(folder, 'second.ext4')]);

  writeFileSync(join(folder, 'second/a/nothing'), 'something');
  await build(join(folder, 'second'), join(folder, 'second.ext4'));
  assert.throws(() =>
    execFileSync('cmp', [join(folder, 'first.ext4'), join(folder, 'second.ext4')]),
  );
});

test('a file of more than 4 GiB keeps its size and its ends', async (context) => {
  const folder = temporaryFolder(context);
  mkdirSync(join(folder, 'root'));
  sparseFile(join(folder, 'root/huge'), 5_000_000_001, [0, 4_999_999_900]);
  const image = join(folder, 'image');
  await build(join(folder, 'root'), image);
  checkWithE2fsck(image);
  const text = debugfs(image, 'stat /huge');
  assert.match(text, /Size: 5000000001\n/);
  assert.match(text, /EXTENTS:\n\(0\):\d+, \(1220703\):\d+\n/);
  const block = Number(/\(1220703\):(\d+)/.exec(text)?.[1]);
  const at = block * 4096 + (4_999_999_900 % 4096);
  assert.equal(
    execFileSync('dd', [`if=${image}`, 'bs=1', `skip=${at}`, 'count=13'], {
      stdio: 'pipe',
    }).toString(),
    'at 4999999900',
  );
});

test('64 GiB of nearly nothing are stored in less than 1 MiB', async (context) => {
  const folder = temporaryFolder(context);
  mkdirSync(join(folder, 'root'));
  const image = join(folder, 'image');
  await build(join(folder, 'root'), image, 64 * 1024 * MIB);
  checkWithE2fsck(image);
  assert.equal(statSync(image).size, 64 * 1024 * MIB);
  assert(statSync(image).blocks * 512 < MIB, `${statSync(image).blocks} sectors`);
});

test('a second tree adds to the first, replaces and merges', async (context) => {
  const folder = temporaryFolder(context);
  const [lower, upper] = [join(folder, 'lower'), join(folder, 'upper')];
  for (const name of ['kept/sub', 'both']) mkdirSync(join(lower, name), { recursive: true });
  writeFileSync(join(lower, 'kept/sub/file'), 'kept');
  writeFileSync(join(lower, 'both/replaced'), noise('large', 2 * MIB));
  symlinkSync('x'.repeat(100), join(lower, 'both/was-link'));
  execFileSync('setfattr', [
    '-n',
    'user.large',
    '-v',
    'v'.repeat(3000),
    join(lower, 'both/replaced'),
  ]);
  execFileSync('setfattr', ['-n', 'user.gone', '-v', '1', join(lower, 'both')]);
  for (const name of ['both/new-folder/deep', 'lost+found']) {
    mkdirSync(join(upper, name), { recursive: true });
  }
  writeFileSync(join(upper, 'both/replaced'), 'now short');
  writeFileSync(join(upper, 'both/was-link'), 'now a file');
  for (let i = 0; i < 400; i += 1) writeFileSync(join(upper, `both/added-${i}`), `${i}`);

  const imagePath = join(folder, 'image');
  writeFileSync(imagePath, '');
  await createExt4(imagePath, { virtualSizeBytes: 64 * MIB });
  await addTree({ rootfs: lower, imagePath });
  const freeBefore = Number(fileSystemFacts(imagePath).get('Free blocks'));
  await addTree({ rootfs: upper, imagePath });
  checkWithE2fsck(imagePath);
  const freed = Number(fileSystemFacts(imagePath).get('Free blocks')) - freeBefore;
  assert(freed > 0, 'the replaced file gave its blocks back');
  assert.equal(debugfs(imagePath, 'cat /both/replaced'), 'now short');
  assert.equal(debugfs(imagePath, 'cat /both/was-link'), 'now a file');
  assert.equal(debugfs(imagePath, 'cat /both/added-399'), '399');
  assert.equal(debugfs(imagePath, 'cat /kept/sub/file'), 'kept');
  assert.doesNotMatch(debugfs(imagePath, 'stat /both'), /user\.gone/);
  assert.match(debugfs(imagePath, 'stat /both'), /Links: 3 /);

  mkdirSync(join(folder, 'wrong'));
  writeFileSync(join(folder, 'wrong/both'), 'not a directory');
  await assert.rejects(addTree({ rootfs: join(folder, 'wrong'), imagePath }), {
    code: 'ERR_EXT4_CONFLICT',
    message: /wrong\/both/,
  });
});

test('errors name what is wrong', async (context) => {
  const folder = temporaryFolder(context);
  const imagePath = join(folder, 'image');
  writeFileSync(imagePath, '');
  const missing = buildExt4({ rootfs: join(folder, 'absent'), imagePath });
  await assert.rejects(missing, { code: 'ERR_EXT4_SOURCE', message: /absent/ });
  const notFolder = buildExt4({ rootfs: imagePath, imagePath });
  await assert.rejects(notFolder, { code: 'ERR_EXT4_SOURCE', message: /not a directory/ });

  mkdirSync(join(folder, 'root'));
  writeFileSync(join(folder, 'root/large'), noise('large', 20 * MIB));
  const full = buildExt4({ rootfs: join(folder, 'root'), imagePath, virtualSizeBytes: 16 * MIB });
  await assert.rejects(full, { code: 'ERR_EXT4_FULL', errno: 'ENOSPC', message: /virtual size/ });
  const odd = buildExt4({
    rootfs: join(folder, 'root'),
    imagePath,
    virtualSizeBytes: 16 * MIB + 1,
  });
  await assert.rejects(odd, { code: 'ERR_EXT4_SIZE' });
});

test('a file that may not be read is named', async (context) => {
  const folder = temporaryFolder(context);
  const imagePath = join(folder, 'image');
  const secret = join(folder, 'root/secret');
  mkdirSync(join(folder, 'root'));
  writeFileSync(secret, 'x', { mode: 0 });
  writeFileSync(imagePath, '');
  // Root may read everything, so it steps down for as long as the build takes.
  if (isRoot) {
    for (const path of [folder, join(folder, 'root'), secret, imagePath]) {
      chownSync(path, NOBODY, NOBODY);
    }
    process.seteuid?.(NOBODY);
    context.after(() => process.seteuid?.(0));
  }
  const built = buildExt4({ rootfs: join(folder, 'root'), imagePath });
  await assert.rejects(built, { code: 'ERR_EXT4_SOURCE', message: /root\/secret.*EACCES/ });
});

test('a file that changes while it is copied is an error', async (context) => {
  const folder = temporaryFolder(context);
  const imagePath = join(folder, 'image');
  const large = join(folder, 'root/large');
  mkdirSync(join(folder, 'root'));
  writeFileSync(large, noise('large', 3 * MIB));
  writeFileSync(imagePath, '');
  let isChanged = false;
  const built = buildExt4({
    rootfs: join(folder, 'root'),
    imagePath,
    onProgress: ({ bytes }) => {
      if (bytes === 0 || isChanged) return;
      isChanged = true;
      writeFileSync(large, readFileSync(large).fill(1, 0, 10));
    },
  });
  await assert.rejects(built, { code: 'ERR_EXT4_SOURCE', message: /large.*changed while/ });
});

test('an aborted build stops with the signal’s reason', async (context) => {
  const folder = temporaryFolder(context);
  const imagePath = join(folder, 'image');
  writeFileSync(imagePath, '');
  const stop = new AbortController();
  const reason = new Error('enough');
  const built = buildExt4({
    rootfs: everything,
    imagePath,
    onProgress: ({ entries }) => entries === 100 && stop.abort(reason),
    signal: stop.signal,
  });
  await assert.rejects(built, reason);
});
