import assert from 'node:assert/strict';
import { execFileSync, spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import {
  closeSync,
  constants,
  ftruncateSync,
  linkSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  symlinkSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import { readExtendedAttributes } from '../../native/extended-attributes.ts';

export const isRoot = process.getuid?.() === 0;
export const needsRoot = isRoot ? false : 'needs root';

/** A folder that is gone when the test ends. */
export function temporaryFolder(test: TestContext): string {
  const folder = mkdtempSync(join(tmpdir(), 'replaybd-test-'));
  test.after(() => rmSync(folder, { recursive: true, force: true }));
  return folder;
}

/** Bytes that do not compress well, the same every time. */
export function noise(seed: string, length: number): Buffer {
  return createHash('shake256', { outputLength: length }).update(seed).digest();
}

/** A tree with one of everything a container's root file system may hold. */
export function makeTree(folder: string): void {
  for (const name of ['a/b/c', 'dev', 'empty', 'many']) {
    mkdirSync(join(folder, name), { recursive: true });
  }
  const at = (name: string) => join(folder, name);
  writeFileSync(at('a/hello'), 'hello\n');
  writeFileSync(at('a/nothing'), '');
  linkSync(at('a/hello'), at('a/b/hard'));
  linkSync(at('a/hello'), at('hard2'));
  const targetLengths = [1, 59, 60, 3000];
  for (const length of targetLengths)
    symlinkSync('t/'.repeat(1500).slice(0, length), at(`l${length}`));
  writeFileSync(at(`a/${'n'.repeat(255)}`), 'long name');
  writeFileSync(Buffer.concat([Buffer.from(`${folder}/bytes`), Buffer.of(0xff, 0xfe, 10)]), 'x');
  for (const length of [4095, 4096, 4097, 3_000_001]) {
    writeFileSync(at(`size-${length}`), noise(`size ${length}`, length));
  }
  for (let i = 0; i < 1200; i += 1) writeFileSync(at(`many/file-number-${i}`), i % 4 ? `${i}` : '');
  sparseFile(at('sparse'), 100_012_345, [0, 99_999_999]);
  sparseFile(
    at('islands'),
    1000 * 131_072,
    Array.from({ length: 1000 }, (_, i) => i * 131_072),
  );
  sparseFile(at('all-hole'), 1 << 20, []);
  writeFileSync(at('zeros'), Buffer.concat([Buffer.alloc(300_000), Buffer.from('x')]));
  writeFileSync(
    at('short-gaps'),
    Buffer.concat([noise('g', 4096), Buffer.alloc(8192), noise('h', 5)]),
  );
  execFileSync('mkfifo', [at('a/fifo')]);
  execFileSync('setfattr', ['-n', 'user.small', '-v', 'value', at('a/hello')]);
  execFileSync('setfattr', ['-n', 'user.large', '-v', 'v'.repeat(2000), at('a/b/c')]);
  if (isRoot) makeRootParts(at);
  execFileSync('chmod', ['4751', at('a/hello')]);
  execFileSync('chmod', ['1777', at('empty')]);
  execFileSync('touch', ['-hd', '2001-02-03 04:05:06.123456789', at('a/hello'), at('l59')]);
  execFileSync('touch', ['-d', '1960-01-02 03:04:05.000000001', at('zeros')]);
  execFileSync('touch', ['-d', '2300-01-02 03:04:05.999999999', at('a')]);
}

/** A file with a few bytes at each of some offsets and holes between. */
export function sparseFile(path: string, sizeBytes: number, offsets: readonly number[]): void {
  const fd = openSync(path, 'w');
  for (const offset of offsets) writeSync(fd, Buffer.from(`at ${offset}`), 0, null, offset);
  ftruncateSync(fd, sizeBytes);
  closeSync(fd);
}

function makeRootParts(at: (name: string) => string): void {
  execFileSync('mknod', [at('dev/null'), 'c', '1', '3']);
  execFileSync('mknod', [at('dev/large'), 'b', '259', '70000']);
  execFileSync('setfattr', ['-h', '-n', 'trusted.link', '-v', 'on a link', at('l1')]);
  const capability = '0x0100000200200000000000000000000000000000';
  execFileSync('setfattr', ['-n', 'security.capability', '-v', capability, at('size-4096')]);
  execFileSync('chown', ['-h', '70000:80000', at('a/hello'), at('l60'), at('many')]);
}

/** Everything about a tree that an image keeps, one line a file. */
export function describeTree(folder: string): string[] {
  const lines: string[] = [];
  const firstNames = new Map<bigint, string>();
  const visit = (path: Buffer, shown: string): void => {
    const stats = lstatSync(path, { bigint: true });
    const type = stats.mode & BigInt(constants.S_IFMT);
    const isDirectory = type === BigInt(constants.S_IFDIR);
    const isLink = type === BigInt(constants.S_IFLNK);
    const isRegular = type === BigInt(constants.S_IFREG);
    const first = firstNames.get(stats.ino) ?? shown;
    firstNames.set(stats.ino, first);
    const content = isRegular ? createHash('sha256').update(readFileSync(path)).digest('hex') : '';
    const attributes = readExtendedAttributes(path, () => true)
      .map(({ name, value }) => `${name.toString()}=${value.toString('hex')}`)
      .join();
    lines.push(
      [
        ...[shown, stats.mode.toString(8), stats.uid, stats.gid, stats.mtimeNs, stats.nlink],
        ...[isDirectory ? '' : stats.size, stats.rdev, first, content, attributes],
        isLink ? readlinkSync(path, { encoding: 'buffer' }).toString('hex') : '',
      ].join(' '),
    );
    if (!isDirectory) return;
    const names = readdirSync(path, { encoding: 'buffer' }).sort(Buffer.compare);
    for (const name of names) {
      if (shown === '' && name.toString() === 'lost+found') continue;
      visit(Buffer.concat([path, Buffer.from('/'), name]), `${shown}/${name.toString('latin1')}`);
    }
  };
  visit(Buffer.from(folder), '');
  return lines;
}

/** Mounts an image read-only while `use` runs. */
export function mounted<T>(image: string, use: (folder: string) => T): T {
  const folder = mkdtempSync(join(tmpdir(), 'replaybd-mount-'));
  try {
    execFileSync('mount', ['-t', 'ext4', '-o', 'loop,ro', image, folder]);
    try {
      return use(folder);
    } finally {
      execFileSync('umount', [folder]);
    }
  } finally {
    rmSync(folder, { recursive: true });
  }
}

/** Fails, with its output, unless e2fsck finds nothing at all to say against the image. */
export function checkWithE2fsck(image: string): void {
  const { status, stdout } = spawnSync('e2fsck', ['-fn', image], { encoding: 'utf8' });
  assert.equal(status, 0, stdout);
}

/** A copy that differs in all that an image must not depend on: inode numbers, atimes, ctimes. */
export function copyAndTouch(from: string, to: string): void {
  mkdirSync(`${to}-takes-inodes`);
  execFileSync('cp', ['-a', from, to]);
  execFileSync('find', [to, '-type', 'f', '-exec', 'touch', '-ad', '2005-06-07', '{}', '+']);
}
