import assert from 'node:assert/strict';
import { once } from 'node:events';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { test } from 'node:test';
import { createRegistryClient } from '../../src/registry/client.ts';

// Goal: connections opened ahead are the ones requests use, and none is left when the client closes.
// Method: a real HTTP server that counts connections and answers /v2/.

async function startServer(): Promise<{ server: Server; origin: string; opened: () => number }> {
  let opened = 0;
  const server = createServer((_request, response) => response.end('{}'));
  server.on('connection', () => (opened += 1));
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  return { server, origin: `http://127.0.0.1:${port}`, opened: () => opened };
}

test('a request takes the connection that was opened ahead', async (t) => {
  const { server, origin, opened } = await startServer();
  t.after(() => server.close());
  const client = createRegistryClient();
  t.after(() => client.close());
  client.preconnect(`${origin}/demo/app`, 'demand', 1);
  await once(server, 'connection');
  await client.ping(`${origin}/demo/app`);
  assert.equal(opened(), 1);
});

test('connections nobody took end with the client', async (t) => {
  const { server, origin } = await startServer();
  t.after(() => server.close());
  const client = createRegistryClient();
  client.preconnect(`${origin}/demo/app`, 'prefetch', 3);
  const [socket] = await once(server, 'connection');
  await client.close();
  await once(socket, 'close');
});

test('a connection that cannot be opened ahead fails only the request that needs it', async (t) => {
  const { server, origin } = await startServer();
  server.close();
  await once(server, 'close');
  const client = createRegistryClient();
  t.after(() => client.close());
  client.preconnect(`${origin}/demo/app`, 'demand', 1);
  await assert.rejects(client.ping(`${origin}/demo/app`), { code: 'ERR_REGISTRY_NETWORK' });
});
