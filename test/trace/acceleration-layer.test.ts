import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { gzipSync } from 'node:zlib';
import fc from 'fast-check';
import { codeOf } from '../../src/base/errors.ts';
import { addAccelerationLayer } from '../../src/image/build/acceleration-image.ts';
import { digestOf } from '../../src/registry/digest.ts';
import { mediaTypes, type ImageManifest } from '../../src/registry/manifest.ts';
import {
  chooseAccelerationTrace,
  packAccelerationLayer,
  readAccelerationFolder,
  unpackAccelerationLayer,
} from '../../src/trace/overlaybd/acceleration-layer.ts';
import { encodeTrace } from '../../src/trace/encode.ts';
import { bootLikeRecords, digestOfText, syntheticLayers, traceOf } from './synthetic.ts';

// Goal: acceleration layers are what overlaybd's tools make and read, and hostile ones do no harm.
// Method: a layer and a folder of the original; GNU tar as another reader; random damage; an image's
// manifest and configuration before and after.

const fixtures = new URL('../fixtures/trace/', import.meta.url).pathname;
const theirs = readFileSync(`${fixtures}trace`);
const ours = encodeTrace(traceOf(bootLikeRecords(20, 1), syntheticLayers(1)));
const unexpected = (error: unknown) => assert.fail(String(error));

test("the original's layer and folder hold its trace", async () => {
  const layer = readFileSync(`${fixtures}accel-layer.tar`);
  for (const files of [
    unpackAccelerationLayer(layer, 'layer'),
    unpackAccelerationLayer(gzipSync(layer), 'layer'),
    await readAccelerationFolder(`${fixtures}accel-dir`),
  ]) {
    assert.deepEqual(Buffer.from(files.trace ?? []), theirs);
    assert.equal(files.msgpack, null);
    const chosen = chooseAccelerationTrace(files, 'layer', unexpected);
    assert.equal(chosen?.kind === 'overlaybd' ? chosen.trace.count : null, 61);
  }
});

test('what is packed is a tar for others too, and comes back', (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'replaybd-test-'));
  t.after(() => rmSync(folder, { recursive: true }));
  const layer = packAccelerationLayer({ trace: theirs, msgpack: ours });
  assert.deepEqual(packAccelerationLayer({ trace: theirs, msgpack: ours }), layer);
  const path = join(folder, 'layer.tar');
  writeFileSync(path, layer);
  const listed = execFileSync('tar', ['--numeric-owner', '--utc', '-tvf', path], {
    encoding: 'utf8',
  });
  assert.match(listed, /^-r--r--r-- 0\/0 +1488 1970-01-01 00:00 trace$/m);
  assert.match(listed, /^-r--r--r-- 0\/0 +\d+ 1970-01-01 00:00 trace\.msgpack$/m);
  execFileSync('tar', ['-xf', path, '-C', folder]);
  assert.deepEqual(readFileSync(join(folder, 'trace')), theirs);
  const files = unpackAccelerationLayer(layer, 'layer');
  assert.deepEqual(files, { trace: theirs, msgpack: Buffer.from(ours) });
  assert.equal(chooseAccelerationTrace(files, 'layer', unexpected)?.kind, 'replaybd');
});

test('a damaged trace of ours gives way to theirs', () => {
  const broken = Buffer.from(ours);
  broken[100] ^= 1;
  let told: unknown = null;
  const files = { trace: theirs, msgpack: broken };
  const chosen = chooseAccelerationTrace(files, 'layer', (error) => (told = error));
  assert.equal(chosen?.kind, 'overlaybd');
  assert.equal(codeOf(told), 'ERR_TRACE_CHECKSUM');
});

test('no trace, or an empty one, is none', async () => {
  for (const trace of [null, new Uint8Array(0)]) {
    assert.equal(chooseAccelerationTrace({ trace, msgpack: null }, 'layer', unexpected), null);
  }
  const files = await readAccelerationFolder('/nowhere');
  assert.deepEqual(files, { trace: null, msgpack: null });
  const empty = packAccelerationLayer({ trace: null, msgpack: null });
  assert.deepEqual(unpackAccelerationLayer(empty, 'layer'), { trace: null, msgpack: null });
});

test('a layer that claims to be huge, or bombs, is refused', () => {
  const layer = packAccelerationLayer({ trace: theirs, msgpack: null });
  layer.write('77777777777', 124, 'latin1');
  layer.fill(' ', 148, 156);
  const sum = layer.subarray(0, 512).reduce((total, byte) => total + byte, 0);
  layer.write(`${sum.toString(8).padStart(6, '0')}\0 `, 148, 'latin1');
  assert.throws(() => unpackAccelerationLayer(layer, 'layer'), { code: 'ERR_ACCELERATION_LAYER' });
  const bomb = gzipSync(Buffer.alloc(40 * 1024 * 1024));
  assert.throws(() => unpackAccelerationLayer(bomb, 'layer'), { code: 'ERR_ACCELERATION_LAYER' });
});

