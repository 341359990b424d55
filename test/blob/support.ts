import { createHash } from 'node:crypto';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import type { TestContext } from 'node:test';
import { GRANULE_BYTES } from '../../src/base/limits.ts';
import type { ByteRange } from '../../src/base/range.ts';
import type { CachedBlob } from '../../src/blob/cache/cached-blob.ts';

/** A folder that is removed when the test ends. */
export async function temporaryFolder(t: TestContext): Promise<string> {
  const path = await mkdtemp(`${tmpdir()}/replaybd-blob-`);
  t.after(() => rm(path, { recursive: true, force: true }));
  return path;
}

export function digestOf(name: string): string {
  return `sha256:${createHash('sha256').update(name).digest('hex')}`;
}

/** Bytes that differ between granules: granule `i` repeats a word made of `i` and the seed. */
export function patternBytes(sizeBytes: number, seed = 1): Uint8Array {
  const words = new Uint32Array(Math.ceil(sizeBytes / 4));
  const granuleWords = GRANULE_BYTES / 4;
  for (let index = 0; index < words.length; index += 1) {
    words[index] = Math.imul(Math.floor(index / granuleWords) + seed, 0x9e37_79b1) ^ index;
  }
  return new Uint8Array(words.buffer, 0, sizeBytes);
}

/** Stores a granule-aligned range of `content`, in chunks of an odd size. */
export function fill(blob: CachedBlob, content: Uint8Array, range: ByteRange): void {
  const writer = blob.writer(range, () => undefined);
  const end = range.offset + range.length;
  for (let at = range.offset; at < end; at += 10_007) {
    writer.write(content.subarray(at, Math.min(at + 10_007, end)));
  }
}

export function sameBytes(left: Uint8Array, right: Uint8Array): boolean {
  return Buffer.compare(left, right) === 0;
}

/** Lets everything run that waits for promises only. */
export async function settle(): Promise<void> {
  for (let turn = 0; turn < 20; turn += 1) await new Promise((resolve) => setImmediate(resolve));
}
