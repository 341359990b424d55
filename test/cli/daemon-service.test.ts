import assert from 'node:assert/strict';
import { once } from 'node:events';
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { createServer as createHttpServer } from 'node:http';
import { createServer, type AddressInfo } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { test } from 'node:test';
import { request } from 'undici';
import { controlRequest } from '../../src/daemon/control-client.ts';
import { CliProcess, type CliOptions } from '../support/cli.ts';
import { DatagramReceiver } from '../support/datagram-receiver.ts';
import { scratchOf, type Scratch } from '../support/scratch.ts';

// Goal: the daemon is the service that its systemd unit and overlaybd.json describe: it tells when it
// is ready, lives and stops, logs and exports where it should, and survives SIGHUP.
// Method: the command with a notify socket and a configuration of its own.

/** A daemon that listens, with flags of its own. */
async function startDaemon(scratch: Scratch, flags: readonly string[], options: CliOptions = {}) {
  const common = ['--socket', scratch.path('daemon.socket'), '--cache', 'none'];
  const daemon = new CliProcess(scratch, ['daemon', ...common, ...flags], options);
  const socketPath = (await daemon.line()).replace('listening on ', '');
  return { daemon, socketPath };
}

const textOf = (path: string) => (existsSync(path) ? readFileSync(path, 'utf8') : '');

test('the daemon tells its service manager, and follows overlaybd.json', async (t) => {
  const scratch = scratchOf(t);
  const manager = new DatagramReceiver(scratch.path('notify'));
  scratch.atEnd(() => manager.close());
  const config = {
    logConfig: { logLevel: 1, logPath: scratch.path('log') },
    auditPath: scratch.path('audit'),
    exporterConfig: { enable: true, port: 0, uriPrefix: '/own' },
    ioEngine: 0,
  };
  writeFileSync(scratch.path('overlaybd.json'), JSON.stringify(config));
  const args = ['--config', scratch.path('overlaybd.json')];
  const env = { NOTIFY_SOCKET: scratch.path('notify'), WATCHDOG_USEC: '60000' };
  const { daemon } = await startDaemon(scratch, args, { env });
  const said: string[] = [];
  while (!said.includes('WATCHDOG=1')) {
    said.push(...manager.take());
    await sleep(5);
  }
  assert.match(said[0], /^EXTEND_TIMEOUT_USEC=90000000\nSTATUS=attaching devices again$/);
  assert.match(said[1], /^READY=1\nSTATUS=serving on .*daemon\.socket$/);
  const port = /"address":"127\.0\.0\.1".*"port":(\d+)/.exec(textOf(scratch.path('log')))?.[1];
  const metrics = await request(`http://127.0.0.1:${port}/own`);
  assert.match(await metrics.body.text(), /^replaybd_cache_quota_bytes /m);
  assert.match(textOf(scratch.path('log')), /"key":"ioEngine"/);
  daemon.kill('SIGHUP');
  while (!textOf(scratch.path('log')).includes('opened again')) await sleep(5);
  daemon.kill('SIGTERM');
  const { code, stderr } = await daemon.ended;
  assert.deepEqual([code, stderr], [0, '']);
  assert.ok(manager.take().includes('STOPPING=1'));
});

test('what a daemon cannot do is in its audit log and its log', async (t) => {
  const scratch = scratchOf(t);
  const config = {
    auditPath: scratch.path('audit'),
    logPath: scratch.path('log'),
    exporterConfig: { enable: true },
    // Of the documentation's range: no machine has it.
    replaybd: { exporterAddress: '192.0.2.1' },
  };
  writeFileSync(scratch.path('overlaybd.json'), JSON.stringify(config));
  const { daemon, socketPath } = await startDaemon(scratch, [
    '--config',
    scratch.path('overlaybd.json'),
  ]);
  const parameters = { id: 'one', image: scratch.path('none.json'), frontend: 'nbd' };
  await assert.rejects(controlRequest(socketPath, 'POST', '/v1/devices', parameters), /none\.json/);
  daemon.kill('SIGTERM');
  await daemon.ended;
  assert.match(
    textOf(scratch.path('log')),
    /exporterConfig, .*EADDRNOTAVAIL: .* 192\.0\.2\.1:9863/,
  );
  assert.match(
    textOf(scratch.path('audit')),
    /\|attach\[pathname=one\]\[latency=\d+\]\[error=ERR_\w+\]\n$/,
  );
});

test('an address of the snapshot call that cannot be used keeps no disk down', async (t) => {
  const scratch = scratchOf(t);
  const taken = createServer().listen(0, '127.0.0.1');
  await once(taken, 'listening');
  t.after(() => taken.close());
  const { port } = taken.address() as AddressInfo;
  const cases: [string, RegExp][] = [
    [
      `http://127.0.0.1:${port}`,
      new RegExp(`not served: listen EADDRINUSE: [^:]*127.0.0.1:${port}"`),
    ],
    ['http://0.0.0.0:0', /not served: serviceConfig\.address: expected http:\/\/ and a loopback/],
  ];
  for (const [i, [address, expected]] of cases.entries()) {
    const log = scratch.path(`log${i}`);
    const config = { enableAudit: false, logPath: log, serviceConfig: { enable: true, address } };
    writeFileSync(scratch.path('overlaybd.json'), JSON.stringify(config));
    const { daemon, socketPath } = await startDaemon(scratch, [
      '--config',
      scratch.path('overlaybd.json'),
    ]);
    assert.deepEqual(await controlRequest(socketPath, 'GET', '/v1/devices'), []);
    daemon.kill('SIGTERM');
    assert.equal((await daemon.ended).code, 0);
    assert.match(textOf(log), expected);
    assert.doesNotMatch(textOf(log), /cannot accept a client/);
  }
});

test('a service is ready when its devices are attached again, or have failed', async (t) => {
  const scratch = scratchOf(t);
  const manager = new DatagramReceiver(scratch.path('notify'));
  scratch.atEnd(() => manager.close());
  const answer = Promise.withResolvers<void>();
  const registry = createHttpServer((_request, response) => {
    void answer.promise.then(() => response.writeHead(404).end());
  }).listen(0, '127.0.0.1');
  await once(registry, 'listening');
  t.after(() => registry.close());
  const asked = once(registry, 'request');
  const { port } = registry.address() as AddressInfo;
  const state = scratch.path('state');
  mkdirSync(state);
  const device = { id: 'one', image: `http://127.0.0.1:${port}/app:v1`, frontend: 'nbd' };
  writeFileSync(`${state}/one.device.json`, JSON.stringify({ version: 1, device }));
  const args = ['--state', state, '--log-level', 'silent'];
  const env = { NOTIFY_SOCKET: scratch.path('notify') };
  const { daemon, socketPath } = await startDaemon(scratch, args, { env });
  const states = async () => {
    return (await controlRequest(socketPath, 'GET', '/v1/health')) as { devices: object };
  };
  await asked;
  assert.partialDeepStrictEqual(await states(), { devices: { opening: 1 } });
  assert.deepEqual(
    manager.take().filter((text) => text.includes('READY')),
    [],
  );
  answer.resolve();
  let isReady = false;
  while (!isReady) {
    isReady = manager.take().some((text) => text.startsWith('READY=1'));
    await sleep(5);
  }
  assert.partialDeepStrictEqual(await states(), { devices: { failed: 1 } });
  daemon.kill('SIGTERM');
  await daemon.ended;
});
