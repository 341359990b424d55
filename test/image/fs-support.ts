import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { closeSync, openSync, readFileSync, readSync, statSync } from 'node:fs';
import type { TestContext } from 'node:test';
import type { Disk } from '../../src/image/fs/disk.ts';
import type { FileSystem, FsNode } from '../../src/image/fs/file-system.ts';
import { files } from '../../src/image/fs/walk.ts';

/** A disk image in a file, open until the test ends. */
export function fileDisk(t: TestContext, path: string): Disk {
  const fd = openSync(path, 'r');
  t.after(() => closeSync(fd));
  const read = async (offset: number, length: number) => {
    const bytes = Buffer.alloc(length);
    readSync(fd, bytes, 0, length, offset);
    return bytes;
  };
  return { name: path, sizeBytes: statSync(path).size, read };
}

export function memoryDisk(bytes: Uint8Array): Disk {
  const read = async (offset: number, length: number) => bytes.subarray(offset, offset + length);
  return { name: 'memory', sizeBytes: bytes.length, read };
}

/** SHA-256 of an uncompressed file, put together from its extents; what they leave out is zeros. */
export async function digestOfNode(disk: Disk, node: FsNode): Promise<string> {
  const hash = createHash('sha256');
  let position = 0;
  for (const { fileOffset, offset, length } of await node.extents()) {
    hash.update(Buffer.alloc(fileOffset - position));
    const bytes = await disk.read(offset, length);
    hash.update(bytes.subarray(0, node.sizeBytes - fileOffset));
    position = Math.min(fileOffset + length, node.sizeBytes);
  }
  return hash.update(Buffer.alloc(node.sizeBytes - position)).digest('hex');
}

/** Every regular file's path (a character a byte) and digest, sorted. */
export async function digestsOf(fs: FileSystem, disk: Disk): Promise<string[]> {
  const lines: string[] = [];
  for await (const { path, node } of files(fs)) {
    lines.push(`${path.toString('latin1')} ${await digestOfNode(disk, node)}`);
  }
  return lines.sort();
}

export function digestOfFile(path: string | Buffer): string {
  return createHash('sha256').update(readFileSync(path)).digest('hex');
}

/** An ext2 or ext4 of a tree, with these features alone; `size` as mke2fs takes it. */
export function makeExtImage(tree: string, image: string, features: string, size: string): void {
  const options = ['-q', '-F', '-b', '1024', '-I', '256', '-O', `none,${features}`];
  execFileSync('mke2fs', [...options, '-d', tree, image, size], {
    env: { PATH: `${process.env.PATH ?? ''}:/usr/sbin`, MKE2FS_CONFIG: '/dev/null' },
    stdio: 'ignore',
  });
}

export function makeErofsImage(tree: string, image: string, options: readonly string[]): void {
  execFileSync('mkfs.erofs', ['-T0', ...options, image, tree], { stdio: 'ignore' });
}
