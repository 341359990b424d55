import assert from 'node:assert/strict';
import { createServer, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { test, type TestContext } from 'node:test';
import type { ByteRange } from '../../src/base/range.ts';
import type { RangeSource } from '../../src/blob/blob.ts';
import { createRegistryClient } from '../../src/registry/client.ts';
import { digestOf } from '../../src/registry/digest.ts';
import { REPOSITORY, setUp } from './harness.ts';

// Goal: several ranges of a blob come in one request where the server goes along with that; where it
// does not, that is found out with one request, nothing wrong is handed on, and ranges are asked for
// one at a time from then on.
// Method: the embedded registry answers well; small HTTP servers answer in ways seen elsewhere.

const RANGES: ByteRange[] = [
  { offset: 8192, length: 5000 },
  { offset: 0, length: 4096 },
  { offset: 200_000, length: 1 },
];

async function readRanges(source: RangeSource, ranges = RANGES): Promise<Buffer[]> {
  const got = ranges.map(() => Buffer.alloc(0));
  assert.ok(source.many);
  await source.many.fetch(ranges, {
    lane: 'prefetch',
    signal: new AbortController().signal,
    onData: (chunk, index) => {
      got[index] = Buffer.concat([got[index], chunk]);
    },
  });
  return got;
}

function expected(blob: Buffer, ranges = RANGES): Buffer[] {
  return ranges.map(({ offset, length }) => blob.subarray(offset, offset + length));
}

test('the embedded registry answers several ranges in one request', async (t) => {
  for (const redirectBlobs of [false, true]) {
    const { registry, client, blob, digest, name } = await setUp(t, { redirectBlobs });
    const source = client.blobSource(name, digest, blob.length);
    assert.deepEqual(await readRanges(source), expected(blob));
    registry.clearLog();
    assert.deepEqual(await readRanges(source), expected(blob));
    assert.equal(registry.log.length, 1);
  }
});

test('while the first request of several ranges is under way, others are for one', async (t) => {
  const { client, blob, digest, name } = await setUp(t);
  const source = client.blobSource(name, digest, blob.length);
  const most = source.many?.rangesMax ?? 0;
  assert.ok(most >= RANGES.length);
  assert.equal(source.many?.isRangesMaxKnown, false);
  const reading = readRanges(source);
  assert.equal(source.many?.rangesMax, 1);
  assert.equal(source.many?.isRangesMaxKnown, false, 'nobody has told yet');
  await reading;
  assert.equal(source.many?.isRangesMaxKnown, true);
  assert.equal(source.many?.rangesMax, most);
});

test('a blob of unknown size is asked for range by range', async (t) => {
  const { client, digest, name } = await setUp(t);
  assert.equal(client.blobSource(name, digest, null).many?.rangesMax, 1);
});

const BLOB = Buffer.alloc(300_000, 'content');
const DIGEST = digestOf(BLOB);

/** Answers that a server may give by the standard, and that are of no use. */
const REFUSALS: Record<string, (response: ServerResponse) => void> = {
  'the whole blob': (response) => {
    response.writeHead(200, { 'content-length': BLOB.length }).end(BLOB);
  },
  'the first range alone': (response) => {
    const headers = { 'content-range': `bytes 8192-13191/${BLOB.length}`, 'content-length': 5000 };
    response.writeHead(206, headers).end(BLOB.subarray(8192, 13_192));
  },
  'all ranges joined': (response) => {
    const headers = { 'content-range': `bytes 0-200000/${BLOB.length}`, 'content-length': 200_001 };
    response.writeHead(206, headers).end(BLOB.subarray(0, 200_001));
  },
  'parts in another order': (response) => {
    response.writeHead(206, { 'content-type': 'multipart/byteranges; boundary=x' });
    response.write(`--x\r\nContent-Range: bytes 0-4095/${BLOB.length}\r\n\r\n`);
    response.end(BLOB.subarray(0, 4096));
  },
  'not implemented': (response) => void response.writeHead(501).end('{}'),
  'a bad request': (response) => void response.writeHead(400).end('{}'),
  'a range not satisfiable': (response) => void response.writeHead(416).end('{}'),
};

async function oddServer(t: TestContext, answer: (response: ServerResponse) => void) {
  const server = createServer((request, response) => {
    if (request.headers.range?.includes(',') === true) answer(response);
    else response.writeHead(404).end();
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const client = createRegistryClient();
  t.after(async () => {
    await client.close();
    server.closeAllConnections();
    server.close();
  });
  const name = `http://127.0.0.1:${(server.address() as AddressInfo).port}/${REPOSITORY}`;
  return client.blobSource(name, DIGEST, BLOB.length);
}

for (const [found, answer] of Object.entries(REFUSALS)) {
  test(`a server that answers with ${found} is asked for one range from then on`, async (t) => {
    const source = await oddServer(t, answer);
    await assert.rejects(readRanges(source), { code: 'ERR_RANGES_REFUSED' });
    assert.equal(source.many?.rangesMax, 1);
    assert.equal(source.many?.isRangesMaxKnown, true);
  });
}

test('an answer that tells nothing about ranges leaves the question open', async (t) => {
  const source = await oddServer(t, (response) => void response.writeHead(503).end('{}'));
  await assert.rejects(readRanges(source), { code: 'ERR_THROTTLED' });
  assert.ok((source.many?.rangesMax ?? 0) > 1);
  assert.equal(source.many?.isRangesMaxKnown, false);
});
