import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { Runtime } from '../../src/daemon/runtime.ts';
import { digestOf } from '../../src/registry/digest.ts';
import { startEmbeddedRegistry } from '../../src/registry/embedded/server.ts';
import { scratchOf } from '../support/scratch.ts';

// Goal: the metrics that no single device owns follow what the fetcher and the cache do.
// Method: a blob in the embedded registry that withholds its answer until the metrics were read.

const QUOTA_BYTES = 2 ** 26;
const BLOB_BYTES = 2 ** 16;

test('bytes in flight and the cache show in the metrics', async (t) => {
  const scratch = scratchOf(t);
  const registry = await startEmbeddedRegistry({ root: scratch.path('registry') });
  scratch.atEnd(() => registry.close());
  const runtime = await Runtime.open({ cacheFolder: null, quotaBytes: QUOTA_BYTES });
  scratch.atEnd(() => runtime.close());
  const content = Buffer.alloc(BLOB_BYTES, 7);
  const digest = digestOf(content);
  const repository = `${registry.url}/team/app`;
  await runtime.client.pushBlob(repository, {
    digest,
    sizeBytes: BLOB_BYTES,
    content: { bytes: content },
  });
  const url = `${registry.url}/v2/team/app/blobs/${digest}`;
  const blob = await runtime.openRemoteBlob({ kind: 'remote', url, digest, size: BLOB_BYTES });
  const value = async (series: string): Promise<number> => {
    const text = await runtime.metrics.registry.metrics();
    const line = text.split('\n').find((one) => one.startsWith(`${series} `));
    assert.ok(line !== undefined, `${series} is among the metrics`);
    return Number(line.slice(series.length + 1));
  };
  const demand = 'replaybd_inflight_bytes{lane="demand"}';
  try {
    assert.equal(await value(demand), 0);
    registry.setFaults((request) =>
      request.kind === 'blob' ? { kind: 'delay', ms: 500 } : undefined,
    );
    const reading = blob.ensure(0, BLOB_BYTES);
    while ((await value(demand)) === 0) await sleep(5);
    assert.equal(await value(demand), BLOB_BYTES);
    await reading;
    assert.equal(await value(demand), 0);
    assert.equal(await value('replaybd_inflight_bytes{lane="prefetch"}'), 0);
    assert.equal(await value('replaybd_cache_quota_bytes'), QUOTA_BYTES);
    assert.equal(await value('replaybd_cache_used_bytes'), BLOB_BYTES);
    assert.equal(await value('replaybd_cache_spilled_bytes'), 0);
    assert.equal(await value('replaybd_cache_evicted_bytes_total'), 0);
  } finally {
    await blob.close();
  }
});
