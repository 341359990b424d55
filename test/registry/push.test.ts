import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import type { RegistryClient } from '../../src/registry/client.ts';
import { digestOf } from '../../src/registry/digest.ts';
import type { AuthOptions } from '../../src/registry/embedded/guard.ts';
import { startEmbeddedRegistry } from '../../src/registry/embedded/server.ts';
import { mediaTypes, type ImageManifest } from '../../src/registry/manifest.ts';
import { emptyDescriptor, referrersTag } from '../../src/registry/referrers.ts';
import { PASSWORD, seen, setUp, temporaryFolder, USER } from './harness.ts';

// Goal: what is pushed can be pulled again, byte for byte; nothing is sent that is there already.
// Method: the embedded registry, with its log; failures injected into uploads.

const auth: AuthOptions = { kind: 'bearer', username: USER, password: PASSWORD };
const ARTIFACT = 'application/vnd.replaybd.trace.v1';

function blobOf(bytes: Uint8Array) {
  return { digest: digestOf(bytes), sizeBytes: bytes.length, content: { bytes } };
}

async function pushImage(client: RegistryClient, name: string, tag: string, platform?: string) {
  const config = Buffer.from(JSON.stringify({ os: 'linux', architecture: platform ?? 'amd64' }));
  const layer = randomBytes(5000);
  await client.pushBlob(name, blobOf(config));
  await client.pushBlob(name, blobOf(layer));
  const manifest: ImageManifest = {
    schemaVersion: 2,
    mediaType: mediaTypes.ociManifest,
    config: { mediaType: mediaTypes.ociConfig, digest: digestOf(config), size: config.length },
    layers: [{ mediaType: mediaTypes.ociLayer, digest: digestOf(layer), size: layer.length }],
  };
  const bytes = Buffer.from(JSON.stringify(manifest));
  const { digest } = await client.pushManifest(name, bytes, mediaTypes.ociManifest, tag);
  return { digest, size: bytes.length, mediaType: mediaTypes.ociManifest, config, layer, bytes };
}

test('an image pushed under a tag comes back by tag and by digest, and survives a restart', async (t) => {
  const root = temporaryFolder(t);
  const { registry, client, name } = await setUp(t, { root, auth });
  const pushed = await pushImage(client, name, 'v1');
  const byTag = await client.getManifest(`${name}:v1`);
  assert.deepEqual(Buffer.from(byTag.bytes), pushed.bytes);
  assert.equal(byTag.digest, pushed.digest);
  assert.equal(byTag.mediaType, mediaTypes.ociManifest);
  const byDigest = await client.getManifest(`${name}@${pushed.digest}`);
  assert.deepEqual(byDigest, byTag);
  assert.deepEqual(Buffer.from(await client.getBlob(name, digestOf(pushed.config))), pushed.config);
  await registry.close();
  const again = await startEmbeddedRegistry({ root });
  t.after(() => again.close());
  const reread = await client.getManifest(`${again.url}/apps/web:v1`);
  assert.deepEqual(reread.bytes, byTag.bytes);
  assert.equal(await client.headBlob(`${again.url}/apps/web`, digestOf(pushed.layer)), 5000);
});

test('an index gives the image of the wanted platform', async (t) => {
  const { client, name } = await setUp(t);
  const images = [];
  for (const architecture of ['amd64', 'arm64']) {
    const { digest, size, mediaType } = await pushImage(client, name, architecture, architecture);
    images.push({ mediaType, digest, size, platform: { os: 'linux', architecture } });
  }
  const index = { schemaVersion: 2, mediaType: mediaTypes.ociIndex, manifests: images };
  const bytes = Buffer.from(JSON.stringify(index));
  await client.pushManifest(name, bytes, mediaTypes.ociIndex, 'multi');
  const platform = { os: 'linux', architecture: 'arm64' };
  const { digest } = await client.getManifest(`${name}:multi`, { platform });
  assert.equal(digest, images[1]?.digest);
  const absent = client.getManifest(`${name}:multi`, {
    platform: { os: 'plan9', architecture: 'mips' },
  });
  await assert.rejects(absent, { code: 'ERR_PLATFORM' });
});

test('a manifest that is not what its digest or header says is refused', async (t) => {
  const { registry, client, name } = await setUp(t);
  const { digest } = await pushImage(client, name, 'v1');
  registry.setFaults(({ kind }) =>
    kind === 'manifest' ? { kind: 'corrupt', atByte: 9 } : undefined,
  );
  for (const reference of [`${name}@${digest}`, `${name}:v1`]) {
    await assert.rejects(client.getManifest(reference), { code: 'ERR_DIGEST_MISMATCH' });
  }
  await assert.rejects(client.getManifest(`${name}:absent`), {
    code: 'ERR_REGISTRY_NOT_FOUND',
    errno: 'ENOENT',
  });
});