test('any damage to a layer is an error of its own, or none', () => {
  const layer = packAccelerationLayer({ trace: theirs, msgpack: ours });
  fc.assert(
    fc.property(
      fc.array(fc.tuple(fc.nat(1023), fc.nat(255)), { minLength: 1, maxLength: 8 }),
      fc.nat(layer.length),
      (changes, length) => {
        const bytes = Buffer.from(layer.subarray(0, length));
        for (const [at, value] of changes) if (at < length) bytes[at] = value;
        try {
          const files = unpackAccelerationLayer(bytes, 'layer');
          chooseAccelerationTrace(files, 'layer', () => undefined);
        } catch (error) {
          assert.match(codeOf(error), /^ERR_(TAR|TRACE|ACCELERATION|PATH_LIST)/);
        }
      },
    ),
    { numRuns: 400 },
  );
});

const prefix = 'containerd.io/snapshot/overlaybd/';
const layerDigest = digestOfText('layer');
const manifest: ImageManifest = {
  schemaVersion: 2,
  mediaType: mediaTypes.ociManifest,
  config: { mediaType: mediaTypes.ociConfig, digest: digestOfText('config'), size: 7 },
  layers: [
    {
      mediaType: mediaTypes.ociLayer,
      digest: layerDigest,
      size: 5,
      annotations: { [`${prefix}blob-digest`]: layerDigest, [`${prefix}blob-fs-type`]: 'ext4' },
    },
  ],
  annotations: { kept: 'yes' },
};
const config = {
  created: '2024-01-02T03:04:05Z',
  architecture: 'amd64',
  config: { Env: ['A=b'] },
  rootfs: { type: 'layers', diff_ids: [layerDigest] },
  history: [{ created_by: 'build' }],
};
const image = {
  name: 'image',
  manifest,
  mediaType: mediaTypes.ociManifest,
  config: Buffer.from(JSON.stringify(config)),
};

test("an image gets the layer as overlaybd's tools add it", () => {
  const bytes = packAccelerationLayer({ trace: theirs, msgpack: null });
  const added = addAccelerationLayer(image, bytes);
  const digest = digestOf(bytes);
  const written = JSON.parse(added.manifest.bytes.toString()) as ImageManifest;
  assert.deepEqual(written.layers.at(-1), {
    mediaType: mediaTypes.ociLayer,
    digest,
    size: bytes.length,
    annotations: {
      [`${prefix}acceleration-layer`]: 'yes',
      [`${prefix}blob-digest`]: digest,
      [`${prefix}blob-fs-type`]: 'ext4',
      [`${prefix}blob-size`]: String(bytes.length),
      [`${prefix}version`]: '0.1.0',
    },
  });
  assert.deepEqual(written.layers.slice(0, -1), manifest.layers);
  assert.deepEqual(written.annotations, manifest.annotations);
  assert.equal(written.config.digest, digestOf(added.config.bytes));
  assert.equal(written.config.size, added.config.bytes.length);
  assert.deepEqual(JSON.parse(added.config.bytes.toString()), {
    ...config,
    rootfs: { type: 'layers', diff_ids: [layerDigest, digest] },
    history: [...config.history, { created: config.created, comment: 'Acceleration Layer' }],
  });
  assert.deepEqual(addAccelerationLayer(image, bytes), added, 'it is reproducible');
});

test('a Docker manifest stays one', () => {
  const bytes = packAccelerationLayer({ trace: theirs, msgpack: null });
  const docker = { ...image, mediaType: mediaTypes.dockerManifest };
  const added = addAccelerationLayer(docker, bytes);
  assert.equal(added.layer.descriptor.mediaType, mediaTypes.dockerLayer);
  assert.equal(added.manifest.descriptor.mediaType, mediaTypes.dockerManifest);
});

test('an image that cannot take the layer is refused', () => {
  const bytes = packAccelerationLayer({ trace: theirs, msgpack: null });
  const bare = { ...manifest, layers: [{ ...manifest.layers[0], annotations: {} }] };
  const refuse = (changed: Partial<typeof image>, code: string) =>
    assert.throws(() => addAccelerationLayer({ ...image, ...changed }, bytes), { code });
  refuse({ manifest: bare }, 'ERR_IMAGE_NOT_OVERLAYBD');
  refuse({ manifest: { ...manifest, layers: [] } }, 'ERR_IMAGE_NOT_OVERLAYBD');
  const { manifest: twice } = addAccelerationLayer(image, bytes);
  const accelerated = JSON.parse(twice.bytes.toString()) as ImageManifest;
  refuse({ manifest: accelerated }, 'ERR_IMAGE_ACCELERATED');
  for (const text of ['no', '[]', '{}', '{"rootfs":{"diff_ids":[]}}']) {
    refuse({ config: Buffer.from(text) }, 'ERR_IMAGE_CONFIG');
  }
});
