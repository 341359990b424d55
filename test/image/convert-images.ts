import { execFileSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { gzipSync, zstdCompressSync } from 'node:zlib';
import { digestHex, digestOf } from '../../src/registry/digest.ts';
import type { DirectoryStore } from '../../src/registry/embedded/store.ts';
import { mediaTypes, type Descriptor } from '../../src/registry/manifest.ts';
import { makeTree, noise } from './ext4-tree.ts';

export type Compression = 'none' | 'gzip' | 'zstd';

/** A manifest or index. */
export interface ComposedObject {
  mediaType: string;
  digest: string;
  bytes: Buffer;
}

/** An image or index as it travels, composed by hand: nothing of the converter is in it. */
export interface Composed {
  /** What the image's name stands for. */
  root: ComposedObject;
  /** Manifests of an index. */
  children: ComposedObject[];
  blobs: Map<string, Buffer>;
}

export interface ComposeOptions {
  compression?: Compression;
  style?: 'oci' | 'docker';
  architecture?: string;
  /** Instead of the layers' own. */
  diffIds?: string[];
  /** More members of the manifest. */
  extra?: object;
}

const COMPRESS: Record<Compression, (bytes: Buffer) => Buffer> = {
  none: (bytes) => bytes,
  gzip: (bytes) => gzipSync(bytes, { level: 1 }),
  // Two frames, as tools that compress in parallel write them.
  zstd: (bytes) =>
    Buffer.concat([
      zstdCompressSync(bytes.subarray(0, 1000)),
      zstdCompressSync(bytes.subarray(1000)),
    ]),
};

/** The tar of a folder's content, by GNU tar. */
export function tarOf(folder: string, ...more: string[]): Buffer {
  const options = [
    '--format=pax',
    '--xattrs',
    '--xattrs-include=*',
    '--sort=name',
    '--numeric-owner',
  ];
  const args = [...options, ...more, '-C', folder, '-c', '.'];
  return execFileSync('tar', args, { maxBuffer: 2 ** 30 });
}

/** The tar of some files, by path and content; null makes a folder. */
export function tarOfFiles(files: Readonly<Record<string, string | Buffer | null>>): Buffer {
  const folder = mkdtempSync(join(tmpdir(), 'replaybd-tar-'));
  try {
    for (const [name, content] of Object.entries(files)) {
      const path = join(folder, name);
      mkdirSync(content === null ? path : dirname(path), { recursive: true });
      if (content !== null) writeFileSync(path, content);
    }
    return tarOf(folder, '--mtime=2020-01-02 03:04:05', '--owner=0', '--group=0');
  } finally {
    rmSync(folder, { recursive: true });
  }
}

/** Layers that add, replace, remove and hide one of everything; the bottom first. */
export function everyKindOfLayer(): Buffer[] {
  const folder = mkdtempSync(join(tmpdir(), 'replaybd-tar-'));
  try {
    makeTree(folder);
    rmSync(join(folder, 'islands'));
    const second = join(folder, 'a');
    const bottom = tarOf(folder, '--sparse');
    writeFileSync(join(second, 'added'), noise('added', 70_000));
    symlinkSync('../a/added', join(folder, 'to-added'));
    const replaced = tarOf(folder, '--exclude=./many', '--exclude=./size-*', '--exclude=./sparse');
    return [
      bottom,
      replaced,
      tarOfFiles({ 'a/.wh.hello': '', '.wh.many': '', 'empty/now/full': 'x', '.wh.l1': '' }),
      tarOfFiles({ 'a/b/.wh..wh..opq': '', 'a/b/only': noise('only', 9000), 'many/again': 'y' }),
      tarOfFiles({}),
    ];
  } finally {
    rmSync(folder, { recursive: true });
  }
}

export function composeImage(tars: readonly Buffer[], options: ComposeOptions = {}): Composed {
  const { compression = 'gzip', style = 'oci', architecture = 'amd64', extra = {} } = options;
  const isOci = style === 'oci';
  const blobs = new Map<string, Buffer>();
  const add = (bytes: Buffer, mediaType: string): Descriptor => {
    blobs.set(digestOf(bytes), bytes);
    return { mediaType, digest: digestOf(bytes), size: bytes.length };
  };
  const suffix = compression === 'none' ? '' : `${isOci ? '+' : '.'}${compression}`;
  const layerType = (isOci ? mediaTypes.ociLayer : mediaTypes.dockerLayer) + suffix;
  const layers = tars.map((tar) => add(COMPRESS[compression](tar), layerType));
  const config = {
    architecture,
    os: 'linux',
    created: '2021-03-04T05:06:07Z',
    config: { Env: ['PATH=/bin'], Cmd: ['/bin/sh'], Labels: { kept: 'yes' } },
    rootfs: { type: 'layers', diff_ids: options.diffIds ?? tars.map(digestOf) },
    history: [
      ...tars.map((_, i) => ({ created_by: `step ${i}` })),
      { created_by: 'nothing', empty_layer: true },
    ],
  };
  const configType = isOci ? mediaTypes.ociConfig : mediaTypes.dockerConfig;
  const mediaType = isOci ? mediaTypes.ociManifest : mediaTypes.dockerManifest;
  const manifest = {
    schemaVersion: 2,
    mediaType,
    config: add(Buffer.from(JSON.stringify(config)), configType),
    layers,
    ...extra,
  };
  return { root: object(manifest, mediaType), children: [], blobs };
}

/** An index of images for amd64, arm64 and so on, with an attestation of the first, as BuildKit writes. */
export function composeIndex(
  images: readonly { image: Composed; architecture: string }[],
): Composed {
  const blobs = new Map(images.flatMap(({ image }) => [...image.blobs]));
  const attestation = composeImage([Buffer.from('{"_type":"https://in-toto.io/Statement"}')]);
  for (const [digest, bytes] of attestation.blobs) blobs.set(digest, bytes);
  const children = [...images.map(({ image }) => image.root), attestation.root];
  const describe = ({ mediaType, digest, bytes }: ComposedObject) => {
    return { mediaType, digest, size: bytes.length };
  };
  const manifest = {
    schemaVersion: 2,
    mediaType: mediaTypes.ociIndex,
    manifests: [
      ...images.map(({ image, architecture }) => {
        return { ...describe(image.root), platform: { os: 'linux', architecture } };
      }),
      {
        ...describe(attestation.root),
        annotations: {
          'vnd.docker.reference.type': 'attestation-manifest',
          'vnd.docker.reference.digest': images[0].image.root.digest,
        },
        platform: { os: 'unknown', architecture: 'unknown' },
      },
    ],
    annotations: { 'org.example.kept': 'yes' },
  };
  return { root: object(manifest, mediaTypes.ociIndex), children, blobs };
}

/** Writes an OCI image layout. */
export function writeLayout(folder: string, image: Composed, tag = 'latest'): void {
  const blobs = join(folder, 'blobs', 'sha256');
  mkdirSync(blobs, { recursive: true });
  for (const [digest, bytes] of image.blobs) writeFileSync(join(blobs, digestHex(digest)), bytes);
  for (const { digest, bytes } of [image.root, ...image.children]) {
    writeFileSync(join(blobs, digestHex(digest)), bytes);
  }
  const { mediaType, digest, bytes } = image.root;
  const annotations = {
    'org.opencontainers.image.ref.name': tag,
    'io.containerd.image.name': `docker.io/library/test:${tag}`,
  };
  const listed = { mediaType, digest, size: bytes.length, annotations };
  writeFileSync(join(folder, 'oci-layout'), '{"imageLayoutVersion":"1.0.0"}');
  writeFileSync(
    join(folder, 'index.json'),
    JSON.stringify({ schemaVersion: 2, manifests: [listed] }),
  );
}

/** Puts an image into a registry's directory. */
export function putInRegistry(
  store: DirectoryStore,
  repository: string,
  tag: string,
  image: Composed,
): void {
  for (const bytes of image.blobs.values()) store.putBlob(repository, bytes);
  for (const child of image.children) store.putManifest(repository, child, null);
  store.putManifest(repository, image.root, tag);
}

/** Writes what `docker save` wrote before version 25: layers in folders, equal ones as links. */
export function writeDockerArchive(file: string, tars: readonly Buffer[], name: string): void {
  const folder = mkdtempSync(join(tmpdir(), 'replaybd-archive-'));
  try {
    const [config] = [
      ...composeImage(tars, { compression: 'none', style: 'docker' }).blobs.values(),
    ].slice(-1);
    const configName = `${digestHex(digestOf(config))}.json`;
    writeFileSync(join(folder, configName), config);
    const layers = tars.map((tar, i) => {
      const layer = join(String(i).repeat(64), 'layer.tar');
      mkdirSync(join(folder, dirname(layer)));
      const same = tars.findIndex((other) => other.equals(tar));
      if (same < i) symlinkSync(`../${String(same).repeat(64)}/layer.tar`, join(folder, layer));
      else writeFileSync(join(folder, layer), tar);
      return layer;
    });
    const manifest = [{ Config: configName, RepoTags: [name], Layers: layers }];
    writeFileSync(join(folder, 'manifest.json'), JSON.stringify(manifest));
    execFileSync('tar', ['--format=gnu', '-C', folder, '-cf', file, '.']);
  } finally {
    rmSync(folder, { recursive: true });
  }
}

function object(manifest: object, mediaType: string): ComposedObject {
  const bytes = Buffer.from(JSON.stringify(manifest));
  return { mediaType, digest: digestOf(bytes), bytes };
}
