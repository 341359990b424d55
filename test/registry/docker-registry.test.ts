import assert from 'node:assert/strict';
import { execFileSync, spawn, spawnSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { test, type TestContext } from 'node:test';
import { createRegistryClient, type RegistryClient } from '../../src/registry/client.ts';
import { fixedCredentials } from '../../src/registry/credentials.ts';
import { digestOf } from '../../src/registry/digest.ts';
import { mediaTypes } from '../../src/registry/manifest.ts';
import { emptyDescriptor } from '../../src/registry/referrers.ts';
import { PASSWORD, readRange, temporaryFolder, USER } from './harness.ts';

// Goal: the client works with the registry most people run, not only with ours.
// Method: Docker's own registry with filesystem storage and htpasswd: push, pull, ranges, mounts, tags,
// and referrers, which it does not list itself.

const isInstalled = (program: string): boolean => {
  return spawnSync('sh', ['-c', `command -v ${program}`]).status === 0;
};
const missing = ['docker-registry', 'htpasswd'].filter((program) => !isInstalled(program));
const skip = missing.length > 0 ? `needs ${missing.join(' and ')} (Debian packages)` : false;

async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  server.close();
  await once(server, 'close');
  return port;
}

async function startDockerRegistry(t: TestContext, mayDelete = false): Promise<string> {
  const folder = temporaryFolder(t);
  const port = await freePort();
  const users = execFileSync('htpasswd', ['-Bni', USER], {
    input: PASSWORD,
  });
  writeFileSync(join(folder, 'htpasswd'), users);
  const config = {
    version: 0.1,
    log: { level: 'error' },
    storage: {
      filesystem: { rootdirectory: join(folder, 'content') },
      delete: { enabled: mayDelete },
    },
    http: { addr: `127.0.0.1:${port}` },
    auth: { htpasswd: { realm: 'test', path: join(folder, 'htpasswd') } },
  };
  writeFileSync(join(folder, 'config.yml'), JSON.stringify(config));
  const registry = spawn('docker-registry', ['serve', join(folder, 'config.yml')], {
    stdio: 'ignore',
  });
  t.after(async () => {
    registry.kill('SIGKILL');
    if (registry.exitCode === null && registry.signalCode === null) await once(registry, 'exit');
  });
  return `http://127.0.0.1:${port}`;
}

async function untilItAnswers(client: RegistryClient, name: string): Promise<void> {
  for (let attempt = 0; attempt < 100; attempt += 1) {
    const answers = await client.ping(name).then(
      () => true,
      () => false,
    );
    if (answers) return;
    await sleep(50);
  }
}

for (const mayDelete of [true, false]) {
  const how = mayDelete ? 'removed, from its list too' : 'not removed where that is not allowed';
  test(`a referrer is ${how}`, { skip }, async (t) => {
    const url = await startDockerRegistry(t, mayDelete);
    const client = createRegistryClient({ credentials: fixedCredentials(null, USER, PASSWORD) });
    t.after(() => client.close());
    const name = `${url}/apps/web`;
    await untilItAnswers(client, name);
    const { digest, size } = emptyDescriptor;
    await client.pushBlob(name, { digest, sizeBytes: size, content: { bytes: Buffer.from('{}') } });
    const image = {
      ...{ schemaVersion: 2 as const, mediaType: mediaTypes.ociManifest },
      ...{ config: emptyDescriptor, artifactType: 'example/image', layers: [emptyDescriptor] },
    };
    const bytes = Buffer.from(JSON.stringify(image));
    const pushed = await client.pushManifest(name, bytes, mediaTypes.ociManifest, 'v1');
    const subject = { mediaType: image.mediaType, digest: pushed.digest, size: bytes.length };
    const refer = (artifactType: string) =>
      client.pushReferrer(name, { ...image, artifactType, subject });
    const [first, second] = [await refer('example/a'), await refer('example/b')];
    const removing = client.deleteReferrer(name, subject.digest, first.digest);
    if (mayDelete) await removing;
    else await assert.rejects(removing, { code: 'ERR_REGISTRY_DELETE' });
    const left = await client.listReferrers(name, subject.digest);
    assert.deepEqual(left, mayDelete ? [second] : [first, second]);
    assert.equal((await client.getManifest(`${name}:v1`)).digest, subject.digest);
  });
}

