import assert from 'node:assert/strict';
import { once } from 'node:events';
import { mkdirSync, writeFileSync } from 'node:fs';
import { connect, type AddressInfo, type Socket } from 'node:net';
import { createServer } from 'node:tls';
import { test } from 'node:test';
import { startEmbeddedRegistry } from '../../src/registry/embedded/server.ts';
import { certificateSkip, makeCertificate, type TestCertificate } from '../support/certificate.ts';
import { cli, cliJson, cliOutput } from '../support/cli.ts';
import type { PlayOutput } from '../support/play.ts';
import { scratchOf, type Scratch } from '../support/scratch.ts';

// Goal: a registry with a certificate of a private authority, which wants one of its clients too, can
// be used by every command that talks to registries.
// Method: the embedded registry behind a TLS server that turns unknown clients away.

/** Ends TLS in front of a TCP server; its address. */
async function tlsInFront(
  scratch: Scratch,
  port: number,
  { cert, key }: TestCertificate,
): Promise<string> {
  const open = new Set<Socket>();
  const server = createServer({ cert, key, ca: cert, requestCert: true }, (client) => {
    const origin = connect(port, '127.0.0.1');
    for (const socket of [client, origin]) {
      open.add(socket);
      socket.on('error', () => undefined);
      socket.on('close', () => {
        for (const end of [client, origin]) {
          open.delete(end);
          end.destroy();
        }
      });
    }
    client.pipe(origin).pipe(client);
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  scratch.atEnd(() => {
    for (const socket of open) socket.destroy();
    server.close();
  });
  return `127.0.0.1:${(server.address() as AddressInfo).port}`;
}

test('every command reaches a private registry', { skip: certificateSkip }, async (t) => {
  const scratch = scratchOf(t);
  const registry = await startEmbeddedRegistry({ root: scratch.path('registry') });
  scratch.atEnd(() => registry.close());
  const certificate = makeCertificate(scratch.folder);
  const host = await tlsInFront(scratch, Number(new URL(registry.url).port), certificate);
  const image = `${host}/team/app:v1`;
  const flags = [
    ...['--ca', certificate.certFile],
    ...['--client-cert', certificate.certFile, '--client-key', certificate.keyFile],
  ];
  mkdirSync(scratch.path('rootfs'));
  writeFileSync(scratch.path('rootfs/file'), 'content');
  const build = ['image', 'build', '--rootfs', scratch.path('rootfs'), '--push', image];
  await cliOutput(scratch, [...build, ...flags]);
  await cliOutput(scratch, ['image', 'config', image, ...flags]);

  const list = scratch.path('reads');
  writeFileSync(list, '0 65536\n');
  const store = ['--trace-dir', scratch.path('traces')];
  const play = ['play', image, '--reads', list, '--cache', 'none', ...store, '--mode', 'record'];
  const { report } = await cliJson<PlayOutput>(scratch, [...play, ...flags]);
  const file = report.trace?.path ?? '';
  const digest = (await cliOutput(scratch, ['trace', 'push', image, file, ...flags])).trim();
  assert.ok((await cliOutput(scratch, ['trace', 'ls', image, ...flags])).startsWith(digest));
  assert.equal(
    (await cliOutput(scratch, ['trace', 'pull', image, ...store, ...flags])).trim(),
    file,
  );

  const stranger = await cli(scratch, ['trace', 'ls', image]);
  assert.equal(stranger.code, 1);
  assert.match(stranger.stderr, /--ca FILE.*\(ERR_REGISTRY_TLS\)/);
  const anonymous = await cli(scratch, ['trace', 'ls', image, '--ca', certificate.certFile]);
  assert.equal(anonymous.code, 1);
  assert.match(anonymous.stderr, /ERR_REGISTRY_/);
});

test('overlaybd.json says how registries are reached', { skip: certificateSkip }, async (t) => {
  const scratch = scratchOf(t);
  const registry = await startEmbeddedRegistry({ root: scratch.path('registry') });
  scratch.atEnd(() => registry.close());
  const certificate = makeCertificate(scratch.folder);
  const host = await tlsInFront(scratch, Number(new URL(registry.url).port), certificate);
  const { certFile, keyFile } = certificate;
  const config = scratch.path('overlaybd.json');
  writeFileSync(config, JSON.stringify({ certConfig: { certFile, keyFile } }));
  const list = ['trace', 'ls', `${host}/team/app:v1`, '--ca', certFile];
  const { code, stderr } = await cli(scratch, [...list, '--config', config]);
  assert.equal(code, 1);
  assert.match(stderr, /ERR_REGISTRY_(NOT_FOUND|MANIFEST|STATUS)/, 'the registry answered');
});
