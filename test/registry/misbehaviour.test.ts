import assert from 'node:assert/strict';
import { test } from 'node:test';
import { isRetryable, RegistryError } from '../../src/registry/errors.ts';
import type { Fault } from '../../src/registry/embedded/faults.ts';
import { blobFault, readRange, setUp } from './harness.ts';

// Goal: whatever a server does to a ranged request, the caller gets that range's bytes or a
// named error; never other bytes, and before an error at most a prefix of the right ones.
// Method: the embedded registry misbehaves in one way at a time.

interface Misbehaviour {
  name: string;
  fault: Fault;
  code: string;
  retryable: boolean;
  /** Bytes that may have been handed over before the error. */
  prefixMax?: number;
}

const OFFSET = 8192;
const LENGTH = 100_000;

const MISBEHAVIOURS: Misbehaviour[] = [
  {
    name: '200 with the whole blob',
    fault: { kind: 'ignore-range' },
    code: 'ERR_RANGE_IGNORED',
    retryable: false,
  },
  ...[
    'bytes 8193-108192/300000',
    'bytes 8192-108190/300000',
    'bytes 8192-108191/300001',
    'bytes 8192-108191/*',
    'bytes */300000',
    'octets 8192-108191/300000',
    '',
  ].map((value) => ({
    name: `Content-Range ${JSON.stringify(value)}`,
    fault: { kind: 'headers' as const, headers: { 'content-range': value } },
    code: 'ERR_CONTENT_RANGE',
    retryable: false,
  })),
  ...(['length', 'chunked'] as const).flatMap((framing) =>
    [-1, 1, -LENGTH].map((delta) => ({
      name: `a ${framing} body ${delta} bytes off`,
      fault: { kind: 'body-length' as const, delta, framing },
      code: 'ERR_BODY_LENGTH',
      retryable: true,
      prefixMax: LENGTH,
    })),
  ),
  {
    name: 'a connection cut inside the body',
    fault: { kind: 'cut', afterBytes: 40_000 },
    code: 'ERR_REGISTRY_NETWORK',
    retryable: true,
    prefixMax: 40_000,
  },
  {
    name: 'a connection cut before the body',
    fault: { kind: 'cut', afterBytes: 0 },
    code: 'ERR_REGISTRY_NETWORK',
    retryable: true,
  },
  {
    name: 'a stall inside the body',
    fault: { kind: 'stall', afterBytes: 40_000 },
    code: 'ERR_REGISTRY_NETWORK',
    retryable: true,
    prefixMax: 40_000,
  },
  {
    name: 'a stall before the answer',
    fault: { kind: 'delay', ms: 60_000 },
    code: 'ERR_REGISTRY_NETWORK',
    retryable: true,
  },
  {
    name: 'a compressed body',
    fault: { kind: 'headers', headers: { 'content-encoding': 'gzip' } },
    code: 'ERR_CONTENT_ENCODING',
    retryable: false,
  },
  {
    name: 'the digest of another blob',
    fault: { kind: 'headers', headers: { 'docker-content-digest': `sha256:${'0'.repeat(64)}` } },
    code: 'ERR_BLOB_CHANGED',
    retryable: false,
  },
  ...(
    [
      [404, 'ERR_REGISTRY_NOT_FOUND', false],
      [403, 'ERR_REGISTRY_AUTH', false],
      [401, 'ERR_REGISTRY_AUTH', false],
      [416, 'ERR_CONTENT_RANGE', false],
      [400, 'ERR_REGISTRY_STATUS', false],
      [204, 'ERR_REGISTRY_STATUS', false],
      [429, 'ERR_THROTTLED', true],
      [503, 'ERR_THROTTLED', true],
      [500, 'ERR_REGISTRY_STATUS', true],
      [502, 'ERR_REGISTRY_STATUS', true],
    ] as const
  ).map(([status, code, retryable]) => ({
    name: `status ${status}`,
    fault: { kind: 'status' as const, status },
    code,
    retryable,
  })),
];

