import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { chmod, mkdtemp, rm, stat, writeFile } from 'node:fs/promises';
import { createServer } from 'node:http';
import { createConnection } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { pino } from 'pino';
import { ReplaybdError } from '../../src/base/errors.ts';
import { controlLimits } from '../../src/base/limits.ts';
import { silentLogger } from '../../src/base/log.ts';
import { controlRequest } from '../../src/daemon/control-client.ts';
import { startControl } from '../../src/daemon/control.ts';
import type { ControlHandlers } from '../../src/daemon/control-routes.ts';

// Goal: the control socket answers its documented requests, refuses everything else with a JSON
// error and a stable code, and belongs to its owner alone.
// Method: a server with recording handlers; our own client, and raw HTTP for what it never sends.

function knownDevice(id: string): string {
  if (id !== 'disk/1')
    throw new ReplaybdError('ERR_DEVICE', `no device ${id}`, { errno: 'ENOENT' });
  return id;
}

const handlers: ControlHandlers = {
  health: () => ({ ok: true }),
  devices: async () => await Promise.resolve([{ id: 'disk/1' }]),
  stats: (id) => ({ id: knownDevice(id), reads: 7 }),
  touches: (id, since) => ({ id: knownDevice(id), since }),
  metrics: () => 'replaybd_reads_total 7\n',
  attach: ({ id, image, frontend }) => ({ id, image, frontend }),
  startRecording: (id, parameters) => ({ id: knownDevice(id), ...parameters }),
  stopRecording: (id) => ({ trace: `${knownDevice(id)}.trace` }),
  detach: () => {
    throw new Error('secret detail');
  },
  snapshot: (id, parameters) => ({ id: knownDevice(id), ...parameters }),
  fork: (id, { folder, kind }) => ({ id: knownDevice(id), folder, kind: kind ?? null }),
  resize: (id, { sizeBytes }) => ({ id: knownDevice(id), sizeBytes }),
  upstreamSnapshot: (query) =>
    Promise.resolve({ status: 404, success: false, message: `no ${query.get('dev_id') ?? ''}` }),
};

async function serve(t: TestContext, log = silentLogger): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), 'replaybd-control-'));
  t.after(async () => await rm(folder, { recursive: true, force: true }));
  const socketPath = join(folder, 'control.sock');
  const control = await startControl({ socketPath, handlers, log });
  t.after(control.close);
  return socketPath;
}

/** Sends bytes as they are; gives everything the server says until it hangs up. */
async function rawHttp(socketPath: string, bytes: string): Promise<string> {
  const socket = createConnection(socketPath);
  socket.on('error', () => undefined);
  socket.write(bytes);
  let text = '';
  socket.on('data', (chunk: Buffer) => (text += chunk.toString()));
  await new Promise<void>((resolve) => socket.once('close', () => resolve()));
  return text;
}

test('every documented request is answered', async (t) => {
  const socketPath = await serve(t);
  const get = async (path: string) => await controlRequest(socketPath, 'GET', path);
  assert.deepEqual(await get('/v1/health'), { ok: true });
  assert.deepEqual(await get('/v1/devices'), [{ id: 'disk/1' }]);
  assert.deepEqual(await get('/v1/devices/disk%2F1/stats'), { id: 'disk/1', reads: 7 });
  const touches = '/v1/devices/disk%2F1/touches';
  assert.deepEqual(await get(touches), { id: 'disk/1', since: 0 });
  assert.deepEqual(await get(`${touches}?since=9`), { id: 'disk/1', since: 9 });
  for (const query of ['since=-1', 'since=', 'since=1e3', 'since=99999999999999999', 'from=1']) {
    await assert.rejects(get(`${touches}?${query}`), { code: 'ERR_CONTROL_QUERY' }, query);
  }
  assert.equal(await get('/metrics'), 'replaybd_reads_total 7\n');
  const stopped = await controlRequest(socketPath, 'POST', '/v1/devices/disk%2F1/record/stop');
  assert.deepEqual(stopped, { trace: 'disk/1.trace' });
});

test('parameters arrive, and those that would go unheeded are refused', async (t) => {
  const socketPath = await serve(t);
  const post = async (verb: string, parameters?: object) =>
    await controlRequest(socketPath, 'POST', `/v1/devices/disk%2F1/${verb}`, parameters);
  const files = { data: '/d', index: '/i' };
  assert.deepEqual(await post('snapshot'), { id: 'disk/1' });
  assert.deepEqual(await post('snapshot', files), { id: 'disk/1', ...files });
  assert.deepEqual(await post('snapshot', { kind: 'sparse' }), { id: 'disk/1', kind: 'sparse' });
  const fork = { folder: '/f', kind: 'append' };
  assert.deepEqual(await post('fork', fork), { id: 'disk/1', ...fork });
  const resize = { sizeBytes: 4096 };
  assert.deepEqual(await post('resize', resize), { id: 'disk/1', ...resize });
  const refused: [string, object?][] = [
    ['snapshot', { data: '/d' }],
    ['snapshot', { index: '/i' }],
    ['snapshot', { kind: 'thick' }],
    ['snapshot', { data: 1, index: 2 }],
    ['snapshot', { ...files, other: true }],
    ['snapshot', []],
    ['fork'],
    ['resize'],
    ['resize', { sizeBytes: 0 }],
    ['resize', { sizeBytes: -4096 }],
    ['resize', { sizeBytes: '4096' }],
    ['resize', { sizeBytes: 4096.5 }],
    ['fork', { folder: 'relative' }],
    ['fork', { folder: '/f', data: '/d' }],
    ['record/stop', { now: true }],
    ['detach', { now: true }],
  ];
  for (const [verb, parameters] of refused) {
    const what = `${verb} ${JSON.stringify(parameters)}`;
    await assert.rejects(post(verb, parameters), { code: 'ERR_CONTROL_BODY' }, what);
  }
});

