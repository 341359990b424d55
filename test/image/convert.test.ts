import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { readFileSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { annotation } from '../../src/image/build/annotations.ts';
import type { ConvertedRoot } from '../../src/image/convert/convert.ts';
import { openInput } from '../../src/image/input.ts';
import { digestOf } from '../../src/registry/digest.ts';
import { mediaTypes, type ImageIndex } from '../../src/registry/manifest.ts';
import { needs } from '../support/needs.ts';
import {
  composeImage,
  composeIndex,
  everyKindOfLayer,
  tarOfFiles,
  writeDockerArchive,
  writeLayout,
  type Composed,
} from './convert-images.ts';
import {
  convertNamed,
  exportLayout,
  filesBelow,
  freshFolder,
  layoutBlob,
  MIB,
  readLayoutManifest,
  unpackWithUmoci,
} from './convert-support.ts';
import { checkWithE2fsck, describeTree, mounted, noise, temporaryFolder } from './ext4-tree.ts';

// Goal: a converted image is the source image - the same files in as many layers, the same
// configuration - in overlaybd's form, whatever form the source has, and always the same bytes.
// Method: images composed by hand, converted from and to layouts; the merged disk is checked with
// e2fsck, mounted, and compared file by file with what umoci unpacks.

const needsUmoci = needs('root', 'umoci', 'setfattr');

function layoutOf(t: TestContext, image: Composed): string {
  const folder = freshFolder(t, 'source');
  writeLayout(folder, image);
  return folder;
}

async function toLayout(
  t: TestContext,
  from: string,
  overrides = {},
): Promise<[string, ConvertedRoot]> {
  const layout = join(temporaryFolder(t), 'converted');
  return [layout, await convertNamed(t, from, `oci:${layout}`, overrides)];
}

test('files are those that umoci unpacks, e2fsck is content', { skip: needsUmoci }, async (t) => {
  const tars = everyKindOfLayer();
  const source = layoutOf(t, composeImage(tars));
  const expected = describeTree(unpackWithUmoci(t, source));
  for (const compression of ['gzip', 'zstd', 'none'] as const) {
    const from = layoutOf(t, composeImage(tars, { compression }));
    const [layout, result] = await toLayout(t, `oci:${from}`);
    assert.equal(result.images[0].layers.length, tars.length);
    const raw = await exportLayout(t, layout, result);
    checkWithE2fsck(raw);
    assert.deepEqual(differences(mounted(raw, describeTree), expected).slice(0, 20), []);
  }
});

test('manifest, configuration and annotations are what overlaybd expects', async (t) => {
  const tars = [tarOfFiles({ 'a/b': 'c' }), tarOfFiles({ d: noise('d', 10_000) })];
  const composed = composeImage(tars, { extra: { annotations: { kept: 'yes' } } });
  const source = layoutOf(t, composed);
  const [layout, result] = await toLayout(t, `oci:${source}`);
  const manifest = readLayoutManifest(layout, result.root.descriptor.digest);
  const digests = manifest.layers.map(({ digest }) => digest);
  for (const { mediaType, digest, size, annotations } of manifest.layers) {
    assert.equal(mediaType, mediaTypes.ociLayer);
    const blob = readFileSync(layoutBlob(layout, digest));
    assert.deepEqual([digestOf(blob), blob.length], [digest, size]);
    assert.deepEqual(annotations, {
      [annotation.blobDigest]: digest,
      [annotation.blobSize]: String(size),
      [annotation.fsType]: 'ext4',
      [annotation.version]: '0.1.0',
    });
  }
  assert.deepEqual(manifest.annotations, { kept: 'yes' });
  const original = JSON.parse([...composed.blobs.values()].at(-1)?.toString() ?? '') as Record<
    string,
    unknown
  >;
  const config: unknown = JSON.parse(
    readFileSync(layoutBlob(layout, manifest.config.digest), 'utf8'),
  );
  assert.deepEqual(config, { ...original, rootfs: { type: 'layers', diff_ids: digests } });
  const { stack, close } = await openInput(digests.map((digest) => layoutBlob(layout, digest)));
  const uuids = stack.layers.map(({ lsmt }) => [lsmt.facts.uuid, lsmt.facts.parentUuid]);
  await close();
  assert.equal(uuids[0][1], null);
  assert.equal(uuids[1][1], uuids[0][0]);
});

test('equal sources give equal images, in whatever form and however converted', async (t) => {
  const tars = [
    tarOfFiles({ 'usr/bin/x': noise('x', 300_000), 'etc/y': 'y' }),
    tarOfFiles({ 'etc/y': 'z' }),
    tarOfFiles({ '.wh.usr': '' }),
  ];
  const first = await toLayout(t, `oci:${layoutOf(t, composeImage(tars))}`);
  const { digest } = first[1].root.descriptor;
  const layers = first[1].images[0].layers.map((layer) => layer.digest);
  const zstd = layoutOf(t, composeImage(tars, { compression: 'zstd' }));
  const again = await toLayout(t, `oci:${zstd}`, { isDurable: true });
  assert.equal(again[1].root.descriptor.digest, digest);
  const archive = join(temporaryFolder(t), 'image.tar');
  writeDockerArchive(archive, tars, 'team/app:v1');
  const [, fromArchive] = await toLayout(t, `docker-archive:${archive}:team/app:v1`);
  assert.deepEqual(
    fromArchive.images[0].layers.map((layer) => layer.digest),
    layers,
  );
  const inTar = join(temporaryFolder(t), 'layout.tar');
  execFileSync('tar', ['-C', zstd, '-cf', inTar, '.']);
  for (const name of [`docker-archive:${inTar}`, `docker-archive:${inTar}:test:latest`]) {
    assert.equal((await toLayout(t, name))[1].root.descriptor.digest, digest);
  }
});

test('a layer holds no block that does not change', async (t) => {
  const tars = [
    tarOfFiles({ big: noise('big', 2_000_000), 'etc/conf': 'a' }),
    tarOfFiles({}),
    tarOfFiles({ 'etc/conf': 'b' }),
    tarOfFiles({ big: noise('big', 2_000_000) }),
  ];
  const source = layoutOf(t, composeImage(tars));
  const settings = { virtualSizeBytes: 64 * 2 ** 30, algorithm: 'lz4' as const, blockBytes: 4096 };
  const [, result] = await toLayout(t, `oci:${source}`, { settings });
  const sizes = result.images[0].layers.map(({ sizeBytes }) => sizeBytes);
  assert.ok(sizes[1] <= 64 * 1024, `an empty change: ${sizes[1]} bytes`);
  assert.ok(sizes[2] <= 64 * 1024, `one file of one byte: ${sizes[2]} bytes`);
});

test('an index keeps its images, platforms and annotations, without attestations', async (t) => {
  const common = tarOfFiles({ common: noise('common', 100_000) });
  const images = ['amd64', 'arm64'].map((architecture) => ({
    architecture,
    image: composeImage([common, tarOfFiles({ arch: architecture })], { architecture }),
  }));
  const source = layoutOf(t, composeIndex(images));
  const [layout, result] = await toLayout(t, `oci:${source}`);
  const { digest, mediaType } = result.root.descriptor;
  assert.equal(mediaType, mediaTypes.ociIndex);
  const index = JSON.parse(readFileSync(layoutBlob(layout, digest), 'utf8')) as ImageIndex;
  assert.deepEqual(
    index.manifests.map(({ platform }) => platform?.architecture),
    ['amd64', 'arm64'],
  );
  assert.deepEqual(index.annotations, { 'org.example.kept': 'yes' });
  const manifests = index.manifests.map((entry) => readLayoutManifest(layout, entry.digest));
  assert.equal(manifests[0].layers[0].digest, manifests[1].layers[0].digest);
  assert.equal(result.skipped.length, 1);

  const one = await toLayout(t, `oci:${source}`, {
    platform: { os: 'linux', architecture: 'arm64' },
  });
  assert.equal(one[1].root.descriptor.digest, index.manifests[1].digest);
  const serial = await toLayout(t, `oci:${source}`, { concurrency: 1 });
  assert.equal(serial[1].root.descriptor.digest, digest);
  await assert.rejects(
    toLayout(t, `oci:${source}`, { platform: { os: 'linux', architecture: 's390x' } }),
    { code: 'ERR_CONVERT_PLATFORM' },
  );
});

test('a base layer comes first and has no diff of the source', async (t) => {
  const tars = [tarOfFiles({ 'a/b': noise('b', 50_000) })];
  const source = layoutOf(t, composeImage(tars));
  const [emptyLayout, empty] = await toLayout(
    t,
    `oci:${layoutOf(t, composeImage([tarOfFiles({})]))}`,
  );
  const baseLayerPath = layoutBlob(emptyLayout, empty.images[0].layers[0].digest);
  const [layout, result] = await toLayout(t, `oci:${source}`, { baseLayerPath });
  const { layers } = result.images[0];
  assert.deepEqual(
    layers.map(({ from }) => from),
    ['base', 'converted'],
  );
  assert.equal(layers[0].digest, empty.images[0].layers[0].digest);
  const raw = await exportLayout(t, layout, result);
  checkWithE2fsck(raw);
  const settings = { virtualSizeBytes: 256 * MIB, algorithm: 'lz4' as const, blockBytes: 4096 };
  await assert.rejects(toLayout(t, `oci:${source}`, { baseLayerPath, settings }), {
    code: 'ERR_CONVERT_BASE',
  });
});

test('damaged and lying sources are refused, and leave nothing behind', async (t) => {
  const tars = [tarOfFiles({ a: noise('a', 200_000) }), tarOfFiles({ b: 'b' })];
  const good = composeImage(tars);
  const workParent = temporaryFolder(t);
  const rejects = async (image: Composed, code: string, spoil?: (folder: string) => void) => {
    const folder = layoutOf(t, image);
    spoil?.(folder);
    const target = join(temporaryFolder(t), 'target');
    await assert.rejects(convertNamed(t, `oci:${folder}`, `oci:${target}`, { workParent }), {
      code,
    });
    assert.equal(statSync(join(target, 'index.json'), { throwIfNoEntry: false }), undefined);
    assert.deepEqual(filesBelow(workParent), []);
  };
  const [layer] = [...good.blobs.keys()];
  const damage = (change: (bytes: Buffer) => Buffer) => (folder: string) => {
    const path = layoutBlob(folder, layer);
    writeFileSync(path, change(readFileSync(path)));
  };
  const flip = (bytes: Buffer) => Buffer.concat([bytes.subarray(0, -1), Buffer.of(1)]);
  await rejects(good, 'ERR_CONVERT_DIGEST', damage(flip));
  await rejects(
    good,
    'ERR_CONVERT_SIZE',
    damage((bytes) => bytes.subarray(1)),
  );
  const swapped = tars.map(digestOf).reverse();
  await rejects(composeImage(tars, { diffIds: swapped }), 'ERR_CONVERT_DIFF_ID');
  await rejects(composeImage(tars, { diffIds: swapped.slice(1) }), 'ERR_CONVERT_CONFIG');
  await rejects(composeImage([]), 'ERR_CONVERT_SOURCE');
  await rejects(composeImage(Array<Buffer>(255).fill(tars[1])), 'ERR_CONVERT_SOURCE');
  const lying = composeImage(tars, { compression: 'none' });
  const text = lying.root.bytes.toString().replaceAll('layer.v1.tar"', 'layer.v1.tar+gzip"');
  const bytes = Buffer.from(text);
  const root = { ...lying.root, bytes, digest: digestOf(bytes) };
  await rejects({ ...lying, root }, 'ERR_CONVERT_COMPRESSION');
});

test('an image that is converted already is not converted again', async (t) => {
  const source = layoutOf(t, composeImage([tarOfFiles({ a: 'a' })]));
  const [layout] = await toLayout(t, `oci:${source}`);
  await assert.rejects(toLayout(t, `oci:${layout}`), /overlaybd image already/);
});

/** Lines that only one of two trees has; our root directory has one more, lost+found. */
function differences(found: readonly string[], expected: readonly string[]): string[] {
  const [ours, theirs] = [found, expected].map(
    (lines) => new Set(lines.map((line) => line.replace(/^( \S+ \S+ \S+ \S+) \S+/, '$1'))),
  );
  return [
    ...[...ours].filter((line) => !theirs.has(line)).map((line) => `ours: ${line}`),
    ...[...theirs].filter((line) => !ours.has(line)).map((line) => `umoci's: ${line}`),
  ];
}
