// Goal: no quota, full disk or failing disk makes a reader see wrong bytes or a claim outlive its
// bytes.
// Method: small quotas, file operations that fail on demand, and a real file system that is full.
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { test } from 'node:test';
import { Worker } from 'node:worker_threads';
import { setTimeout as sleep } from 'node:timers/promises';
import { GRANULE_BYTES } from '../../src/base/limits.ts';
import { openBlobCache, openMemoryCache } from '../../src/blob/cache/blob-cache.ts';
import type { CachedBlob } from '../../src/blob/cache/cached-blob.ts';
import { systemFiles, type FileOperations } from '../../src/blob/cache/file-operations.ts';
import { digestOf, fill, patternBytes, sameBytes, temporaryFolder } from './support.ts';

const MIB = 1024 * 1024;
const GRANULES_PER_MIB = MIB / GRANULE_BYTES;

/** Reads a granule as a reader must: null unless it is present before and after. */
function readGranule(blob: CachedBlob, granule: number): Uint8Array | null {
  const at = granule * GRANULE_BYTES;
  if (!blob.has(at, GRANULE_BYTES)) return null;
  const bytes = blob.bytes.slice(at, at + GRANULE_BYTES);
  return blob.has(at, GRANULE_BYTES) ? bytes : null;
}

function assertGranules(blob: CachedBlob, content: Uint8Array): number {
  let present = 0;
  for (let granule = 0; granule * GRANULE_BYTES < content.length; granule += 1) {
    const bytes = readGranule(blob, granule);
    if (bytes === null) continue;
    present += 1;
    const at = granule * GRANULE_BYTES;
    assert(sameBytes(bytes, content.subarray(at, at + GRANULE_BYTES)), `granule ${granule}`);
  }
  return present;
}

/** File operations of which some fail as told. */
function failingFiles(): FileOperations & { failing: Set<keyof FileOperations>; code: string } {
  const failing = new Set<keyof FileOperations>();
  const files = { failing, code: 'ENOSPC' };
  const guard = (name: keyof FileOperations): void => {
    if (failing.has(name)) throw Object.assign(new Error(files.code), { code: files.code });
  };
  return Object.assign(files, {
    write: (fd: number, bytes: Uint8Array, position: number) => {
      guard('write');
      systemFiles.write(fd, bytes, position);
    },
    datasync: async (fd: number) => {
      guard('datasync');
      await systemFiles.datasync(fd);
    },
    punch: (fd: number, offset: number, length: number) => {
      guard('punch');
      systemFiles.punch(fd, offset, length);
    },
    replace: async (path: string, bytes: Uint8Array) => {
      guard('replace');
      await systemFiles.replace(path, bytes);
    },
  });
}

test('a quota is kept by forgetting what was used longest ago, and never shows wrong bytes', async (t) => {
  const path = await temporaryFolder(t);
  const quotaBytes = 4 * MIB;
  const content = patternBytes(16 * MIB);
  const cache = await openBlobCache(path, { quotaBytes });
  const blob = await cache.blob(digestOf('large'), content.length);
  for (let round = 0; round < 48; round += 1) {
    const offset = ((round * 5) % 16) * MIB;
    for (const { offset: at, length } of blob.missing(offset, MIB)) {
      fill(blob, content, { offset: at, length });
    }
    assertGranules(blob, content);
    await sleep(5);
  }
  assert(cache.stats.evictedBytes > 0);
  await sleep(200);
  assert(cache.stats.usedBytes <= quotaBytes);
  const data = statSync(`${path}/sha256/${digestOf('large').slice(7)}/data`);
  assert(data.blocks * 512 <= quotaBytes + MIB, `${data.blocks * 512} bytes on disk`);
  await blob.close();
  await cache.close();
});