for (const { name, fault, code, retryable, prefixMax = 0 } of MISBEHAVIOURS) {
  test(`${name} is ${code}`, async (t) => {
    const timeouts = { headersTimeoutMs: 300, bodyTimeoutMs: 300 };
    const { registry, client, blob, digest, name: repository } = await setUp(t, {}, timeouts);
    registry.setFaults(blobFault(fault));
    const source = client.blobSource(repository, digest, blob.length);
    const chunks: Buffer[] = [];
    const fetching = source.fetch(OFFSET, LENGTH, {
      lane: 'demand',
      signal: new AbortController().signal,
      onData: (chunk) => void chunks.push(Buffer.from(chunk)),
    });
    await assert.rejects(fetching, (error) => {
      assert.ok(error instanceof RegistryError, String(error));
      assert.equal(error.code, code, error.message);
      assert.equal(isRetryable(error), retryable);
      assert.ok(error.message.includes(registry.url), error.message);
      return true;
    });
    const prefix = Buffer.concat(chunks);
    assert.ok(prefix.length <= prefixMax, `${prefix.length} bytes were handed over`);
    assert.deepEqual(prefix, blob.subarray(OFFSET, OFFSET + prefix.length));
    // Nothing is left behind that would spoil the next request.
    registry.setFaults(undefined);
    assert.deepEqual(await readRange(source, 1, 50_000), blob.subarray(1, 50_001));
  });
}

test('Retry-After reaches the caller, in seconds or as a date, and is capped', async (t) => {
  const { registry, client, blob, digest, name } = await setUp(t);
  const source = client.blobSource(name, digest, blob.length);
  const inTenSeconds = new Date(Date.now() + 10_000).toUTCString();
  for (const [text, leastMs, mostMs] of [
    ['7', 7000, 7000],
    [inTenSeconds, 7000, 10_000],
    ['99999999', 60_000, 60_000],
    ['Thu, 01 Jan 1970 00:00:00 GMT', 0, 0],
    ['soon', 0, 0],
  ] as const) {
    const headers = { 'retry-after': text };
    registry.setFaults(blobFault({ kind: 'status', status: 429, headers }));
    await assert.rejects(readRange(source, 0, 10), (error) => {
      assert.ok(error instanceof RegistryError);
      assert.equal(error.code, 'ERR_THROTTLED');
      assert.ok(error.retryAfterMs >= leastMs && error.retryAfterMs <= mostMs, text);
      return true;
    });
  }
});

test('200 is accepted when the range is the whole blob', async (t) => {
  const { registry, client, blob, digest, name } = await setUp(t);
  registry.setFaults(blobFault({ kind: 'ignore-range' }));
  const source = client.blobSource(name, digest, blob.length);
  assert.deepEqual(await readRange(source, 0, blob.length), blob);
  const unknown = client.blobSource(name, digest, null);
  await assert.rejects(readRange(unknown, 0, blob.length), { code: 'ERR_RANGE_IGNORED' });
});

test('an ETag that differs from the first one is ERR_BLOB_CHANGED', async (t) => {
  const { registry, client, blob, digest, name } = await setUp(t);
  const source = client.blobSource(name, digest, blob.length);
  await readRange(source, 0, 10);
  registry.setFaults(blobFault({ kind: 'headers', headers: { etag: '"another"' } }, 1));
  await assert.rejects(readRange(source, 0, 10), { code: 'ERR_BLOB_CHANGED' });
});

test('redirects end after eight, in a loop at once, and never with credentials in the URL', async (t) => {
  const { registry, client, blob, digest, name } = await setUp(t);
  const source = client.blobSource(name, digest, blob.length);
  const refusals: [(index: number) => string, number][] = [
    [(index) => `${registry.url}/v2/hop/${index}`, 9],
    [() => `/v2/apps/web/blobs/${digest}`, 1],
    [() => 'ftp://127.0.0.1/x', 1],
    [() => 'http://user:pass@127.0.0.1:1/x', 1],
    [() => 'http://', 1],
  ];
  for (const [location, requests] of refusals) {
    registry.clearLog();
    registry.setFaults(({ index }) => {
      return { kind: 'status', status: 307, headers: { location: location(index) } };
    });
    await assert.rejects(readRange(source, 0, 10), { code: 'ERR_REGISTRY_REDIRECT' });
    assert.equal(registry.log.length, requests);
  }
});

test('corrupted bytes are delivered as they are: verifying them is the reader of the format', async (t) => {
  const { registry, client, blob, digest, name } = await setUp(t);
  registry.setFaults(blobFault({ kind: 'corrupt', atByte: 3 }));
  const read = await readRange(client.blobSource(name, digest, blob.length), 0, 8);
  assert.notDeepEqual(read, blob.subarray(0, 8));
  await assert.rejects(client.getBlob(name, digest), { code: 'ERR_DIGEST_MISMATCH' });
});

test('a registry that is not there is ERR_REGISTRY_NETWORK', async (t) => {
  const { registry, client, digest, name } = await setUp(t);
  await registry.close();
  const refused = readRange(client.blobSource(name, digest, 10), 0, 10);
  await assert.rejects(refused, (error) => isRetryable(error));
});