test('a blob that is there is not sent; one elsewhere is mounted; files and chunks work', async (t) => {
  const { registry, client, name, digest, blob } = await setUp(t, { auth });
  const content = { bytes: blob };
  const present = { digest, sizeBytes: blob.length, content };
  assert.equal(await client.pushBlob(name, present), 'present');
  const other = `${registry.url}/apps/other`;
  registry.clearLog();
  assert.equal(await client.pushBlob(other, present, { mountFrom: 'apps/web' }), 'mounted');
  assert.deepEqual(seen(registry), ['blob 401', 'token 200', 'blob 404', 'upload 201']);
  assert.equal(await client.headBlob(other, digest), blob.length);

  const path = join(temporaryFolder(t), 'layer');
  const file = randomBytes(700_001);
  writeFileSync(path, file);
  const fromFile = { digest: digestOf(file), sizeBytes: file.length, content: { path } };
  registry.clearLog();
  assert.equal(await client.pushBlob(name, fromFile, { chunkBytes: 300_000 }), 'uploaded');
  const methods = registry.log.map(({ method }) => method).filter((method) => method !== 'GET');
  assert.deepEqual(methods, ['HEAD', 'POST', 'PATCH', 'PATCH', 'PATCH', 'PUT']);
  assert.deepEqual(Buffer.from(await client.getBlob(name, fromFile.digest)), file);
  assert.equal(await client.pushBlob(other, fromFile), 'uploaded');
  const empty = blobOf(new Uint8Array());
  assert.equal(await client.pushBlob(name, empty), 'uploaded');
  assert.equal(await client.headBlob(name, empty.digest), 0);
});

test('an upload that fails starts over; one with the wrong digest is refused', async (t) => {
  const { registry, client, name } = await setUp(t);
  const blob = blobOf(randomBytes(10_000));
  let failures = 2;
  registry.setFaults(({ method }) => {
    return method === 'PUT' && failures-- > 0 ? { kind: 'status', status: 500 } : undefined;
  });
  assert.equal(await client.pushBlob(name, blob), 'uploaded');
  assert.equal(registry.log.filter(({ method }) => method === 'POST').length, 3);
  registry.setFaults(undefined);
  const lying = { ...blob, digest: `sha256:${'1'.repeat(64)}` };
  await assert.rejects(client.pushBlob(name, lying), { code: 'ERR_REGISTRY_STATUS' });
  assert.equal(await client.headBlob(name, lying.digest), null);
});

for (const referrers of [true, false]) {
  test(`referrers are found, with the API ${referrers ? 'there' : 'missing'}`, async (t) => {
    const { client, name } = await setUp(t, { auth, referrers });
    const { digest, size, mediaType } = await pushImage(client, name, 'v1');
    assert.deepEqual(await client.listReferrers(name, digest), []);
    const found = [];
    for (const artifactType of [ARTIFACT, 'application/vnd.example']) {
      const trace = randomBytes(300);
      await client.pushBlob(name, blobOf(trace));
      const manifest: ImageManifest & { subject: { digest: string } } = {
        schemaVersion: 2,
        artifactType,
        config: emptyDescriptor,
        layers: [{ mediaType: `${artifactType}+msgpack`, digest: digestOf(trace), size: 300 }],
        subject: { mediaType, digest, size },
        annotations: { 'org.example': artifactType },
      };
      const subject = { mediaType, digest, size };
      found.push(await client.pushReferrer(name, { ...manifest, subject }));
      // Pushing the same thing again changes nothing.
      await client.pushReferrer(name, { ...manifest, subject });
    }
    const byDigest = (a: { digest: string }, b: { digest: string }) =>
      a.digest < b.digest ? -1 : 1;
    const all = await client.listReferrers(name, digest);
    assert.deepEqual(all.sort(byDigest), [...found].sort(byDigest));
    assert.deepEqual(await client.listReferrers(name, digest, ARTIFACT), [found[0]]);
    const { manifest } = await client.getManifest(`${name}@${found[0]?.digest}`);
    assert.equal(manifest.subject?.digest, digest);
    const fallback = client.getManifest(`${name}:${referrersTag(digest)}`);
    await assert.rejects(fallback, { code: referrers ? 'ERR_REGISTRY_NOT_FOUND' : 'ERR_PLATFORM' });
  });
}
