import assert from 'node:assert/strict';
import { test } from 'node:test';
import { systemClock } from '../../src/base/clock.ts';
import { isRetryable } from '../../src/registry/errors.ts';
import type { AuthOptions } from '../../src/registry/embedded/guard.ts';
import { PASSWORD, readRange, seen, setUp, USER } from './harness.ts';

// Goal: ranges of a blob arrive exactly, and no round trip is spent on what is known already.
// Method: the embedded registry with every kind of authentication and redirection; its request log
// is compared word for word.

const bearer: AuthOptions = { kind: 'bearer', username: USER, password: PASSWORD };
const basic: AuthOptions = { kind: 'basic', username: USER, password: PASSWORD };

test('a range is the bytes of that range, and costs one request', async (t) => {
  const { registry, client, blob, digest, name } = await setUp(t);
  const source = client.blobSource(name, digest, blob.length);
  for (const [offset, length] of [
    [0, 1],
    [4096, 65_536],
    [299_999, 1],
    [0, 300_000],
  ] as const) {
    assert.deepEqual(
      await readRange(source, offset, length),
      blob.subarray(offset, offset + length),
    );
  }
  assert.deepEqual(seen(registry), Array(4).fill('blob 206'));
});

test('behind Bearer the first range costs challenge, token and answer, the second one', async (t) => {
  const { registry, client, blob, digest, name } = await setUp(t, { auth: bearer });
  const source = client.blobSource(name, digest, blob.length);
  await readRange(source, 0, 4096);
  assert.deepEqual(seen(registry), ['blob 401', 'token 200', 'blob 206']);
  registry.clearLog();
  await readRange(source, 8192, 4096);
  assert.deepEqual(seen(registry), ['blob 206']);
  assert.ok(registry.log[0]?.hasAuthorization);
});

test('after a manifest, blobs of the repository need no challenge', async (t) => {
  const { registry, client, blob, digest, name } = await setUp(t, { auth: bearer });
  const config = {
    mediaType: 'application/vnd.oci.image.config.v1+json',
    digest,
    size: blob.length,
  };
  const manifest = { schemaVersion: 2, config, layers: [] };
  await client.pushManifest(name, Buffer.from(JSON.stringify(manifest)), 'x/y', 'one');
  registry.clearLog();
  await client.getManifest(`${name}:one`);
  await readRange(client.blobSource(name, digest, blob.length), 0, 10);
  assert.deepEqual(seen(registry), ['token 200', 'manifest 200', 'blob 206']);
});

test('many first requests at once share one challenge, one token and one redirect', async (t) => {
  const options = { auth: bearer, redirectBlobs: true, link: { latencyMs: 5 } };
  const { registry, client, blob, digest, name } = await setUp(t, options);
  const ranges = Array.from({ length: 12 }, (_, i) => i * 4096);
  const read = await Promise.all(
    ranges.map((offset, i) => {
      const source = client.blobSource(name, digest, blob.length);
      return readRange(source, offset, 4096, i % 2 === 0 ? 'prefetch' : 'demand');
    }),
  );
  assert.deepEqual(Buffer.concat(read), blob.subarray(0, 12 * 4096));
  const words = seen(registry);
  assert.equal(words.filter((word) => word === 'blob 401').length, 1);
  assert.equal(words.filter((word) => word === 'token 200').length, 1);
  assert.equal(words.filter((word) => word === 'blob 307').length, 1);
  assert.equal(words.filter((word) => word === 'target 206').length, 12);
  assert.equal(words.length, 15);
});

test('what one blob tells of the repository spares the others their wait', async (t) => {
  // Nobody waits for a probe under a clock on which no time passes, but for its answer.
  const clock = { ...systemClock, sleep: () => new Promise<void>(() => undefined) };
  const { registry, client, blob, digest, name } = await setUp(t, {}, { clock });
  const other = registry.store.putBlob('apps/web', blob.subarray(1));
  const stop = new AbortController();
  registry.setFaults(({ url, range }) => {
    const isProbe = url.endsWith(other) && range === 'bytes=0-9';
    return isProbe ? { kind: 'delay', ms: 600_000 } : undefined;
  });
  const first = readRange(client.blobSource(name, digest, blob.length), 0, 10);
  const source = client.blobSource(name, other, blob.length - 1);
  const probe = readRange(source, 0, 10, 'demand', stop.signal);
  const held = assert.rejects(probe, /enough/);
  assert.deepEqual(await readRange(source, 10, 10), blob.subarray(11, 21));
  assert.deepEqual(await first, blob.subarray(0, 10));
  stop.abort(new Error('enough'));
  await held;
});

test('credentials never reach a redirect target', async (t) => {
  for (const auth of [bearer, basic]) {
    const { registry, client, blob, digest, name } = await setUp(t, { auth, redirectBlobs: true });
    const source = client.blobSource(name, digest, blob.length);
    await readRange(source, 0, 100);
    await readRange(source, 100, 100);
    const toTarget = registry.log.filter(({ isTarget }) => isTarget);
    assert.equal(toTarget.length, 2);
    assert.ok(toTarget.every(({ hasAuthorization }) => !hasAuthorization));
  }
});

test('a redirect target that refuses is resolved again, once', async (t) => {
  for (const status of [400, 401, 403, 404, 410]) {
    const { registry, client, blob, digest, name } = await setUp(t, { redirectBlobs: true });
    const source = client.blobSource(name, digest, blob.length);
    await readRange(source, 0, 100);
    registry.clearLog();
    let refusals = 1;
    registry.setFaults(({ isTarget }) => {
      return isTarget && refusals-- > 0 ? { kind: 'status', status } : undefined;
    });
    assert.deepEqual(await readRange(source, 100, 100), blob.subarray(100, 200));
    assert.deepEqual(seen(registry), [`target ${status}`, 'blob 307', 'target 206']);
    registry.setFaults(({ isTarget }) => (isTarget ? { kind: 'status', status } : undefined));
    await assert.rejects(readRange(source, 0, 100));
  }
});

