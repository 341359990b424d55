import assert from 'node:assert/strict';
import { once } from 'node:events';
import { createServer, type IncomingMessage, type RequestListener } from 'node:http';
import type { AddressInfo } from 'node:net';
import { Readable } from 'node:stream';
import { setTimeout as sleep } from 'node:timers/promises';
import { test, type TestContext } from 'node:test';
import { CollectingSink } from '../../src/registry/collect.ts';
import { Transport } from '../../src/registry/transport.ts';

// Goal: an upload may take as long as its link needs, but one that stands still is given up.
// Method: servers that take a body slowly, or not at all, and a transport of little patience.

const PATIENCE_MS = 1500;
/** Far more than the buffers between two sockets. */
const BODY_BYTES = 32 * 2 ** 20;

async function upload(t: TestContext, listener: RequestListener): Promise<[number, Readable]> {
  const server = createServer(listener).listen(0, '127.0.0.1');
  const transport = new Transport({ headersTimeoutMs: PATIENCE_MS });
  t.after(async () => {
    await transport.close();
    server.closeAllConnections();
    server.close();
  });
  await once(server, 'listening');
  const url = new URL(`http://127.0.0.1:${(server.address() as AddressInfo).port}/upload`);
  const chunks = Array.from({ length: BODY_BYTES / 65_536 }, () => Buffer.alloc(65_536));
  const body = Readable.from(chunks, { objectMode: false });
  const headers = { 'content-length': String(BODY_BYTES) };
  const sink = new CollectingSink(url, 1000);
  const request = { url, method: 'PUT' as const, lane: 'demand' as const, headers, body };
  const { status } = await transport.exchange(request, sink);
  return [status, body];
}

test('a slow link takes its time', async (t) => {
  let received = 0;
  const take = async (request: IncomingMessage) => {
    for await (const chunk of request) {
      received += (chunk as Buffer).length;
      await sleep(8);
    }
  };
  const [status, body] = await upload(t, (request, response) => {
    void take(request).then(
      () => response.end(),
      () => undefined,
    );
  });
  assert.deepEqual([status, received, body.destroyed], [200, BODY_BYTES, true]);
});

test('a server that takes nothing, or does not answer, is given up', async (t) => {
  const silent: RequestListener[] = [() => undefined, (request) => request.resume()];
  const expected = { code: 'ERR_REGISTRY_NETWORK', errno: 'ETIMEDOUT' };
  await Promise.all(silent.map((listener) => assert.rejects(upload(t, listener), expected)));
});