test('other threads never see wrong bytes while granules come and go', async (t) => {
  const path = await temporaryFolder(t);
  const content = patternBytes(8 * MIB);
  const cache = await openBlobCache(path, { quotaBytes: 3 * MIB, memoryBytesMax: MIB });
  const blob = await cache.blob(digestOf('threads'), content.length);
  const stop = new Int32Array(new SharedArrayBuffer(4));
  const reader = new Worker(new URL('presence-reader.ts', import.meta.url), {
    workerData: { map: blob.map, stop },
  });
  await once(reader, 'online');
  for (let round = 0; round < 250; round += 1) {
    const offset = ((round * 7) % 32) * (MIB / 4);
    for (const range of blob.missing(offset, MIB / 4)) fill(blob, content, range);
    if (round % 3 === 0) blob.drop({ offset, length: MIB / 16 });
    if (round % 5 === 0) cache.unloadPages();
    await sleep(1);
  }
  const told = once(reader, 'message');
  Atomics.store(stop, 0, 1);
  const [{ compared, wrong, torn }] = (await told) as [Record<string, number>];
  t.diagnostic(`${compared} granules compared, ${torn} went away while they were read`);
  assert.equal(wrong, 0);
  assert(compared > 0);
  await once(reader, 'exit');
  await blob.close();
  await cache.close();
});

test('pages that were taken out of the process read as before, and memory stays', async (t) => {
  const path = await temporaryFolder(t);
  const content = patternBytes(4 * MIB);
  const cache = await openBlobCache(path, { quotaBytes: 64 * MIB });
  const memory = openMemoryCache({ quotaBytes: 64 * MIB });
  for (const blob of [
    await cache.blob(digestOf('unloaded'), content.length),
    await memory.blob(digestOf('unloaded'), content.length),
  ]) {
    fill(blob, content, { offset: 0, length: MIB });
    cache.unloadPages();
    memory.unloadPages();
    assert.equal(assertGranules(blob, content), GRANULES_PER_MIB);
    await blob.close();
  }
  await cache.close();
  await memory.close();
});

test('pinned ranges stay, and go when they are unpinned', async () => {
  const cache = openMemoryCache({ quotaBytes: 4 * MIB });
  const content = patternBytes(16 * MIB);
  const blob = await cache.blob(digestOf('pinned'), content.length);
  blob.pin([{ offset: 0, length: MIB }]);
  for (let offset = 0; offset < 16 * MIB; offset += MIB) {
    fill(blob, content, { offset, length: MIB });
  }
  assert.equal(blob.has(0, MIB), true);
  assert.equal(blob.has(MIB, MIB), false);
  blob.unpin();
  for (let offset = 8 * MIB; offset < 16 * MIB; offset += MIB) {
    for (const range of blob.missing(offset, MIB)) fill(blob, content, range);
  }
  assert.equal(blob.has(0, MIB), false);
  await blob.close();
  await cache.close();
});

test('when everything is pinned, what exceeds the quota stands in memory', async (t) => {
  const path = await temporaryFolder(t);
  const content = patternBytes(4 * MIB);
  const cache = await openBlobCache(path, { quotaBytes: 2 * MIB, memoryBytesMax: MIB });
  const blob = await cache.blob(digestOf('all pinned'), content.length);
  blob.pin([{ offset: 0, length: content.length }]);
  fill(blob, content, { offset: 0, length: 3 * MIB });
  assert.equal(assertGranules(blob, content), 3 * GRANULES_PER_MIB);
  assert(cache.stats.usedBytes <= 2 * MIB);
  assert(cache.stats.spilledBytes >= MIB * 0.9);
  cache.unloadPages();
  assert.equal(assertGranules(blob, content), 3 * GRANULES_PER_MIB);
  await blob.close();
  await cache.close();
});

