import assert from 'node:assert/strict';
import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, statSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { after, before, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { cli, cliJson, cliOutput, type CliOptions } from '../support/cli.ts';
import { needs } from '../support/needs.ts';
import { writeWholeDiskList, type PlayOutput } from '../support/play.ts';
import { Scratch, scratchOf } from '../support/scratch.ts';
import { makeTestImage, type TestImage } from '../support/test-image.ts';

// Goal: images and traces travel through the registry that most people run, with the credentials that
// Docker's configuration holds, and a wrong password is an error at once that gives nothing away.
// Method: docker-registry with htpasswd; push, play, record, trace push and pull, replay.

const skip = needs('docker-registry', 'htpasswd');
const USER = 'reader';
const PASSWORD = 'hunter2-very-secret';
const fixture = new Scratch();
let host = '';
let image: TestImage;

before(async () => {
  if (skip !== false) return;
  host = await startDockerRegistry(fixture);
  logIn(fixture, PASSWORD);
  image = await makeTestImage(fixture, `http://${host}`);
  writeWholeDiskList(fixture.path('whole-disk'), image.virtualSizeBytes);
});
after(() => fixture.close());

/** Writes what `docker login` does, where the command line tool looks for it. */
function logIn(scratch: Scratch, password: string): void {
  mkdirSync(scratch.path('docker'));
  const auth = Buffer.from(`${USER}:${password}`).toString('base64');
  writeFileSync(
    scratch.path('docker', 'config.json'),
    JSON.stringify({ auths: { [host]: { auth } } }),
  );
}

async function startDockerRegistry(scratch: Scratch): Promise<string> {
  const address = `127.0.0.1:${await freePort()}`;
  const users = execFileSync('htpasswd', ['-Bni', USER], { input: PASSWORD });
  writeFileSync(scratch.path('htpasswd'), users);
  const config = {
    version: 0.1,
    log: { level: 'error' },
    storage: { filesystem: { rootdirectory: scratch.path('content') } },
    http: { addr: address },
    auth: { htpasswd: { realm: 'test', path: scratch.path('htpasswd') } },
  };
  writeFileSync(scratch.path('config.yml'), JSON.stringify(config));
  const command = ['serve', scratch.path('config.yml')];
  const registry = spawn('docker-registry', command, { stdio: 'ignore' });
  const ended = once(registry, 'exit');
  scratch.atEnd(async () => {
    registry.kill('SIGKILL');
    await ended;
  });
  while ((await fetch(`http://${address}/v2/`).catch(() => null)) === null) await sleep(20);
  return address;
}

async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const address = server.address();
  assert.ok(address !== null && typeof address === 'object');
  server.close();
  await once(server, 'close');
  return address.port;
}

function playArgs(scratch: Scratch, ...more: string[]): string[] {
  const folders = ['--cache', scratch.path('cache'), '--trace-dir', scratch.path('traces')];
  return ['play', image.reference, '--reads', fixture.path('whole-disk'), ...folders, ...more];
}

test('an image and its trace travel', { skip }, async (t) => {
  const [author, user] = [scratchOf(t), scratchOf(t)];
  for (const scratch of [author, user]) logIn(scratch, PASSWORD);
  const words = ['--workload', 'serve', 'everything'];
  const recorded = await cliJson<PlayOutput>(
    author,
    playArgs(author, '--mode', 'record', ...words),
  );
  assert.equal(recorded.sha256, image.sha256);
  const { trace } = recorded.report;
  assert.ok(trace !== null && trace.records > 0);
  const digest = await cliOutput(author, ['trace', 'push', image.reference, trace.path]);
  assert.match(digest, /^sha256:[0-9a-f]{64}$/);

  // Docker's registry has no referrers API: the list is under the fallback tag.
  const listed = await cliOutput(user, ['trace', 'ls', image.reference]);
  assert.match(listed, new RegExp(`^${digest}  `));
  await cliOutput(user, ['trace', 'pull', image.reference, '--trace-dir', user.path('traces')]);
  const replayed = await cliJson<PlayOutput>(user, playArgs(user, '--mode', 'auto', ...words));
  assert.equal(replayed.report.mode, 'replay');
  assert.equal(replayed.report.trace?.records, trace.records);
  assert.equal(replayed.sha256, image.sha256);
  // Packed: the newest trace of the workload is as old, so it is taken from a file.
  const packed = author.path('packed.trace');
  await cliOutput(author, [
    ...['trace', 'pack', trace.path, image.reference, '--cache', 'none', '--push', '-o', packed],
    ...['--blob', author.path('hot')],
  ]);
  const hotArgs = ['--mode', 'replay', '--trace', packed, '--packed', 'on', '--cache', 'none'];
  const hot = await cliJson<PlayOutput>(user, playArgs(user, ...hotArgs));
  assert.equal(hot.sha256, image.sha256);
  assert.equal(hot.report.replay?.end, 'complete');
  assert.equal(hot.report.replay.failed, 0);
  assert.equal(hot.report.quality.lanes.prefetch.bytes, statSync(author.path('hot')).size);
  const another = await cliJson<PlayOutput>(
    user,
    playArgs(user, '--mode', 'replay', '--workload', 'x'),
  );
  assert.equal(another.report.mode, 'off', 'another workload has another trace');
});

test('a wrong password is told and kept', { skip }, async (t) => {
  const scratch = scratchOf(t);
  const wrong = 'another-very-secret';
  logIn(scratch, wrong);
  const commands = [
    playArgs(scratch, '--log-level', 'debug'),
    ['attach', image.reference, '--frontend', 'nbd', '--log-level', 'debug'],
    ['trace', 'ls', image.reference],
  ];
  for (const command of commands) {
    assertRefused(await cli(scratch, command, { env: { REPLAYBD_DEBUG: '1' } }), wrong);
  }
});

test('without credentials a private image is refused', { skip }, async (t) => {
  const scratch = scratchOf(t);
  const options: CliOptions = { env: { DOCKER_CONFIG: scratch.path('empty') } };
  assertRefused(await cli(scratch, playArgs(scratch), options), PASSWORD);
});

function assertRefused(
  { code, stdout, stderr }: Awaited<ReturnType<typeof cli>>,
  secret: string,
): void {
  assert.equal(code, 1, stderr);
  assert.equal(stdout, '');
  assert.match(stderr, /ERR_REGISTRY_AUTH/);
  assert.ok(stderr.includes(host), 'the registry is named');
  const secrets = [secret, Buffer.from(`${USER}:${secret}`).toString('base64')];
  for (const text of secrets) assert.ok(!stderr.includes(text), 'secrets are kept');
}