test('errors keep their code; what is internal stays inside', async (t) => {
  const socketPath = await serve(t);
  const expectCode = async (method: 'GET' | 'POST', path: string, code: string) => {
    await assert.rejects(controlRequest(socketPath, method, path), (error: unknown) => {
      assert.ok(error instanceof ReplaybdError);
      assert.equal(error.code, code);
      assert.doesNotMatch(error.message, /secret/);
      return true;
    });
  };
  await expectCode('GET', '/v1/devices/other/stats', 'ERR_DEVICE');
  await expectCode('GET', '/v2/health', 'ERR_CONTROL_PATH');
  await expectCode('GET', '/v1/devices/%ff/stats', 'ERR_CONTROL_PATH');
  await expectCode('GET', '/v1/devices//stats', 'ERR_CONTROL_PATH');
  await expectCode('POST', '/v1/health', 'ERR_CONTROL_METHOD');
  await expectCode('POST', '/v1/devices/disk%2F1/detach', 'ERR_INTERNAL');
});

test('what a client does wrong is no warning in the log', async (t) => {
  const lines: string[] = [];
  const log = pino({ level: 'debug' }, { write: (line) => void lines.push(line) });
  const socketPath = await serve(t, log);
  const detach = (id: string) => controlRequest(socketPath, 'POST', `/v1/devices/${id}/detach`);
  const stats = controlRequest(socketPath, 'GET', '/v1/devices/other/stats');
  await assert.rejects(stats, { code: 'ERR_DEVICE' });
  await assert.rejects(detach('any'), { code: 'ERR_INTERNAL' });
  const [client, server] = lines.map((line) => JSON.parse(line) as Record<string, unknown>);
  assert.equal(client.level, log.levels.values.debug);
  assert.equal(client.code, 'ERR_DEVICE');
  assert.ok(!JSON.stringify(client).includes('stack'));
  assert.equal(server.level, log.levels.values.warn);
  assert.match(JSON.stringify(server.err), /secret detail.*stack/);
  assert.equal(lines.length, 2);
});

test('HTTP statuses and bodies', async (t) => {
  const socketPath = await serve(t);
  const request = (line: string, headers: string, body = '') =>
    `${line} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n${headers}\r\n${body}`;
  const post = (body: string) =>
    request('POST /v1/devices/disk%2F1/record/stop', `Content-Length: ${body.length}\r\n`, body);
  const cases: [string, RegExp][] = [
    [request('GET /v1/devices/other/stats', ''), /^HTTP\/1.1 404 .*ERR_DEVICE/s],
    [request('DELETE /v1/health', ''), /^HTTP\/1.1 405 .*allow: GET/s],
    [post('{}'), /^HTTP\/1.1 200 /],
    [post('{"now": true}'), /^HTTP\/1.1 400 .*ERR_CONTROL_BODY/s],
    [post('x'.repeat(controlLimits.bodyBytesMax + 1)), /^HTTP\/1.1 413 .*ERR_CONTROL_BODY_SIZE/s],
    ['no http at all\r\n\r\n', /^HTTP\/1.1 400 /],
  ];
  for (const [bytes, expected] of cases) assert.match(await rawHttp(socketPath, bytes), expected);
});

test('the socket is private, refused while in use and replaced when stale', async (t) => {
  const socketPath = await serve(t);
  assert.equal((await stat(socketPath)).mode & 0o777, 0o600);
  await assert.rejects(startControl({ socketPath, handlers }), { code: 'ERR_SOCKET_IN_USE' });
  const stalePath = `${socketPath}.stale`;
  const script = `require('net').createServer().listen(${JSON.stringify(stalePath)}, () => console.log('up'))`;
  const child = spawn(process.execPath, ['-e', script], { stdio: ['ignore', 'pipe', 'inherit'] });
  await once(child.stdout, 'data');
  child.kill('SIGKILL');
  await once(child, 'exit');
  assert.ok((await stat(stalePath)).isSocket());
  const control = await startControl({ socketPath: stalePath, handlers });
  assert.deepEqual(await controlRequest(stalePath, 'GET', '/v1/health'), { ok: true });
  await control.close();
  await assert.rejects(stat(stalePath), { code: 'ENOENT' });
});

test('a file that is no socket is left alone', async (t) => {
  const socketPath = await serve(t);
  const path = `${socketPath}.file`;
  await writeFile(path, 'precious');
  await chmod(path, 0o600);
  await assert.rejects(startControl({ socketPath: path, handlers }), { code: 'ERR_SOCKET_PATH' });
  assert.equal((await stat(path)).size, 8);
});

test('the client tells an absent daemon from a strange one', async (t) => {
  const socketPath = await serve(t);
  await assert.rejects(controlRequest(`${socketPath}.none`, 'GET', '/v1/health'), {
    code: 'ERR_CONTROL_UNREACHABLE',
  });
  const strangePath = `${socketPath}.strange`;
  const strange = createServer((_request, response) => response.writeHead(418).end('tea'));
  strange.listen(strangePath);
  await once(strange, 'listening');
  t.after(() => strange.close());
  await assert.rejects(controlRequest(strangePath, 'GET', '/v1/health'), {
    code: 'ERR_CONTROL_REPLY',
  });
});
