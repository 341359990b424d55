// Goal: `image build` makes overlaybd images that hold exactly the ext4 file system of their directories,
// the same one every time, in a form other tools accept.
// Method: build from small trees; read the layers back with the project's readers and compare with an
// ext4 file built separately; let skopeo read the layout; push to a registry in this process.
import assert from 'node:assert/strict';
import { execFileSync, spawn, spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import {
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  statSync,
  unlinkSync,
  writeFileSync,
} from 'node:fs';
import { open } from 'node:fs/promises';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { SECTOR_BYTES } from '../../src/base/limits.ts';
import { openLocalBlob } from '../../src/blob/local-blob.ts';
import { layoutDeviceConfig, registryDeviceConfig } from '../../src/image/build/device-config.ts';
import {
  buildImage,
  type BuildImageOptions,
  type BuiltImage,
} from '../../src/image/build/image.ts';
import { addToLayout, readLayoutImage } from '../../src/image/build/oci-layout.ts';
import { pushImage } from '../../src/image/build/push-image.ts';
import { readImageConfig } from '../../src/image/config.ts';
import { addTree, createExt4 } from '../../src/image/ext4/build.ts';
import { openStack } from '../../src/image/stack.ts';
import { createRegistryClient } from '../../src/registry/client.ts';
import { startEmbeddedRegistry } from '../../src/registry/embedded/server.ts';
import { checkWithE2fsck, copyAndTouch, noise, temporaryFolder } from './ext4-tree.ts';

const MIB = 1024 * 1024;
const commandLine = new URL('./build-cli.ts', import.meta.url).pathname;

function makeLower(folder: string): string {
  const path = join(folder, 'lower');
  mkdirSync(join(path, 'a/deep'), { recursive: true });
  mkdirSync(join(path, 'many'));
  writeFileSync(join(path, 'a/hello'), 'hello');
  writeFileSync(join(path, 'a/large'), noise('large', 3 * MIB));
  writeFileSync(join(path, 'zeros'), Buffer.alloc(20_000));
  for (let i = 0; i < 100; i += 1) writeFileSync(join(path, `many/file-number-${i}`), `${i}`);
  return path;
}

function makeUpper(folder: string): string {
  const path = join(folder, 'upper');
  mkdirSync(join(path, 'a'), { recursive: true });
  writeFileSync(join(path, 'a/large'), 'small now');
  writeFileSync(join(path, 'a/added'), noise('added', 100_000));
  return path;
}

async function build(
  folder: string,
  rootfs: string[],
  options: Partial<BuildImageOptions> = {},
): Promise<BuiltImage> {
  const workFolder = join(folder, `work-${readdirSync(folder).length}`);
  mkdirSync(workFolder);
  return buildImage({ rootfs, workFolder, ...options });
}

/** The disk that a stack of layer files is, written to a file. */
async function flatten(test: TestContext, paths: string[], target: string): Promise<void> {
  const blobs = await Promise.all(paths.map((path) => openLocalBlob(path)));
  test.after(() => Promise.all(blobs.map((blob) => blob.close())));
  const stack = await openStack(blobs);
  const file = await open(target, 'w');
  await file.truncate(stack.map.virtualSizeBytes);
  const sectors = stack.map.virtualSizeBytes / SECTOR_BYTES;
  for (const piece of stack.locate(0, sectors)) {
    const length = piece.sectors * SECTOR_BYTES;
    const bytes = await stack.layers[piece.layer].container.bytes.read(piece.lsmtOffset, length);
    await file.write(bytes, 0, length, piece.lba * SECTOR_BYTES);
  }
  await file.close();
}

for (const options of [{}, { algorithm: 'zstd', blockBytes: 16_384 }] as const) {
  const name = 'algorithm' in options ? 'zstd of 16 KiB' : 'default compression';
  test(`two layers are the two file systems, with ${name}`, async (context) => {
    const folder = temporaryFolder(context);
    const trees = [makeLower(folder), makeUpper(folder)];
    const image = await build(folder, trees, options);
    const paths = image.layers.map(({ path }) => path);

    const expected = join(folder, 'expected');
    writeFileSync(expected, '');
    const { virtualSizeBytes } = image;
    await createExt4(expected, { virtualSizeBytes });
    for (const [index, rootfs] of trees.entries()) {
      await addTree({ rootfs, imagePath: expected });
      await flatten(context, paths.slice(0, index + 1), join(folder, 'found'));
      execFileSync('cmp', [expected, join(folder, 'found')]);
      checkWithE2fsck(join(folder, 'found'));
    }
    // The second holds what changed, not all of it.
    assert(image.layers[1].dataBytes < image.layers[0].dataBytes / 2);
    assert.equal(image.layers[0].digest, sha256(readFileSync(paths[0])));
    assert.equal(image.layers[0].sizeBytes, statSync(paths[0]).size);
  });
}

test('equal content gives an equal image', async (context) => {
  const folder = temporaryFolder(context);
  const lower = makeLower(folder);
  copyAndTouch(lower, join(folder, 'copy'));
  const upper = makeUpper(folder);
  const [first, second] = [
    await build(folder, [lower, upper]),
    await build(folder, [join(folder, 'copy'), upper]),
  ];
  assert.equal(first.manifest.descriptor.digest, second.manifest.descriptor.digest);
  writeFileSync(join(folder, 'copy/a/hello'), 'hullo');
  const third = await build(folder, [join(folder, 'copy'), upper]);
  assert.notEqual(third.layers[0].uuid, first.layers[0].uuid);
  assert.notEqual(third.layers[1].uuid, first.layers[1].uuid, 'a layer’s parent is part of it');
});

test('a layer does not depend on what is put above it', async (context) => {
  const folder = temporaryFolder(context);
  const lower = makeLower(folder);
  const upper = makeUpper(folder);
  const virtualSizeBytes = 256 * MIB;
  const lowerDigest = async (rootfs: string[], inodeCount?: number): Promise<string> =>
    (await build(folder, rootfs, { virtualSizeBytes, inodeCount })).layers[0].digest;
  const alone = await lowerDigest([lower]);
  const withInodes = await lowerDigest([lower], 40_000);
  assert.notEqual(alone, withInodes);
  // More than fit into the default's 16,384 inodes with a quarter to spare.
  mkdirSync(join(upper, 'more'));
  for (let i = 0; i < 14_000; i += 1) writeFileSync(join(upper, 'more', `${i}`), '');
  assert.equal(await lowerDigest([lower, upper]), alone);
  assert.equal(await lowerDigest([lower, upper], 40_000), withInodes);
});

test('there are inodes for all files, unless fewer are asked for', async (context) => {
  const folder = temporaryFolder(context);
  const root = join(folder, 'root');
  mkdirSync(root);
  for (let i = 0; i < 1100; i += 1) writeFileSync(join(root, `${i}`), '');
  const virtualSizeBytes = 16 * MIB;
  await build(folder, [root], { virtualSizeBytes });
  await assert.rejects(build(folder, [root], { virtualSizeBytes, inodeCount: 512 }), {
    code: 'ERR_EXT4_FULL',
    message: /more inodes or a larger virtual size/,
  });
});

test('an almost empty disk of 64 GiB is a blob of less than 1 MiB', async (context) => {
  const folder = temporaryFolder(context);
  mkdirSync(join(folder, 'root'));
  const options = { virtualSizeBytes: 64 * 1024 * MIB };
  const image = await build(folder, [join(folder, 'root')], options);
  assert.equal(image.virtualSizeBytes, 64 * 1024 * MIB);
  assert(image.layers[0].sizeBytes < MIB, `${image.layers[0].sizeBytes} bytes`);
});

test('a target inside the content is refused', async (context) => {
  const folder = temporaryFolder(context);
  await assert.rejects(build(folder, [folder]), { code: 'ERR_IMAGE_TARGET' });
  await assert.rejects(build(folder, []), { code: 'ERR_IMAGE_LAYERS' });
});

test('the manifest and the configuration say what overlaybd and OCI want', async (context) => {
  const folder = temporaryFolder(context);
  const image = await build(folder, [makeLower(folder), makeUpper(folder)], {
    platform: { os: 'linux', architecture: 'arm64' },
    process: { entrypoint: ['/bin/run'], cmd: ['-x'], env: ['A=b'] },
  });
  const manifest = JSON.parse(image.manifest.bytes.toString());
  const config = JSON.parse(image.config.bytes.toString());
  const digests = image.layers.map(({ digest }) => digest);
  assert.deepEqual(config, {
    os: 'linux',
    architecture: 'arm64',
    config: { Env: ['A=b'], Entrypoint: ['/bin/run'], Cmd: ['-x'] },
    rootfs: { type: 'layers', diff_ids: digests },
    history: Array(2).fill({ created_by: 'replaybd image build' }),
  });
  assert.equal(manifest.mediaType, 'application/vnd.oci.image.manifest.v1+json');
  assert.equal(manifest.config.digest, sha256(image.config.bytes));
  for (const [index, layer] of manifest.layers.entries()) {
    const { digest, sizeBytes } = image.layers[index];
    assert.deepEqual(layer, {
      mediaType: 'application/vnd.oci.image.layer.v1.tar',
      digest,
      size: sizeBytes,
      annotations: {
        'containerd.io/snapshot/overlaybd/blob-digest': digest,
        'containerd.io/snapshot/overlaybd/blob-size': String(sizeBytes),
        'containerd.io/snapshot/overlaybd/blob-fs-type': 'ext4',
        'containerd.io/snapshot/overlaybd/version': '0.1.0',
      },
    });
  }
});

test('a layout takes several images, and skopeo reads it', async (context) => {
  const folder = temporaryFolder(context);
  const layout = join(folder, 'layout');
  const [lower, upper] = [makeLower(folder), makeUpper(folder)];
  const one = await build(folder, [lower]);
  await addToLayout(layout, one, 'one');
  const two = await build(folder, [lower, upper]);
  await addToLayout(layout, two, 'two');
  const moved = await build(folder, [upper]);
  await addToLayout(layout, moved, 'one');

  const index = JSON.parse(readFileSync(join(layout, 'index.json'), 'utf8'));
  assert.equal(index.manifests.length, 2);
  const blobs = readdirSync(join(layout, 'blobs/sha256'));
  for (const name of blobs) {
    assert.equal(`sha256:${name}`, sha256(readFileSync(join(layout, 'blobs/sha256', name))));
  }
  const digests = (manifest: { layers: { digest: string }[] }) =>
    manifest.layers.map(({ digest }) => digest);
  assert.deepEqual(
    digests(await readLayoutImage(layout, 'one')),
    moved.layers.map(({ digest }) => digest),
  );
  await assert.rejects(readLayoutImage(layout, null), { code: 'ERR_LAYOUT', message: /two/ });
  await assert.rejects(readLayoutImage(layout, 'three'), { code: 'ERR_LAYOUT' });

  const inspected = spawnSync('skopeo', ['inspect', `oci:${layout}:two`], { encoding: 'utf8' });
  if (inspected.error !== undefined) return context.diagnostic('skopeo is not installed');
  assert.equal(inspected.status, 0, inspected.stderr);
  const facts = JSON.parse(inspected.stdout);
  assert.equal(facts.Digest, two.manifest.descriptor.digest);
  assert.deepEqual(
    facts.Layers,
    two.layers.map(({ digest }) => digest),
  );
});

test('a device configuration names files of a layout, or blobs of a registry', async (context) => {
  const folder = temporaryFolder(context);
  const layout = join(folder, 'layout');
  const image = await build(folder, [makeLower(folder), makeUpper(folder)]);
  const registry = await startEmbeddedRegistry({ root: join(folder, 'registry') });
  const client = createRegistryClient();
  context.after(() => Promise.all([registry.close(), client.close()]));
  const reference = `${registry.url}/library/example:v1`;
  const digest = await pushImage(client, reference, image);
  assert.equal(digest, image.manifest.descriptor.digest);
  const pulled = await registryDeviceConfig(client, reference);
  assert.deepEqual(pulled, {
    repoBlobUrl: `${registry.url}/v2/library/example/blobs`,
    lowers: image.layers.map(({ digest, sizeBytes }) => ({ digest, size: sizeBytes })),
    resultFile: '',
  });
  for (const { digest, sizeBytes } of image.layers) {
    assert.equal(await client.headBlob(reference, digest), sizeBytes);
  }

  await addToLayout(layout, image, 'v1');
  const local = await layoutDeviceConfig(layout, 'v1');
  assert.equal(local.repoBlobUrl, '');
  const files = local.lowers.map((lower) => ('file' in lower ? lower.file : ''));
  assert.deepEqual(
    files.map((file) => sha256(readFileSync(file))),
    image.layers.map(({ digest }) => digest),
  );
  unlinkSync(files[1]);
  writeFileSync(files[1], 'short');
  await assert.rejects(layoutDeviceConfig(layout, 'v1'), { code: 'ERR_LAYOUT' });
});

test('the command builds, prints JSON, and leaves only the image', async (context) => {
  const folder = temporaryFolder(context);
  const layout = join(folder, 'layout');
  const flags = ['--rootfs', makeLower(folder), '--layout', layout, '--tag', 'demo', '--json'];
  const output = runCommand(['image', 'build', ...flags, '--entrypoint', '/bin/x', '--cmd', 'y']);
  assert.equal(output.status, 0, output.stderr);
  const result = JSON.parse(output.stdout);
  assert.equal(result.layers.length, 1);
  assert.deepEqual(readdirSync(layout).sort(), ['blobs', 'index.json', 'oci-layout']);
  assert.equal(readdirSync(join(layout, 'blobs/sha256')).length, 3);

  const target = join(folder, 'config.v1.json');
  const told = runCommand(['image', 'config', `oci:${layout}:demo`, '-o', target]);
  assert.equal(told.status, 0, told.stderr);
  const config = await readImageConfig(target);
  assert.equal(config.lowers.length, 1);
  assert.equal(sha256(readFileSync(config.lowers[0].file)), result.layers[0].digest);
  const printed = runCommand(['image', 'config', `oci:${layout}:demo`, '-o', '-']);
  assert.equal(printed.stdout, readFileSync(target, 'utf8'));
  const nowhere = join(folder, 'none/config.v1.json');
  const refused = runCommand(['image', 'config', `oci:${layout}:demo`, '-o', nowhere]);
  assert.match(refused.stderr, /expected the folder \S+none to write into/);

  const failed = runCommand([
    'image',
    'build',
    '--rootfs',
    join(folder, 'none'),
    '--layout',
    layout,
  ]);
  assert.notEqual(failed.status, 0);
  assert.match(failed.stderr, /none.*ERR_EXT4_SOURCE|ERR_EXT4_SOURCE/);
  assert.deepEqual(readdirSync(layout).sort(), ['blobs', 'index.json', 'oci-layout']);
  assert.notEqual(runCommand(['image', 'build', '--rootfs', folder]).status, 0);
});

test('an interrupted command leaves nothing behind', async (context) => {
  const folder = temporaryFolder(context);
  const layout = join(folder, 'layout');
  const root = join(folder, 'root');
  mkdirSync(root);
  for (let i = 0; i < 20; i += 1) writeFileSync(join(root, `${i}`), noise(`${i}`, 4 * MIB));
  const flags = ['image', 'build', '--rootfs', root, '--layout', layout];
  const child = spawn(process.execPath, [commandLine, ...flags], { stdio: 'ignore' });
  const closed = once(child, 'close');
  while (!existsSync(layout) || readdirSync(layout).length === 0) {
    if (child.exitCode !== null) break;
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
  child.kill('SIGINT');
  const [exitCode] = await closed;
  assert.notEqual(exitCode, 0);
  assert.deepEqual(readdirSync(layout), []);
});

function runCommand(parameters: string[]) {
  return spawnSync(process.execPath, [commandLine, ...parameters], { encoding: 'utf8' });
}

function sha256(bytes: Uint8Array): string {
  return `sha256:${createHash('sha256').update(bytes).digest('hex')}`;
}
