import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { cpSync, existsSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { packageRoot } from '../../src/base/package-root.ts';
import { NbdReader } from '../../src/demo/nbd-client.ts';
import { digestOf } from '../../src/registry/digest.ts';
import { startEmbeddedRegistry } from '../../src/registry/embedded/server.ts';
import { CliProcess } from '../support/cli.ts';
import { scratchOf, type Scratch } from '../support/scratch.ts';
import { acceptingPeer, unreachablePeer, type SilentPeer } from '../support/silent-peers.ts';
import { makeTestImage } from '../support/test-image.ts';

// Goal: a process that is told to end does so, whatever a registry, a token server or a guest keeps it
// waiting for; a second signal ends it at once.
// Method: peers that accept and say nothing, or do not answer a SYN, and SIGTERM once a command waits
// for them. The bound is far above what ending takes, and below every time-out of the network.

const END_MS_MAX = 6000;

/** SIGTERM, and that the process heeds it well before any time-out. */
async function assertEnds(command: CliProcess, code: number): Promise<void> {
  const startMs = performance.now();
  command.kill('SIGTERM');
  const ended = await command.ended;
  assert.equal(ended.code, code, ended.stderr);
  const tookMs = performance.now() - startMs;
  assert.ok(tookMs < END_MS_MAX, `took ${tookMs.toFixed(0)} ms to end`);
}

const PEERS = { acceptingPeer, unreachablePeer };

/** One that hangs the command: it must end with "interrupted". */
async function assertInterrupted(
  scratch: Scratch,
  peer: SilentPeer,
  args: readonly string[],
): Promise<void> {
  const command = new CliProcess(scratch, args);
  await peer.untilAsked();
  await assertEnds(command, 130);
}

for (const [name, start] of Object.entries(PEERS)) {
  for (const scheme of ['http', 'https']) {
    test(`commands end while an ${name} keeps them waiting (${scheme})`, async (t) => {
      const scratch = scratchOf(t);
      const commands = (origin: string): string[][] => {
        const config = scratch.path('config.v1.json');
        const lowers = [{ digest: digestOf(Buffer.from('a layer')) }];
        const repoBlobUrl = `${origin}/v2/a/b/blobs`;
        writeFileSync(config, JSON.stringify({ repoBlobUrl, lowers, resultFile: '' }));
        const cache = ['--cache', 'none'];
        return [
          ['attach', `${origin}/a/b:c`, '--frontend', 'none', ...cache],
          ['attach', config, '--frontend', 'none', ...cache],
          ['export', config, scratch.path('disk'), ...cache],
          ['convert', `${origin}/a/b:c`, `oci:${scratch.path('layout')}`],
        ];
      };
      for (let i = 0; i < commands('').length; i += 1) {
        // Each has a peer of its own, so that what it asks can be told from what others asked.
        const peer = await start(scratch);
        await assertInterrupted(scratch, peer, commands(`${scheme}://127.0.0.1:${peer.port}`)[i]);
      }
      assert.ok(!existsSync(scratch.path('disk')));
    });
  }
}

test('an attach ends while a token server keeps it waiting', async (t) => {
  const scratch = scratchOf(t);
  const peer = await acceptingPeer(scratch);
  const realm = `http://127.0.0.1:${peer.port}/token`;
  const registry = createServer((_request, response) => {
    response.writeHead(401, { 'www-authenticate': `Bearer realm="${realm}",service="s"` }).end();
  });
  registry.listen(0, '127.0.0.1');
  await once(registry, 'listening');
  scratch.atEnd(() => {
    registry.close();
    registry.closeAllConnections();
  });
  const { port } = registry.address() as AddressInfo;
  const image = `http://127.0.0.1:${port}/a/b:c`;
  await assertInterrupted(scratch, peer, [
    'attach',
    image,
    '--frontend',
    'none',
    '--cache',
    'none',
  ]);
});

test('a daemon ends while guests wait for a registry that hangs', async (t) => {
  const scratch = scratchOf(t);
  const registry = await startEmbeddedRegistry({ root: scratch.path('registry') });
  scratch.atEnd(() => registry.close());
  const rootfs = scratch.path('rootfs');
  cpSync(join(packageRoot, 'node_modules', 'undici'), rootfs, { recursive: true });
  const image = await makeTestImage(scratch, registry.url, [rootfs], 16);
  const socket = ['--socket', scratch.path('control')];
  const daemon = new CliProcess(scratch, ['daemon', ...socket, '--cache', 'none']);
  await daemon.line();
  const nbd = ['--frontend', 'nbd', '--nbd-socket', scratch.path('nbd')];
  const attach = ['attach', '--daemon', ...socket, image.reference, '--id', 'd', '--mode', 'off'];
  const attached = new CliProcess(scratch, [...attach, ...nbd]);
  assert.equal((await attached.ended).code, 0);
  registry.setFaults(() => ({ kind: 'delay', ms: 600_000 }));
  const reader = await NbdReader.connect(scratch.path('nbd'));
  scratch.atEnd(() => reader.close());
  const before = registry.stats.requests;
  const reading = reader.read(0, 2 ** 20).catch(() => undefined);
  // A device that is being opened as well.
  const opening = new CliProcess(scratch, [...attach.map((word) => (word === 'd' ? 'e' : word))]);
  while (registry.stats.requests < before + 2) await sleep(10);
  await assertEnds(daemon, 0);
  assert.equal((await opening.ended).code, 1);
  await reading;
});

test('a second signal ends the process at once, of whichever kind the first was', async (t) => {
  const scratch = scratchOf(t);
  const terminal = new URL('../../src/cli/terminal.ts', import.meta.url).href;
  const script = `
    import { interruptible } from ${JSON.stringify(terminal)};
    setInterval(() => undefined, 1000);
    await interruptible((signal) => {
      signal.addEventListener('abort', () => console.log('aborted'));
      console.log('running');
      return new Promise(() => undefined);
    });
  `;
  const child = spawn(process.execPath, ['--input-type=module', '-e', script], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  scratch.atEnd(() => child.kill('SIGKILL'));
  const closed = once(child, 'close');
  await once(child.stdout, 'data');
  child.kill('SIGINT');
  await once(child.stdout, 'data');
  child.kill('SIGTERM');
  assert.deepEqual(await closed, [null, 'SIGTERM']);
});
