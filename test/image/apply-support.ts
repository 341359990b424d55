import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { readFileSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import { gunzipSync, zstdDecompressSync } from 'node:zlib';
import { applyLayer, type AppliedLayer } from '../../src/image/apply/apply-layer.ts';
import { createExt4 } from '../../src/image/ext4/build.ts';
import { checkWithE2fsck, temporaryFolder } from './ext4-tree.ts';
import { tarOf, type TestEntry } from './tar-builder.ts';

export const MIB = 1024 * 1024;

export const fixture = (name: string) => join(import.meta.dirname, '../fixtures/apply', name);
export const baseTar = gunzipSync(readFileSync(fixture('base.tar.gz')));
export const upperTar = zstdDecompressSync(readFileSync(fixture('upper.tar.zst')));

export const file = (path: string, content = path): TestEntry => ({ path, content });
export const folder = (path: string): TestEntry => ({ path, flag: '5', mode: 0o755 });
export const whiteout = (path: string): TestEntry => ({ path });

/** An image with an empty file system. */
export async function emptyImage(folder: string, sizeBytes = 64 * MIB): Promise<string> {
  const path = join(folder, `image-${process.hrtime.bigint()}`);
  writeFileSync(path, '');
  await createExt4(path, { virtualSizeBytes: sizeBytes });
  return path;
}

/** Applies a tar, cut into chunks, and has e2fsck look at what came of it. */
export async function apply(
  imagePath: string,
  tar: Buffer | readonly TestEntry[],
  chunkBytes = MIB,
): Promise<AppliedLayer> {
  const bytes = Buffer.isBuffer(tar) ? tar : tarOf(tar);
  const applied = await applyLayer({ imagePath, tar: chunksOf(bytes, chunkBytes) });
  checkWithE2fsck(imagePath);
  return applied;
}

export async function* chunksOf(bytes: Buffer, chunkBytes: number): AsyncGenerator<Buffer> {
  await Promise.resolve();
  for (let at = 0; at < bytes.length; at += chunkBytes) yield bytes.subarray(at, at + chunkBytes);
}

/** An image to which some layers were applied, one after the other. */
export async function imageOf(
  context: TestContext,
  ...layers: (readonly TestEntry[])[]
): Promise<string> {
  const image = await emptyImage(temporaryFolder(context));
  for (const layer of layers) await apply(image, layer);
  return image;
}

export function debugfs(image: string, command: string): string {
  return execFileSync('debugfs', ['-R', command, image], { stdio: 'pipe' }).toString();
}

/** Names of a directory, as the original tools read it; null when there is no such thing. */
export function namesIn(image: string, path: string): string[] | null {
  const text = debugfs(image, `ls -p ${path}`);
  const names = text.split('\n').flatMap((line) => {
    const name = line.split('/')[5];
    return name === undefined || ['', '.', '..', 'lost+found'].includes(name) ? [] : [name];
  });
  return text.trim() === '' ? null : names.sort();
}

export function storedBytes(path: string): number {
  return statSync(path).blocks * 512;
}

/** Fails unless the image is, byte for byte, what it was; content of unused blocks aside. */
export async function refused(
  imagePath: string,
  tar: Buffer | readonly TestEntry[],
  expected: { code: string; message?: RegExp },
): Promise<void> {
  const before = debugfs(imagePath, 'ls -p /') + facts(imagePath);
  const bytes = Buffer.isBuffer(tar) ? tar : tarOf(tar);
  await assert.rejects(applyLayer({ imagePath, tar: chunksOf(bytes, MIB) }), expected);
  checkWithE2fsck(imagePath);
  assert.equal(debugfs(imagePath, 'ls -p /') + facts(imagePath), before);
}

function facts(image: string): string {
  return execFileSync('dumpe2fs', [image], { stdio: 'pipe' }).toString();
}