test('many requests that find a redirect target stale share one new redirect', async (t) => {
  const options = { redirectBlobs: true, link: { latencyMs: 10 } };
  const { registry, client, blob, digest, name } = await setUp(t, options);
  const source = client.blobSource(name, digest, blob.length);
  await readRange(source, 0, 100);
  registry.clearLog();
  let refusals = 6;
  registry.setFaults(({ isTarget }) => {
    return isTarget && refusals-- > 0 ? { kind: 'status', status: 403 } : undefined;
  });
  await Promise.all([0, 1, 2, 3, 4, 5].map((i) => readRange(source, i * 100, 100)));
  const words = seen(registry);
  assert.equal(words.filter((word) => word === 'blob 307').length, 1);
  assert.equal(words.filter((word) => word === 'target 206').length, 6);
});

test('a revoked token is replaced once, however many requests find out', async (t) => {
  const { registry, client, blob, digest, name } = await setUp(t, { auth: bearer });
  const source = client.blobSource(name, digest, blob.length);
  await readRange(source, 0, 100);
  registry.revokeTokens();
  registry.clearLog();
  await Promise.all([0, 1, 2, 3, 4, 5].map((i) => readRange(source, i * 100, 100)));
  const words = seen(registry);
  assert.equal(words.filter((word) => word === 'token 200').length, 1);
  assert.equal(words.filter((word) => word === 'blob 206').length, 6);
});

test('the size of a blob is learned from one byte, and an empty blob has none', async (t) => {
  const { registry, client, blob, digest, name } = await setUp(t);
  const source = client.blobSource(name, digest, null);
  assert.deepEqual(await Promise.all([source.size(), source.size()]), [blob.length, blob.length]);
  assert.equal(await source.size(), blob.length);
  assert.deepEqual(seen(registry), ['blob 206']);
  const empty = registry.store.putBlob('apps/web', new Uint8Array());
  assert.equal(await client.blobSource(name, empty, null).size(), 0);
});

test('an overlaybd blob URL names the same blob', async (t) => {
  const { registry, client, blob, digest } = await setUp(t);
  const source = client.blobSource(`${registry.url}/v2/apps/web/blobs`, digest, blob.length);
  assert.deepEqual(await readRange(source, 5, 5), blob.subarray(5, 10));
});

test('an aborted range rejects with the reason and frees its socket', async (t) => {
  const options = { connections: { demand: 1 } };
  const { registry, client, blob, digest, name } = await setUp(t, {}, options);
  const source = client.blobSource(name, digest, blob.length);
  const abort = new AbortController();
  registry.setFaults(({ index }) => {
    if (index !== 0) return undefined;
    // Aborted only once the request is there, whatever time it took.
    setImmediate(() => abort.abort(new Error('enough')));
    return { kind: 'stall', afterBytes: 10 };
  });
  const stalled = readRange(source, 0, 100, 'demand', abort.signal);
  await assert.rejects(stalled, /enough/);
  assert.deepEqual(await readRange(source, 0, 100), blob.subarray(0, 100));
});

test('prefetches that fill their lane leave the demand lane free', async (t) => {
  const options = { connections: { demand: 1, prefetch: 2 } };
  const { registry, client, blob, digest, name } = await setUp(t, {}, options);
  const source = client.blobSource(name, digest, blob.length);
  await readRange(source, 0, 1);
  registry.setFaults(({ range }) => {
    return range === 'bytes=0-999' ? { kind: 'stall', afterBytes: 0 } : undefined;
  });
  const abort = new AbortController();
  const stalled = [1, 2, 3, 4].map(() => readRange(source, 0, 1000, 'prefetch', abort.signal));
  const settled = Promise.allSettled(stalled);
  assert.deepEqual(await readRange(source, 0, 100), blob.subarray(0, 100));
  abort.abort(new Error('enough'));
  assert.ok((await settled).every(({ status }) => status === 'rejected'));
});

test('closing a source rejects what it has under way, and nothing else', async (t) => {
  const { registry, client, blob, digest, name } = await setUp(t);
  const source = client.blobSource(name, digest, blob.length);
  const other = client.blobSource(name, digest, blob.length);
  await readRange(source, 0, 1);
  registry.setFaults(({ range }) => {
    return range === 'bytes=0-999' ? { kind: 'stall', afterBytes: 0 } : undefined;
  });
  const stalled = readRange(source, 0, 1000);
  stalled.catch(() => undefined);
  await source.close();
  await assert.rejects(stalled, { code: 'ERR_BLOB_CLOSED' });
  assert.equal((await readRange(other, 0, 10)).length, 10);
});

test('wrong or missing credentials are ERR_REGISTRY_AUTH, not a retry', async (t) => {
  const { fixedCredentials, anonymous } = await import('../../src/registry/credentials.ts');
  for (const auth of [bearer, basic]) {
    for (const credentials of [fixedCredentials(null, USER, 'wrong'), anonymous]) {
      const { client, digest, name } = await setUp(t, { auth }, { credentials });
      const refused = readRange(client.blobSource(name, digest, 300_000), 0, 10);
      await assert.rejects(refused, (error) => {
        assert.ok(!isRetryable(error));
        return (error as { code: string }).code === 'ERR_REGISTRY_AUTH';
      });
      await assert.rejects(client.ping(name), { code: 'ERR_REGISTRY_AUTH' });
    }
  }
});
