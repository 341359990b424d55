import assert from 'node:assert/strict';
import { once } from 'node:events';
import { chmodSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createServer, type IncomingMessage, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { matchAuths } from '../../src/registry/auths.ts';
import { firstOf, fixedCredentials, type Credentials } from '../../src/registry/credentials.ts';
import { dockerCredentials } from '../../src/registry/docker-credentials.ts';
import { overlaybdCredentials } from '../../src/registry/overlaybd-credentials.ts';
import type { Repository } from '../../src/registry/reference.ts';
import { temporaryFolder } from './harness.ts';

// Goal: credentials come from where Docker and overlaybd keep them, and the right entry wins.
// Method: real files, a real helper program, real HTTP servers on TCP and on a Unix socket.

const repository: Repository = { origin: 'https://reg.io', host: 'reg.io', name: 'team/app' };
const base64 = (text: string): string => Buffer.from(text).toString('base64');
const password = (username: string, secret: string): Credentials => {
  return { kind: 'password', username, password: secret };
};

test('the longest prefix of whole segments wins', () => {
  const entry = (name: string) => ({ username: name, password: 'p' });
  const auths = {
    'reg.io': entry('host'),
    'reg.io/team': entry('team'),
    'reg.io/te': entry('half a segment'),
    'reg.io/team/app2': entry('another'),
    'other.io': entry('other'),
  };
  assert.deepEqual(matchAuths(auths, 'reg.io', 'team/app'), password('team', 'p'));
  assert.deepEqual(matchAuths(auths, 'reg.io', 'teams/app'), password('host', 'p'));
  assert.equal(matchAuths(auths, 'reg.io:5000', 'team/app'), null);
  for (const broken of [null, [], 'x', { 'reg.io': null }, { 'reg.io': { auth: 'bm9jb2xvbg' } }]) {
    assert.equal(matchAuths(broken, 'reg.io', 'a'), null);
  }
});

test('a Docker configuration is read, and read again when it changed', async (t) => {
  const path = join(temporaryFolder(t), 'config.json');
  const provider = dockerCredentials(path);
  assert.equal(await provider.lookup(repository), null);
  writeFileSync(
    path,
    JSON.stringify({ auths: { 'https://reg.io/v2/': { auth: base64('me:a:b') } } }),
  );
  assert.deepEqual(await provider.lookup(repository), password('me', 'a:b'));
  writeFileSync(path, JSON.stringify({ auths: { 'reg.io': { identitytoken: 'tok' } } }));
  assert.deepEqual(await provider.lookup(repository), { kind: 'identity-token', token: 'tok' });
  const hub = { origin: 'https://registry-1.docker.io', host: 'registry-1.docker.io', name: 'a/b' };
  const hubAuths = { 'https://index.docker.io/v1/': { auth: base64('h:p') } };
  writeFileSync(path, JSON.stringify({ auths: hubAuths }));
  assert.deepEqual(await provider.lookup(hub), password('h', 'p'));
  writeFileSync(path, '{"auths": hunter2');
  await assert.rejects(provider.lookup(hub), (error) => {
    const { code, message } = error as { code: string; message: string };
    return code === 'ERR_CREDENTIAL_FILE' && !message.includes('hunter2');
  });
});

test('a Docker credential helper is asked on standard input', async (t) => {
  const folder = temporaryFolder(t);
  const program = join(folder, 'docker-credential-replaybd-test');
  writeFileSync(
    program,
    '#!/bin/sh\nread server; test "$1" = get || exit 2\ncase "$server" in\n' +
      'reg.io) echo \'{"ServerURL":"reg.io","Username":"helped","Secret":"s"}\';;\n' +
      'token.io) echo \'{"Username":"<token>","Secret":"t"}\';;\n' +
      'none.io) echo "credentials not found in native keychain"; exit 1;;\n' +
      '*) echo "secret words" >&2; exit 1;;\nesac\n',
  );
  chmodSync(program, 0o755);
  const before = process.env.PATH;
  process.env.PATH = `${folder}:${before}`;
  t.after(() => (process.env.PATH = before));
  const path = join(folder, 'config.json');
  const at = (host: string): Repository => ({ origin: `https://${host}`, host, name: 'a' });
  for (const key of ['credHelpers', 'credsStore']) {
    const helper = 'replaybd-test';
    const hosts = ['reg.io', 'token.io', 'none.io', 'broken.io'].map((host) => [host, helper]);
    const value = key === 'credsStore' ? helper : Object.fromEntries(hosts);
    writeFileSync(path, JSON.stringify({ [key]: value }));
    const provider = dockerCredentials(path);
    assert.deepEqual(await provider.lookup(at('reg.io')), password('helped', 's'));
    const token = { kind: 'identity-token', token: 't' };
    assert.deepEqual(await provider.lookup(at('token.io')), token);
    assert.equal(await provider.lookup(at('none.io')), null);
    await assert.rejects(provider.lookup(at('broken.io')), (error) => {
      const { code, message } = error as { code: string; message: string };
      return code === 'ERR_CREDENTIAL_HELPER' && !message.includes('secret words');
    });
  }
  writeFileSync(path, JSON.stringify({ credsStore: '../evil' }));
  await assert.rejects(dockerCredentials(path).lookup(repository), {
    code: 'ERR_CREDENTIAL_HELPER',
  });
});

test("overlaybd's credential file is read, and read again when it changed", async (t) => {
  const path = join(temporaryFolder(t), 'cred.json');
  const provider = overlaybdCredentials({ mode: 'file', path });
  writeFileSync(
    path,
    JSON.stringify({ auths: { 'reg.io/team': { username: 'a', password: 'b' } } }),
  );
  assert.deepEqual(await provider.lookup(repository), password('a', 'b'));
  const next = `${path}.new`;
  writeFileSync(next, JSON.stringify({ auths: { 'reg.io': { auth: base64('c:d') } } }));
  writeFileSync(path, readFileSync(next));
  assert.deepEqual(await provider.lookup(repository), password('c', 'd'));
  rmSync(path);
  assert.equal(await provider.lookup(repository), null);
});

async function credentialServer(t: TestContext, where: string | number) {
  const asked: (string | undefined)[] = [];
  let reply = JSON.stringify({
    traceId: 'x',
    success: true,
    data: { auths: { 'reg.io': { username: 'served', password: 'p' } } },
  });
  const server: Server = createServer((request: IncomingMessage, response) => {
    asked.push(request.url);
    response.end(reply);
  });
  server.listen(where);
  await once(server, 'listening');
  t.after(() => {
    server.closeAllConnections();
    server.close();
  });
  return { server, asked, setReply: (text: string) => (reply = text) };
}

test("overlaybd's credential servers are asked over HTTP and over a socket", async (t) => {
  const remote = encodeURIComponent('https://reg.io/v2/team/app/blobs');
  const tcp = await credentialServer(t, 0);
  const { port } = tcp.server.address() as AddressInfo;
  const http = overlaybdCredentials({ mode: 'http', path: `http://127.0.0.1:${port}/cred` });
  assert.deepEqual(await http.lookup(repository), password('served', 'p'));
  assert.deepEqual(tcp.asked, [`/cred?remote_url=${remote}`]);
  const path = join(temporaryFolder(t), 'cred.sock');
  const unix = await credentialServer(t, path);
  const uds = overlaybdCredentials({ mode: 'uds', path });
  assert.deepEqual(await uds.lookup(repository), password('served', 'p'));
  assert.deepEqual(unix.asked, [`/auth?remote_url=${remote}`]);
  for (const reply of ['{"success":false,"data":{"auths":{}}}', 'x', `"${'y'.repeat(100_000)}"`]) {
    tcp.setReply(reply);
    await assert.rejects(http.lookup(repository), { code: 'ERR_CREDENTIAL_SERVER' });
  }
  const wrong = overlaybdCredentials({ mode: 'https', path: 'http://127.0.0.1/' });
  await assert.rejects(wrong.lookup(repository), { code: 'ERR_CREDENTIAL_SERVER' });
});

test('providers are asked in order until one knows', async () => {
  const provider = firstOf([
    fixedCredentials('other.io', 'x', 'y'),
    fixedCredentials('reg.io', 'a', 'b'),
    fixedCredentials(null, 'c', 'd'),
  ]);
  assert.deepEqual(await provider.lookup(repository), password('a', 'b'));
});
