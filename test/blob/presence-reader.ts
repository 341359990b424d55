// A thread that reads granules of a blob as readers must: presence, bytes, presence again. Tells
// how many it compared, how many of these were wrong, and how many it had to discard.
import { parentPort, workerData } from 'node:worker_threads';
import koffi from 'koffi';
import { GRANULE_BYTES } from '../../src/base/limits.ts';
import type { BlobMap } from '../../src/blob/blob.ts';
import { patternBytes, sameBytes } from './support.ts';

const { map, stop } = workerData as { map: BlobMap; stop: Int32Array };
const bytes = new Uint8Array(koffi.view(BigInt(map.address), map.sizeBytes));
const presence = new Int32Array(map.presence ?? new SharedArrayBuffer(0));
const content = patternBytes(map.sizeBytes);
const counts = { compared: 0, wrong: 0, torn: 0 };

function isPresent(granule: number): boolean {
  return ((Atomics.load(presence, granule >>> 5) >>> (granule & 31)) & 1) === 1;
}

for (let granule = 0; Atomics.load(stop, 0) === 0; granule += 1) {
  if (granule * GRANULE_BYTES >= map.sizeBytes) granule = 0;
  if (!isPresent(granule)) continue;
  const at = granule * GRANULE_BYTES;
  const copy = bytes.slice(at, at + GRANULE_BYTES);
  if (!isPresent(granule)) {
    counts.torn += 1;
    continue;
  }
  counts.compared += 1;
  if (!sameBytes(copy, content.subarray(at, at + GRANULE_BYTES))) counts.wrong += 1;
}
parentPort?.postMessage(counts);
