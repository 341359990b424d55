import assert from 'node:assert/strict';
import { once } from 'node:events';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { text } from 'node:stream/consumers';
import { inspect } from 'node:util';
import { test, type TestContext } from 'node:test';
import { systemClock, type Clock } from '../../src/base/clock.ts';
import { createRegistryClient } from '../../src/registry/client.ts';
import { fixedCredentials, type CredentialProvider } from '../../src/registry/credentials.ts';
import { PASSWORD, readRange, setUp, USER } from './harness.ts';

// Goal: tokens live as long as their server says and no longer, are renewed without making a
// read wait, and no secret appears in an error.
// Method: a hand-made registry whose token answers are chosen by the test; a clock moved by hand.

const DIGEST = `sha256:${'ab'.repeat(32)}`;
const TOKEN = 'token-very-secret';

interface Asked {
  method: string;
  url: string;
  body: string;
}

async function tokenServer(t: TestContext, answer: (count: number) => unknown) {
  const asked: Asked[] = [];
  const authorizations: (string | undefined)[] = [];
  const server = createServer((request, response) => {
    void (async () => {
      const body = await text(request);
      if (request.url?.startsWith('/auth') === true) {
        asked.push({ method: request.method ?? '', url: request.url, body });
        const given = answer(asked.length);
        response.writeHead(given === null ? 401 : 200).end(JSON.stringify(given));
        return;
      }
      const { authorization } = request.headers;
      authorizations.push(authorization);
      const realm = `http://${request.headers.host}/auth?fixed=1`;
      if (authorization === undefined || authorization.endsWith('stale')) {
        const challenge = `Bearer realm="${realm}",service="a, b",scope="repository:x:pull"`;
        response.writeHead(401, { 'www-authenticate': challenge }).end();
        return;
      }
      response.writeHead(206, { 'content-range': 'bytes 0-3/100' }).end('abcd');
    })();
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  t.after(() => {
    server.closeAllConnections();
    server.close();
  });
  const { port } = server.address() as AddressInfo;
  return { url: `http://127.0.0.1:${port}`, asked, authorizations };
}

function open(t: TestContext, url: string, clock: Clock, credentials?: CredentialProvider) {
  const client = createRegistryClient({
    clock,
    credentials: credentials ?? fixedCredentials(null, USER, PASSWORD),
  });
  t.after(() => client.close());
  return client.blobSource(`${url}/x`, DIGEST, 100);
}

test('a token is used for its life, renewed before its end, and never after it', async (t) => {
  let nowMs = 0;
  const clock: Clock = { ...systemClock, nowMs: () => nowMs };
  const answer = (count: number) => ({ access_token: `t${count}`, expires_in: 100 });
  const { url, asked, authorizations } = await tokenServer(t, answer);
  const source = open(t, url, clock);
  await readRange(source, 0, 4);
  nowMs = 70_000;
  await readRange(source, 0, 4);
  assert.equal(asked.length, 1);
  nowMs = 80_000;
  await readRange(source, 0, 4);
  assert.equal(authorizations.at(-1), 'Bearer t1', 'the old token serves while it is renewed');
  while (asked.length < 2) await systemClock.sleep(1);
  await systemClock.sleep(20);
  await readRange(source, 0, 4);
  assert.equal(authorizations.at(-1), 'Bearer t2');
  nowMs = 1_000_000;
  await readRange(source, 0, 4);
  assert.equal(authorizations.at(-1), 'Bearer t3');
  const first = new URL(asked[0]?.url ?? '', url);
  assert.deepEqual(Object.fromEntries(first.searchParams), {
    fixed: '1',
    service: 'a, b',
    scope: 'repository:x:pull',
  });
});

test('an identity token is exchanged with POST', async (t) => {
  const { url, asked } = await tokenServer(t, () => ({ access_token: 'x' }));
  const identity = { kind: 'identity-token' as const, token: TOKEN };
  await readRange(open(t, url, systemClock, { lookup: async () => identity }), 0, 4);
  assert.equal(asked.length, 1);
  assert.equal(asked[0]?.method, 'POST');
  assert.deepEqual(Object.fromEntries(new URLSearchParams(asked[0]?.body)), {
    grant_type: 'refresh_token',
    service: 'a, b',
    scope: 'repository:x:pull',
    client_id: 'replaybd',
    refresh_token: TOKEN,
  });
});

test('a token that is refused at once is ERR_REGISTRY_AUTH after one renewal', async (t) => {
  const { url, asked } = await tokenServer(t, () => ({ token: 'stale' }));
  await assert.rejects(readRange(open(t, url, systemClock), 0, 4), { code: 'ERR_REGISTRY_AUTH' });
  assert.equal(asked.length, 1);
});

test('an answer without a usable token is ERR_REGISTRY_AUTH', async (t) => {
  const answers = [{}, { token: 5 }, [], 'x', { token: 'a b' }, { token: 'a\r\nb: c' }, null];
  answers.push({ token: 'x'.repeat(40_000) });
  for (const answer of answers) {
    const { url } = await tokenServer(t, () => answer);
    await assert.rejects(readRange(open(t, url, systemClock), 0, 4), { code: 'ERR_REGISTRY_AUTH' });
  }
});

test('no error shows a password, a token, or the signature of a redirect', async (t) => {
  const secrets = [PASSWORD, Buffer.from(`${USER}:${PASSWORD}`).toString('base64'), TOKEN];
  secrets.push('signature=');
  const errors: unknown[] = [];
  const keep = (error: unknown): void => void errors.push(error);
  const stale = await tokenServer(t, () => ({ token: `${TOKEN}-stale` }));
  await readRange(open(t, stale.url, systemClock), 0, 4).catch(keep);
  const refusing = await tokenServer(t, () => null);
  await readRange(open(t, refusing.url, systemClock), 0, 4).catch(keep);
  for (const kind of ['basic', 'bearer'] as const) {
    const auth = { kind, username: USER, password: PASSWORD };
    const { registry, client, digest, name } = await setUp(t, { auth, redirectBlobs: true });
    const source = client.blobSource(name, digest, 300_000);
    for (const fault of [
      { kind: 'cut' as const, afterBytes: 5 },
      { kind: 'status' as const, status: 503 },
      { kind: 'status' as const, status: 403 },
      { kind: 'ignore-range' as const },
    ]) {
      registry.setFaults(({ isTarget }) => (isTarget ? fault : undefined));
      await readRange(source, 0, 100).catch(keep);
    }
  }
  assert.equal(errors.length, 10);
  for (const error of errors) {
    const shown = inspect(error, { depth: 8, showHidden: true });
    for (const secret of secrets) assert.ok(!shown.includes(secret), shown);
  }
});
