// A process that fills a cache until it is killed: `cache-filler.ts <folder> <granules> <quota>`.
// Says "open" once it has the folder.
import { openBlobCache } from '../../src/blob/cache/blob-cache.ts';
import { GRANULE_BYTES } from '../../src/base/limits.ts';
import { digestOf, fill, patternBytes } from './support.ts';

const [path, granuleCount, quotaBytes] = process.argv.slice(2);
const content = patternBytes(Number(granuleCount) * GRANULE_BYTES);
const cache = await openBlobCache(path, { quotaBytes: Number(quotaBytes) });
const blob = await cache.blob(digestOf('filled'), content.length);
process.stdout.write('open\n');
for (let step = 0; ; step += 1) {
  const first = Math.floor(Math.random() * Number(granuleCount));
  const count = Math.min(1 + Math.floor(Math.random() * 40), Number(granuleCount) - first);
  fill(blob, content, { offset: first * GRANULE_BYTES, length: count * GRANULE_BYTES });
  if (step % 3 === 0) await cache.checkpoint();
  if (step % 7 === 0) blob.drop({ offset: first * GRANULE_BYTES, length: GRANULE_BYTES });
  await new Promise((resolve) => setTimeout(resolve, 1));
}