test('push, pull, ranges, mounts and referrers with docker-registry', { skip }, async (t) => {
  const url = await startDockerRegistry(t);
  const client = createRegistryClient({ credentials: fixedCredentials(null, USER, PASSWORD) });
  t.after(() => client.close());
  const name = `${url}/apps/web`;
  await untilItAnswers(client, name);

  const layer = randomBytes(3_000_000);
  const path = join(temporaryFolder(t), 'layer');
  writeFileSync(path, layer);
  const digest = digestOf(layer);
  const blob = { digest, sizeBytes: layer.length, content: { path } };
  assert.equal(await client.pushBlob(name, blob, { chunkBytes: 1_000_000 }), 'uploaded');
  assert.equal(await client.pushBlob(name, blob), 'present');
  const mounted = await client.pushBlob(`${url}/apps/other`, blob, { mountFrom: 'apps/web' });
  assert.equal(mounted, 'mounted');
  assert.equal(await client.pushBlob(`${url}/apps/third`, blob), 'uploaded');

  const config = Buffer.from('{"os":"linux","architecture":"amd64"}');
  const configDigest = digestOf(config);
  const content = { bytes: config };
  await client.pushBlob(name, { digest: configDigest, sizeBytes: config.length, content });
  const manifest = {
    schemaVersion: 2 as const,
    mediaType: mediaTypes.ociManifest,
    config: { mediaType: mediaTypes.ociConfig, digest: configDigest, size: config.length },
    layers: [{ mediaType: mediaTypes.ociLayer, digest, size: layer.length }],
  };
  const bytes = Buffer.from(JSON.stringify(manifest));
  await client.pushManifest(name, bytes, mediaTypes.ociManifest, 'v1');
  const pulled = await client.getManifest(`${name}:v1`);
  assert.deepEqual(pulled.manifest, manifest);
  assert.deepEqual(Buffer.from(await client.getBlob(name, configDigest)), config);
  await client.pushManifest(name, bytes, mediaTypes.ociManifest, 'v2');
  assert.deepEqual((await client.listTags(name)).sort(), ['v1', 'v2']);
  assert.deepEqual(await client.listTags(`${url}/apps/none`), []);

  const source = client.blobSource(name, digest, null);
  assert.equal(await source.size(), layer.length);
  const offsets = [0, 1, 4096, 2_900_000];
  const read = await Promise.all(
    offsets.map((offset) => readRange(source, offset, 100_000, 'prefetch')),
  );
  offsets.forEach((offset, i) => {
    assert.deepEqual(read[i], layer.subarray(offset, offset + 100_000));
  });
  const beyond = client.blobSource(name, digest, layer.length + 4096);
  await assert.rejects(readRange(beyond, layer.length, 10), { code: 'ERR_CONTENT_RANGE' });

  const none = {
    digest: digestOf(new Uint8Array()),
    sizeBytes: 0,
    content: { bytes: Buffer.of() },
  };
  await client.pushBlob(name, none);
  assert.equal(await client.blobSource(name, none.digest, null).size(), 0);

  const subject = {
    mediaType: mediaTypes.ociManifest,
    digest: pulled.digest,
    size: pulled.bytes.length,
  };
  assert.deepEqual(await client.listReferrers(name, subject.digest), []);
  const artifactType = 'application/vnd.replaybd.trace.v1';
  const layers = [{ mediaType: `${artifactType}+msgpack`, digest, size: layer.length }];
  const pushed = await client.pushReferrer(name, {
    schemaVersion: 2,
    artifactType,
    config: emptyDescriptor,
    layers,
    subject,
  });
  assert.deepEqual(await client.listReferrers(name, subject.digest, artifactType), [pushed]);
  const referrer = await client.getManifest(`${name}@${pushed.digest}`);
  assert.deepEqual(referrer.manifest.subject, subject);

  const stranger = createRegistryClient({ credentials: fixedCredentials(null, USER, 'wrong') });
  t.after(() => stranger.close());
  await assert.rejects(stranger.getManifest(`${name}:v1`), { code: 'ERR_REGISTRY_AUTH' });
});