for (const code of ['ENOSPC', 'EIO']) {
  test(`a disk that answers ${code} is served from bounded memory, which is not kept`, async (t) => {
    const path = await temporaryFolder(t);
    const files = Object.assign(failingFiles(), { code });
    const content = patternBytes(4 * MIB);
    const options = { quotaBytes: 64 * MIB, memoryBytesMax: MIB, files };
    const cache = await openBlobCache(path, options);
    const blob = await cache.blob(digestOf('refused'), content.length);
    fill(blob, content, { offset: 0, length: MIB });
    files.failing.add('write');
    fill(blob, content, { offset: MIB, length: MIB });
    assert.equal(assertGranules(blob, content), 2 * GRANULES_PER_MIB);
    assert(cache.stats.writeFailures > 0);
    fill(blob, content, { offset: 2 * MIB, length: MIB });
    assert(cache.stats.spilledBytes <= MIB && cache.stats.spilledBytes > 0.9 * MIB);
    assertGranules(blob, content);
    assert.equal(blob.has(MIB, 1), false, 'the oldest made room');
    assert.equal(blob.has(2.5 * MIB, MIB / 2), true);
    blob.drop({ offset: 2.5 * MIB, length: GRANULE_BYTES });
    assert.equal(blob.has(2.5 * MIB, 1), false);
    files.failing.clear();
    await blob.close();
    await cache.close();
    const again = await openBlobCache(path, options);
    const kept = await again.blob(digestOf('refused'), content.length);
    assert.equal(assertGranules(kept, content), GRANULES_PER_MIB);
    await kept.close();
    await again.close();
  });
}

test('presence that cannot be recorded is not claimed, and evicted bytes are not either', async (t) => {
  for (const operation of ['datasync', 'replace', 'punch'] as const) {
    const path = await temporaryFolder(t);
    const files = failingFiles();
    const content = patternBytes(2 * MIB);
    const options = { quotaBytes: 64 * MIB, files };
    const cache = await openBlobCache(path, options);
    const blob = await cache.blob(digestOf('unrecorded'), content.length);
    fill(blob, content, { offset: 0, length: MIB });
    await cache.checkpoint();
    files.failing.add(operation);
    fill(blob, content, { offset: MIB, length: MIB });
    blob.drop({ offset: 0, length: MIB / 2 });
    await cache.checkpoint();
    await blob.close();
    await cache.close();
    files.failing.clear();
    const again = await openBlobCache(path, options);
    const kept = await again.blob(digestOf('unrecorded'), content.length);
    assert.equal(kept.has(0, 1), false, operation);
    assert(assertGranules(kept, content) <= 1.5 * GRANULES_PER_MIB);
    await kept.close();
    await again.close();
  }
});

const isRoot = process.geteuid?.() === 0;

test(
  'a file system that is really full',
  { skip: isRoot ? false : 'needs root, to mount a small tmpfs' },
  async (t) => {
    const path = await mkdtemp(`${tmpdir()}/replaybd-full-`);
    const mounted = spawnSync('mount', ['-t', 'tmpfs', '-o', 'size=1m', 'tmpfs', path]);
    t.after(async () => {
      spawnSync('umount', [path]);
      await rm(path, { recursive: true, force: true });
    });
    if (mounted.status !== 0) {
      t.skip(`mount says: ${String(mounted.stderr)}`);
      return;
    }
    const content = patternBytes(4 * MIB);
    const cache = await openBlobCache(path, { quotaBytes: 64 * MIB });
    const blob = await cache.blob(digestOf('full'), content.length);
    fill(blob, content, { offset: 0, length: content.length });
    assert.equal(assertGranules(blob, content), 4 * GRANULES_PER_MIB);
    assert(cache.stats.writeFailures > 0);
    assert(cache.stats.spilledBytes > 2 * MIB);
    await cache.checkpoint();
    await blob.close();
    await cache.close();
    const again = await openBlobCache(path, { quotaBytes: 64 * MIB });
    const kept = await again.blob(digestOf('full'), content.length);
    assertGranules(kept, content);
    await kept.close();
    await again.close();
  },
);
