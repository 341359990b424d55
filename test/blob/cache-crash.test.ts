// Goal: whatever moment a process dies at, a later one finds only whole granules in the cache; and
// two processes never share one.
// Method: a child that fills, evicts and records is killed at random moments; every granule that
// the cache then claims is compared with what it must be.
import assert from 'node:assert/strict';
import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { GRANULE_BYTES } from '../../src/base/limits.ts';
import { openBlobCache } from '../../src/blob/cache/blob-cache.ts';
import { digestOf, patternBytes, sameBytes, temporaryFolder } from './support.ts';

const GRANULES = 2048;
const content = patternBytes(GRANULES * GRANULE_BYTES);
const filler = fileURLToPath(new URL('cache-filler.ts', import.meta.url));

async function startFiller(path: string, quotaBytes: number): Promise<ChildProcess> {
  const child = spawn(process.execPath, [filler, path, String(GRANULES), String(quotaBytes)], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  assert(child.stdout !== null);
  await once(child.stdout, 'data');
  return child;
}

async function kill(child: ChildProcess): Promise<void> {
  child.kill('SIGKILL');
  await once(child, 'exit');
}

for (const [name, quotaBytes] of [
  ['with room for everything', 64 * 1024 * 1024],
  ['while it evicts', 4 * 1024 * 1024],
] as const) {
  test(`a killed process leaves only whole granules, ${name}`, async (t) => {
    const path = await temporaryFolder(t);
    let claimed = 0;
    for (let round = 0; round < 5; round += 1) {
      const child = await startFiller(path, quotaBytes);
      await sleep(60 + Math.random() * 120);
      await kill(child);
      const cache = await openBlobCache(path, { quotaBytes });
      const blob = await cache.blob(digestOf('filled'), content.length);
      for (let at = 0; at < content.length; at += GRANULE_BYTES) {
        if (!blob.has(at, GRANULE_BYTES)) continue;
        claimed += 1;
        const end = at + GRANULE_BYTES;
        assert(sameBytes(blob.bytes.subarray(at, end), content.subarray(at, end)), `at ${at}`);
      }
      await blob.close();
      await cache.close();
    }
    t.diagnostic(`${claimed} granules claimed after 5 kills`);
    assert(claimed > 0, 'the test must have seen something');
  });
}

test('a second process is refused, and may come in once the first has died', async (t) => {
  const path = await temporaryFolder(t);
  const child = await startFiller(path, 1024 * 1024);
  try {
    const refused = openBlobCache(path, { quotaBytes: 1024 * 1024 });
    await assert.rejects(refused, { code: 'ERR_CACHE_LOCKED', errno: 'EBUSY' });
  } finally {
    await kill(child);
  }
  const cache = await openBlobCache(path, { quotaBytes: 1024 * 1024 });
  await cache.close();
});
