import assert from 'node:assert/strict';
import { existsSync, mkdirSync, readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { controlRequest } from '../../src/daemon/control-client.ts';
import type { DeviceSummary, ResizeFacts } from '../../src/daemon/served-device.ts';
import { NbdReader } from '../../src/demo/nbd-client.ts';
import { startEmbeddedRegistry } from '../../src/registry/embedded/server.ts';
import { leftovers, type ReadyFacts } from '../support/attached.ts';
import { cli, CliProcess, cliJson, cliOutput, serveRegistry } from '../support/cli.ts';
import { needs } from '../support/needs.ts';
import { Scratch, scratchOf } from '../support/scratch.ts';
import { acceptingPeer } from '../support/silent-peers.ts';
import { makeTestImage, type TestImage } from '../support/test-image.ts';

// Goal: one daemon serves many devices, which the command line tool attaches, watches and detaches; a
// daemon that is killed leaves nothing that the next one does not put in order.
// Method: `replaybd daemon` as a process of its own, its commands, NBD and FUSE guests, and SIGKILL.

const fixture = new Scratch();
let image: TestImage;
let disk = Buffer.alloc(0);

before(async () => {
  const url = await serveRegistry(fixture, fixture.path('registry'));
  image = await makeTestImage(fixture, url);
  disk = readFileSync(image.raw);
});
after(() => fixture.close());

/** A daemon whose files are all in the scratch. */
async function startDaemon(scratch: Scratch): Promise<CliProcess> {
  const folders = ['--cache', scratch.path('cache'), '--trace-dir', scratch.path('traces')];
  const socket = ['--socket', scratch.path('control')];
  const daemon = new CliProcess(scratch, ['daemon', '--json', ...socket, ...folders]);
  const { control, pid } = JSON.parse(await daemon.line()) as { control: string; pid: number };
  assert.equal(control, scratch.path('control'));
  assert.equal(pid, daemon.pid);
  return daemon;
}

async function attach(scratch: Scratch, id: string, ...flags: string[]): Promise<ReadyFacts> {
  const nbd = ['--frontend', 'nbd', '--nbd-socket', scratch.path(`${id}.nbd`)];
  return await cliJson<ReadyFacts>(scratch, [
    ...['attach', '--daemon', '--socket', scratch.path('control'), image.reference],
    ...['--id', id, ...(flags.includes('--frontend') ? [] : nbd), ...flags],
  ]);
}

async function list(scratch: Scratch): Promise<DeviceSummary[]> {
  return await cliJson<DeviceSummary[]>(scratch, ['ls', '--socket', scratch.path('control')]);
}

async function untilReady(scratch: Scratch, count: number): Promise<void> {
  const control = scratch.path('control');
  for (const end = Date.now() + 60_000; Date.now() < end;) {
    const { devices } = (await controlRequest(control, 'GET', '/v1/health')) as {
      devices: { ready: number; failed: number };
    };
    if (devices.ready === count) return;
    assert.equal(devices.failed, 0);
    await sleep(20);
  }
  assert.fail(JSON.stringify(await list(scratch)));
}

async function assertServed(socketPath: string): Promise<void> {
  const reader = await NbdReader.connect(socketPath);
  const bytes = await reader.read(2 ** 20, 2 ** 18);
  assert.ok(disk.subarray(2 ** 20, 2 ** 20 + bytes.length).equals(bytes));
  reader.close();
}

test('devices are attached at once, listed, watched and detached', async (t) => {
  const scratch = scratchOf(t);
  const daemon = await startDaemon(scratch);
  const control = scratch.path('control');
  assert.equal(statSync(control).mode & 0o777, 0o600);
  const [first] = await Promise.all([
    attach(scratch, 'a', '--mode', 'record'),
    attach(scratch, 'b', '--mode', 'off'),
    attach(scratch, 'b', '--mode', 'off'),
  ]);
  assert.deepEqual([first.control, first.device, first.id], [control, 'a', 'a']);
  await Promise.all([assertServed(scratch.path('a.nbd')), assertServed(scratch.path('b.nbd'))]);
  const devices = await list(scratch);
  for (const one of devices) assert.partialDeepStrictEqual(one, { control, socketPath: control });
  assert.deepEqual(devices.map(({ device, state }) => `${device} ${state}`).sort(), [
    'a ready',
    'b ready',
  ]);
  const socket = ['--socket', control];
  assert.match(await cliOutput(scratch, ['ls', ...socket]), /^DEVICE .*\na +ready +record/);
  const stats = await cliJson<object>(scratch, ['stats', 'a', ...socket]);
  assert.partialDeepStrictEqual(stats, { device: 'a', pid: daemon.pid, control });
  const stop = ['record', 'stop', 'a', ...socket];
  const stopped = await cliJson<{ device: string; records: number }>(scratch, stop);
  assert.equal(stopped.device, 'a');
  assert.ok(stopped.records > 0);
  const trace = scratch.path('second.trace');
  await cliOutput(scratch, ['record', 'start', 'b', '--trace', trace, ...socket]);
  await assertServed(scratch.path('b.nbd'));
  await cliOutput(scratch, ['record', 'stop', 'b', ...socket]);
  assert.ok(existsSync(trace));

  const args = [
    'attach',
    '--daemon',
    ...socket,
    image.reference,
    '--frontend',
    'none',
    '--id',
    'a',
  ];
  const conflict = await cli(scratch, args);
  assert.equal(conflict.code, 1);
  assert.match(conflict.stderr, /frontend, frontendParameters differ.*ERR_DEVICE_CONFLICT/s);
  assert.equal((await cli(scratch, [...args, '--cache', 'none'])).code, 2);
  const several = await cli(scratch, ['detach', ...socket]);
  assert.match(several.stderr, /those of .*ERR_CONTROL_AMBIGUOUS/);
  assert.match(await cliOutput(scratch, ['detach', 'a', ...socket]), /^a is detached$/m);
  assert.ok(!existsSync(scratch.path('a.nbd')));
  assert.equal((await list(scratch)).length, 1);
  daemon.kill('SIGTERM');
  const { code, stderr } = await daemon.ended;
  assert.equal(code, 0, stderr);
  assert.ok(!existsSync(control) && !existsSync(scratch.path('b.nbd')));
});

test('a daemon that is killed is followed by one that serves the same devices', async (t) => {
  const scratch = scratchOf(t);
  const killed = await startDaemon(scratch);
  const upper = scratch.path('upper');
  await Promise.all([
    attach(scratch, 'plain', '--mode', 'auto'),
    attach(scratch, 'written', '--mode', 'off', '--upper', upper),
  ]);
  await attach(scratch, 'gone', '--mode', 'off');
  await cliOutput(scratch, ['detach', 'gone', '--socket', scratch.path('control')]);
  killed.kill('SIGKILL');
  await killed.ended;
  assert.ok(existsSync(scratch.path('plain.nbd')), 'sockets stay behind');

  const daemon = await startDaemon(scratch);
  await untilReady(scratch, 2);
  await Promise.all([
    assertServed(scratch.path('plain.nbd')),
    assertServed(scratch.path('written.nbd')),
  ]);
  // Whoever retries what it asked of the killed one gets the same device.
  await attach(scratch, 'plain', '--mode', 'auto');
  assert.equal((await list(scratch)).length, 2);
  const second = await cli(scratch, [
    'daemon',
    '--socket',
    scratch.path('control'),
    '--cache',
    'none',
  ]);
  assert.equal(second.code, 1);
  assert.match(second.stderr, /ERR_SOCKET_IN_USE/);
  await assertServed(scratch.path('plain.nbd'));
  daemon.kill('SIGINT');
  assert.equal((await daemon.ended).code, 0);
});

test(
  'mounts of a killed daemon are put in order and served again',
  { skip: needs('root') },
  async (t) => {
    const scratch = scratchOf(t);
    const mount = scratch.path('mnt');
    mkdirSync(mount);
    const killed = await startDaemon(scratch);
    await attach(
      scratch,
      `m${killed.pid}`,
      '--frontend',
      'fuse',
      '--mode',
      'off',
      '--mount',
      mount,
    );
    const file = join(mount, 'modules', 'pino', 'package.json');
    const text = readFileSync(file, 'utf8');
    killed.kill('SIGKILL');
    await killed.ended;
    assert.ok(leftovers(mount).length > 0, 'the mount stays behind');

    const daemon = await startDaemon(scratch);
    await untilReady(scratch, 1);
    assert.equal(readFileSync(file, 'utf8'), text);
    await cliOutput(scratch, ['detach', '--socket', scratch.path('control')]);
    assert.deepEqual(leftovers(mount), []);
    daemon.kill('SIGTERM');
    assert.equal((await daemon.ended).code, 0);
  },
);

test('a daemon ends while a registry keeps it waiting', async (t) => {
  const scratch = scratchOf(t);
  const daemon = await startDaemon(scratch);
  const registry = await startEmbeddedRegistry({ root: scratch.path('registry') });
  scratch.atEnd(() => registry.close());
  registry.setFaults(() => ({ kind: 'delay', ms: 600_000 }));
  const body = { id: 'd', image: `${registry.url}/a/b:c`, frontend: 'none' };
  const asked = controlRequest(scratch.path('control'), 'POST', '/v1/devices', body);
  const refused = assert.rejects(asked);
  const devices = async () => await controlRequest(scratch.path('control'), 'GET', '/v1/devices');
  while (((await devices()) as DeviceSummary[]).length === 0);
  daemon.kill('SIGTERM');
  assert.equal((await daemon.ended).code, 0);
  await refused;
});

test('writable devices of a daemon on a socket of its own are snapshot, forked and grown', async (t) => {
  const scratch = scratchOf(t);
  const daemon = await startDaemon(scratch);
  for (const id of ['a', 'b']) await attach(scratch, id, '--upper', scratch.path(`upper-${id}`));
  const socket = ['--socket', scratch.path('control')];
  const several = await cli(scratch, ['snapshot', ...socket]);
  assert.match(
    several.stderr,
    /those of a, b\. Name the device, or the control socket .* --socket\./,
  );
  const snapshot = await cliJson<{ device: string }>(scratch, ['snapshot', 'a', ...socket]);
  assert.equal(snapshot.device, 'a');
  const folder = scratch.path('forked');
  const fork = await cliJson<{ device: string }>(scratch, ['fork', 'b', folder, ...socket]);
  assert.equal(fork.device, 'b');
  const gone = await cliJson<{ device: string }>(scratch, ['detach', 'b', ...socket]);
  assert.equal(gone.device, 'b');
  // The only one that is left needs no name.
  const size = String((2 * image.virtualSizeBytes) / 2 ** 30);
  const facts = await cliJson<ResizeFacts>(scratch, ['resize', '--size', size, ...socket]);
  assert.deepEqual([facts.device, facts.virtualSizeBytes], ['a', 2 * image.virtualSizeBytes]);
  const both = ['resize', '--size', size, '--config', 'config.v1.json', ...socket];
  assert.equal((await cli(scratch, both)).code, 2);
  daemon.kill('SIGTERM');
  assert.equal((await daemon.ended).code, 0);
});

test('a state folder has one daemon', async (t) => {
  const scratch = scratchOf(t);
  const state = ['--state', scratch.path('state'), '--cache', 'none'];
  const first = ['daemon', '--socket', scratch.path('first'), ...state];
  const daemon = new CliProcess(scratch, first);
  await daemon.line();
  const second = await cli(scratch, ['daemon', '--socket', scratch.path('second'), ...state]);
  assert.equal(second.code, 1);
  assert.match(
    second.stderr,
    /state: another daemon has the devices .*--state.*\(ERR_STATE_LOCKED\)/,
  );
  assert.ok(!existsSync(scratch.path('second')));
  const same = await cli(scratch, first);
  assert.match(same.stderr, /\(ERR_SOCKET_IN_USE\)/);
  // A daemon that was killed has left it.
  daemon.kill('SIGKILL');
  await daemon.ended;
  const next = new CliProcess(scratch, first);
  await next.line();
  next.kill('SIGTERM');
  assert.equal((await next.ended).code, 0);
});

/** Connections that a socket has, as the kernel's table has them beside the socket itself. */
function clientsOf(socketPath: string): number {
  const rows = readFileSync('/proc/net/unix', 'utf8').split('\n');
  return rows.filter((row) => row.endsWith(` ${socketPath}`)).length - 1;
}

test('a device that is given up before it is ready does not stay with the daemon', async (t) => {
  const scratch = scratchOf(t);
  const daemon = await startDaemon(scratch);
  const { port } = await acceptingPeer(scratch);
  const args = [
    ...['attach', '--daemon', '--socket', scratch.path('control'), '--id', 'one'],
    ...[`http://127.0.0.1:${port}/app:v1`, '--frontend', 'nbd'],
  ];
  const first = new CliProcess(scratch, args);
  while ((await list(scratch)).length === 0) await sleep(20);
  const second = new CliProcess(scratch, args);
  while (clientsOf(scratch.path('control')) < 2) await sleep(20);
  second.kill('SIGINT');
  assert.equal((await second.ended).code, 130);
  assert.deepEqual(
    (await list(scratch)).map(({ state }) => state),
    ['opening'],
    'it is not for the second to give up',
  );
  first.kill('SIGINT');
  const { code, stderr } = await first.ended;
  assert.equal(code, 130, stderr);
  assert.deepEqual(await list(scratch), []);
  daemon.kill('SIGTERM');
  assert.equal((await daemon.ended).code, 0);
});
