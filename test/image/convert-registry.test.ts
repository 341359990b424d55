import assert from 'node:assert/strict';
import {
  existsSync,
  readdirSync,
  readFileSync,
  statSync,
  truncateSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import type { ConvertedRoot } from '../../src/image/convert/convert.ts';
import { REFERRER_TYPE } from '../../src/image/convert/finish-image.ts';
import { layerCompression } from '../../src/image/convert/media-types.ts';
import { digestHex, digestOf } from '../../src/registry/digest.ts';
import {
  startEmbeddedRegistry,
  type EmbeddedRegistry,
} from '../../src/registry/embedded/server.ts';
import { isIndex, mediaTypes, parseManifest } from '../../src/registry/manifest.ts';
import { composeImage, composeIndex, putInRegistry, tarOfFiles } from './convert-images.ts';
import { clientOf, convertNamed, filesBelow, MIB } from './convert-support.ts';
import { noise, temporaryFolder } from './ext4-tree.ts';

// Goal: between repositories of a registry, only what is new is converted, sent or stored; failures
// of the network and of this machine cost time at most.
// Method: the embedded registry with faults, its request log, and a cache that is spoiled on purpose.

async function registryOf(t: TestContext): Promise<EmbeddedRegistry> {
  const registry = await startEmbeddedRegistry({ root: temporaryFolder(t) });
  t.after(() => registry.close());
  return registry;
}

const bottom = tarOfFiles({ 'usr/lib/bottom': noise('bottom', 3_000_000) });
const middle = tarOfFiles({ 'usr/lib/middle': noise('middle', 500_000), etc: 'x' });
const outcomes = ({ images }: ConvertedRoot) =>
  images[0].layers.map(({ from, put }) => [from, put]);
const digests = ({ images }: ConvertedRoot) => images[0].layers.map(({ digest }) => digest);

test('layers are converted once, sent once, and mounted from where they are', async (t) => {
  const registry = await registryOf(t);
  const first = composeImage([bottom, middle]);
  const second = composeImage([bottom, middle, tarOfFiles({ top: 'top' })]);
  putInRegistry(registry.store, 'source/first', 'v1', first);
  putInRegistry(registry.store, 'source/second', 'v1', second);
  const cache = { folder: temporaryFolder(t), quotaBytes: 100 * MIB };
  const { url } = registry;
  const one = await convertNamed(t, `${url}/source/first:v1`, `${url}/obd/first:v1`, { cache });
  assert.deepEqual(outcomes(one), [
    ['converted', 'uploaded'],
    ['converted', 'uploaded'],
  ]);
  registry.clearLog();
  const two = await convertNamed(t, `${url}/source/second:v1`, `${url}/obd/second:v1`, { cache });
  assert.deepEqual(outcomes(two), [
    ['cache', 'mounted'],
    ['cache', 'mounted'],
    ['converted', 'uploaded'],
  ]);
  assert.deepEqual(digests(two).slice(0, 2), digests(one));
  const fetched = registry.log.filter(
    ({ method, kind, url: path }) =>
      method === 'GET' &&
      kind === 'blob' &&
      path.includes(digestOf(first.blobs.values().next().value ?? Buffer.of())),
  );
  assert.deepEqual(fetched, [], 'what is in the cache is not fetched');
  const alone = await convertNamed(t, `${url}/source/second:v1`, `${url}/obd/alone:v1`);
  assert.equal(
    alone.root.descriptor.digest,
    two.root.descriptor.digest,
    'with and without a cache',
  );
  const again = await convertNamed(t, `${url}/source/second:v1`, `${url}/obd/second:v1`, { cache });
  assert.deepEqual(
    outcomes(again),
    outcomes(two).map(() => ['cache', 'present']),
  );
  assert.deepEqual(readdirSync(join(cache.folder, 'runs')), []);
});

test('other settings give other layers', async (t) => {
  const registry = await registryOf(t);
  putInRegistry(registry.store, 'source', 'v1', composeImage([middle]));
  const cache = { folder: temporaryFolder(t), quotaBytes: 100 * MIB };
  const settings = [
    { virtualSizeBytes: 256 * MIB, algorithm: 'lz4' as const, blockBytes: 4096 },
    { virtualSizeBytes: 512 * MIB, algorithm: 'lz4' as const, blockBytes: 4096 },
    { virtualSizeBytes: 512 * MIB, algorithm: 'zstd' as const, blockBytes: 4096 },
    { virtualSizeBytes: 512 * MIB, algorithm: 'zstd' as const, blockBytes: 65_536 },
  ];
  const found = new Set<string>();
  for (const [i, chosen] of settings.entries()) {
    const to = `${registry.url}/obd:v${i}`;
    const result = await convertNamed(t, `${registry.url}/source:v1`, to, {
      cache,
      settings: chosen,
    });
    assert.equal(result.images[0].layers[0].from, 'converted');
    found.add(digests(result)[0]);
  }
  assert.equal(found.size, settings.length);
});

test('a spoiled cache costs time, and is within its quota', async (t) => {
  const registry = await registryOf(t);
  const tars = [bottom, middle, tarOfFiles({ top: 'top' })];
  putInRegistry(registry.store, 'source', 'v1', composeImage(tars));
  const folder = temporaryFolder(t);
  let count = 0;
  const run = (quotaBytes = 100 * MIB) => {
    count += 1;
    const to = `${registry.url}/obd:v${count}`;
    return convertNamed(t, `${registry.url}/source:v1`, to, { cache: { folder, quotaBytes } });
  };
  const first = await run();
  const blob = (i: number) => join(folder, 'blobs', digestHex(digests(first)[i]));
  const spoilt: [() => void, string[]][] = [
    [() => flipByte(blob(1)), ['cache', 'converted', 'cache']],
    [() => truncateSync(blob(0), 1000), ['converted', 'cache', 'cache']],
    [() => spoilRecords(folder), ['converted', 'converted', 'converted']],
  ];
  for (const [spoil, from] of spoilt) {
    spoil();
    const result = await run();
    assert.deepEqual(result.root.descriptor.digest, first.root.descriptor.digest);
    assert.deepEqual(
      outcomes(result).map(([where]) => where),
      from,
    );
  }
  // What a run that was killed leaves behind.
  writeFileSync(join(folder, 'runs', 'killed.lock'), '');
  writeFileSync(join(folder, 'runs', 'killed'), 'half a layer');
  const past = new Date(Date.now() - 1e6);
  utimesSync(blob(0), past, past);
  const kept = statSync(blob(1)).size + statSync(blob(2)).size;
  const small = composeImage([tarOfFiles({ small: 's' })]);
  putInRegistry(registry.store, 'source', 'v1', small);
  const before = statSync(blob(1)).size;
  await run(kept + 400_000);
  assert.deepEqual([existsSync(blob(0)), statSync(blob(1)).size], [false, before]);
  assert.deepEqual(readdirSync(join(folder, 'runs')), []);
});

test('runs at the same time share a cache', async (t) => {
  const registry = await registryOf(t);
  putInRegistry(registry.store, 'source', 'v1', composeImage([bottom, middle]));
  const cache = { folder: temporaryFolder(t), quotaBytes: 100 * MIB };
  const results = await Promise.all(
    [1, 2, 3].map((i) =>
      convertNamed(t, `${registry.url}/source:v1`, `${registry.url}/obd/${i}:v1`, { cache }),
    ),
  );
  assert.equal(new Set(results.map(({ root }) => root.descriptor.digest)).size, 1);
});

for (const style of ['docker', 'oci'] as const) {
  test(`referrers of an index and its images, of ${style} media types`, async (t) => {
    const registry = await registryOf(t);
    const client = clientOf(t);
    const images = ['amd64', 'arm64'].map((architecture) => ({
      architecture,
      image: composeImage([tarOfFiles({ architecture })], { architecture, style }),
    }));
    const index = composeIndex(images);
    putInRegistry(registry.store, 'app', 'v1', index);
    const name = `${registry.url}/app`;
    const options = { style: { isOci: true, isReferrer: true } };
    const result = await convertNamed(t, `${name}:v1`, name, options);
    const found = await client.listReferrers(name, index.root.digest, REFERRER_TYPE);
    assert.deepEqual(
      found.map(({ digest, mediaType }) => [digest, mediaType]),
      [[result.root.descriptor.digest, mediaTypes.ociIndex]],
    );
    for (const [i, { image }] of images.entries()) {
      const [referrer] = await client.listReferrers(name, image.root.digest, REFERRER_TYPE);
      assert.equal(referrer.digest, result.images[i].object.descriptor.digest);
      const { manifest } = await client.getObject(`${name}@${referrer.digest}`);
      assert.equal(manifest.subject?.digest, image.root.digest);
    }
    assert.deepEqual(registry.store.tags('app'), ['v1'], 'the source keeps its tag');
  });
}

test("Docker's media types unless OCI's are asked for", async (t) => {
  const registry = await registryOf(t);
  putInRegistry(registry.store, 'source', 'v1', composeImage([middle]));
  const to = `${registry.url}/obd:v1`;
  await convertNamed(t, `${registry.url}/source:v1`, to);
  const { manifest, mediaType } = await clientOf(t).getObject(to);
  assert.ok(!isIndex(manifest));
  assert.equal(mediaType, mediaTypes.dockerManifest);
  assert.equal(manifest.config.mediaType, mediaTypes.dockerConfig);
  assert.equal(layerCompression('', manifest.layers[0].mediaType), 'none');
  assert.equal(manifest.layers[0].mediaType, mediaTypes.dockerLayer);
});

test('downloads that break off go on, wrong bytes are refused', async (t) => {
  const registry = await registryOf(t);
  const image = composeImage([bottom, middle]);
  putInRegistry(registry.store, 'source', 'v1', image);
  const [digest] = image.blobs.keys();
  let breaks = 0;
  registry.setFaults(({ kind, method, url }) => {
    if (kind !== 'blob' || method !== 'GET' || !url.endsWith(digest) || breaks === 2)
      return undefined;
    breaks += 1;
    return { kind: 'cut', afterBytes: 400_000 };
  });
  const from = `${registry.url}/source:v1`;
  await convertNamed(t, from, `${registry.url}/obd:v1`);
  assert.equal(breaks, 2);
  const asked = registry.log.filter(({ url, method }) => method === 'GET' && url.endsWith(digest));
  assert.ok(asked.slice(1).every(({ range }) => !range?.startsWith('bytes=0-')));
  const stored = registry.store.anyBlob(digest);
  assert.ok(stored !== null);
  flipByte(stored.path);
  registry.setFaults(undefined);
  const workParent = temporaryFolder(t);
  await assert.rejects(convertNamed(t, from, `${registry.url}/obd:v2`, { workParent }), {
    code: 'ERR_CONVERT_DIGEST',
  });
  assert.deepEqual(registry.store.tags('obd'), ['v1']);
  assert.deepEqual(filesBelow(workParent), []);
});

test('a target that refuses ends the conversion of all images', async (t) => {
  const registry = await registryOf(t);
  const images = ['amd64', 'arm64'].map((architecture) => {
    const tars = Array.from({ length: 8 }, (_, i) => tarOfFiles({ [`f${i}`]: architecture }));
    return { architecture, image: composeImage(tars, { architecture }) };
  });
  putInRegistry(registry.store, 'source', 'v1', composeIndex(images));
  const [from, to] = [`${registry.url}/source:v1`, `${registry.url}/obd:v1`];
  for (const kind of ['upload', 'manifest'] as const) {
    registry.setFaults((request) => {
      const isWrite = request.method !== 'GET' && request.method !== 'HEAD';
      return request.kind === kind && isWrite ? { kind: 'status', status: 403 } : undefined;
    });
    const workParent = temporaryFolder(t);
    await assert.rejects(convertNamed(t, from, to, { workParent }), {
      code: 'ERR_REGISTRY_AUTH',
    });
    assert.deepEqual(filesBelow(workParent), []);
  }
});

test('what a hostile manifest says is refused', async (t) => {
  const registry = await registryOf(t);
  const image = composeImage([middle]);
  const rejects = async (change: (text: string) => string, code: string | RegExp) => {
    const bytes = Buffer.from(change(image.root.bytes.toString()));
    parseManifest('a manifest that registries take', bytes);
    const root = { ...image.root, bytes, digest: digestOf(bytes) };
    putInRegistry(registry.store, 'source', 'v1', { ...image, root });
    const converting = convertNamed(t, `${registry.url}/source:v1`, `${registry.url}/obd:v1`);
    await assert.rejects(converting, typeof code === 'string' ? { code } : code);
  };
  const [layer] = image.blobs.keys();
  const size = image.blobs.get(layer)?.length ?? 0;
  await rejects((text) => text.replace(`"size":${size}`, `"size":${size - 1}`), /size|range/i);
  await rejects((text) => text.replace(`"size":${size}`, '"size":0'), 'ERR_CONVERT_DIGEST');
  await rejects((text) => text.replace(`"size":${size}`, `"size":${2 ** 50}`), 'ERR_CONVERT_SIZE');
  await rejects((text) => text.replace('v1.tar+gzip', 'v1.squashfs'), 'ERR_CONVERT_MEDIA_TYPE');
  await rejects((text) => text.replace('image.config', 'other.config'), 'ERR_CONVERT_SOURCE');
  assert.deepEqual(registry.store.tags('obd'), []);
});

test('an end on request leaves nothing behind, and a second run succeeds', async (t) => {
  const registry = await registryOf(t);
  putInRegistry(registry.store, 'source', 'v1', composeImage([bottom, middle]));
  const cache = { folder: temporaryFolder(t), quotaBytes: 100 * MIB };
  const [from, to] = [`${registry.url}/source:v1`, `${registry.url}/obd:v1`];
  for (const when of ['begun', 'fetched', 'applied', 'committed', 'finished'] as const) {
    const controller = new AbortController();
    const reason = new Error(`stopped when ${when}`);
    const ignore = () => undefined;
    const progress = {
      begun: ignore,
      fetched: ignore,
      applied: ignore,
      committed: ignore,
      finished: ignore,
      [when]: () => controller.abort(reason),
    };
    const options = { cache, progress, signal: controller.signal };
    await assert.rejects(convertNamed(t, from, to, options), reason);
    assert.deepEqual(readdirSync(join(cache.folder, 'runs')), []);
    assert.deepEqual(registry.store.tags('obd'), []);
  }
  await convertNamed(t, from, to, { cache });
  assert.deepEqual(registry.store.tags('obd'), ['v1']);
});

function flipByte(path: string): void {
  const bytes = readFileSync(path);
  bytes[bytes.length >> 1] ^= 1;
  writeFileSync(path, bytes);
}

function spoilRecords(folder: string): void {
  const names = readdirSync(join(folder, 'layers'));
  const texts = ['', '{"digest":"sha256:1"}', '[]'];
  for (const [i, name] of names.entries())
    writeFileSync(join(folder, 'layers', name), texts[i % 3]);
}
