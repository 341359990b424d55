import { execFileSync } from 'node:child_process';
import { mkdirSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import {
  convert,
  type ConvertedRoot,
  type ConvertOptions,
} from '../../src/image/convert/convert.ts';
import { openSource, openTarget, parseImageName } from '../../src/image/convert/names.ts';
import { exportToFile } from '../../src/image/export.ts';
import { openInput } from '../../src/image/input.ts';
import { createRegistryClient, type RegistryClient } from '../../src/registry/client.ts';
import { digestHex } from '../../src/registry/digest.ts';
import type { ImageManifest } from '../../src/registry/manifest.ts';
import { temporaryFolder } from './ext4-tree.ts';

export const MIB = 2 ** 20;

type Overrides = Partial<Omit<ConvertOptions, 'source' | 'target'>>;

const silent = {
  begun: () => undefined,
  fetched: () => undefined,
  applied: () => undefined,
  committed: () => undefined,
  finished: () => undefined,
};

/** Converts from and to what the command line would name, with a small disk. */
export async function convertNamed(
  t: TestContext,
  from: string,
  to: string,
  overrides: Overrides = {},
  client: RegistryClient = clientOf(t),
): Promise<ConvertedRoot> {
  const style = overrides.style ?? { isOci: to.startsWith('oci:'), isReferrer: false };
  return convert({
    source: await openSource(parseImageName(from), client),
    target: openTarget(parseImageName(to), client, style.isReferrer),
    settings: { virtualSizeBytes: 512 * MIB, algorithm: 'lz4', blockBytes: 4096 },
    style,
    platform: 'all',
    baseLayerPath: null,
    concurrency: 2,
    cache: null,
    workParent: temporaryFolder(t),
    isDurable: false,
    progress: silent,
    signal: new AbortController().signal,
    ...overrides,
  });
}

export function clientOf(t: TestContext): RegistryClient {
  const client = createRegistryClient();
  t.after(() => client.close());
  return client;
}

/** The first image's merged disk in a raw file. */
export async function exportLayout(
  t: TestContext,
  layout: string,
  result: ConvertedRoot,
  image = 0,
): Promise<string> {
  const paths = result.images[image].layers.map(({ digest }) => layoutBlob(layout, digest));
  const input = await openInput(paths);
  const raw = join(temporaryFolder(t), 'disk.raw');
  await exportToFile(input.source, raw);
  await input.close();
  return raw;
}

export function layoutBlob(layout: string, digest: string): string {
  return join(layout, 'blobs', 'sha256', digestHex(digest));
}

/** A manifest in a layout. */
export function readLayoutManifest(layout: string, digest: string): ImageManifest {
  return JSON.parse(readFileSync(layoutBlob(layout, digest), 'utf8')) as ImageManifest;
}

/** An image of a layout, unpacked by umoci. */
export function unpackWithUmoci(t: TestContext, layout: string): string {
  const folder = join(temporaryFolder(t), 'rootfs');
  execFileSync('umoci', ['raw', 'unpack', '--image', `${layout}:latest`, folder]);
  return folder;
}

/** A fresh folder's path. */
export function freshFolder(t: TestContext, name: string): string {
  const folder = join(temporaryFolder(t), name);
  mkdirSync(folder);
  return folder;
}

/** All files below a folder, by path. */
export function filesBelow(folder: string): string[] {
  return readdirSync(folder, { recursive: true, encoding: 'utf8' }).sort();
}
