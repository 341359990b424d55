import { existsSync } from 'node:fs';
import { mkdir, open, readFile, rename, rm, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { codeOf, ReplaybdError } from '../../base/errors.ts';
import { registryLimits } from '../../base/limits.ts';
import { assertDigest, digestHex, digestOf } from '../../registry/digest.ts';
import {
  hostPlatform,
  isIndex,
  mediaTypes,
  parseManifest,
  selectPlatform,
  type Descriptor,
  type ImageIndex,
  type ImageManifest,
  type Platform,
} from '../../registry/manifest.ts';
import type { BuiltImage } from './image.ts';

const REF_NAME = 'org.opencontainers.image.ref.name';
const LAYOUT_FILE = 'oci-layout';
const INDEX_FILE = 'index.json';

/** Where a layout keeps a blob. */
export function layoutBlobPath(folder: string, digest: string): string {
  assertDigest(digest, folder);
  return join(folder, 'blobs', 'sha256', digestHex(digest));
}

/**
 * Puts an image into an OCI image layout, which is made where it is missing; a tag that is there
 * moves. Layers are moved out of their work folder, which must be on the same file system. The index
 * is replaced last and as a whole, so that a reader finds the old image or the new one.
 */
export async function addToLayout(folder: string, image: BuiltImage, tag: string): Promise<void> {
  await mkdir(join(folder, 'blobs', 'sha256'), { recursive: true });
  for (const { path, digest } of image.layers) await rename(path, layoutBlobPath(folder, digest));
  for (const { descriptor, bytes } of [image.config, image.manifest]) {
    await replaceFile(layoutBlobPath(folder, descriptor.digest), bytes);
  }
  await tagInLayout(folder, image.manifest.descriptor, tag);
}

/**
 * Lists a manifest or index, which is there already, in a layout's index: under a tag, which moves
 * if another has it, or by its digest alone.
 */
export async function tagInLayout(
  folder: string,
  descriptor: Descriptor,
  tag: string | null,
): Promise<void> {
  const index = await readIndex(folder);
  const others = index.manifests.filter(({ digest, annotations }) => {
    const name = annotations?.[REF_NAME];
    return tag === null ? digest !== descriptor.digest || name !== undefined : name !== tag;
  });
  const listed = tag === null ? descriptor : { ...descriptor, annotations: { [REF_NAME]: tag } };
  const layout = Buffer.from('{"imageLayoutVersion":"1.0.0"}');
  await replaceFile(join(folder, LAYOUT_FILE), layout);
  const changed = { ...index, manifests: [...others, listed] };
  await replaceFile(join(folder, INDEX_FILE), Buffer.from(JSON.stringify(changed)));
}

/** Whether a folder is an OCI image layout. */
export function isLayout(folder: string): boolean {
  return existsSync(join(folder, LAYOUT_FILE));
}

/** An image's manifest in a layout, by tag, or the only one. Errors: ERR_LAYOUT, ERR_MANIFEST,
 * ERR_PLATFORM. */
export async function readLayoutImage(
  folder: string,
  tag: string | null,
  platform: Platform = hostPlatform(),
): Promise<ImageManifest> {
  if (!isLayout(folder)) throw layoutError(folder, `expected a file ${LAYOUT_FILE}, found none`);
  const { manifests } = await readIndex(folder);
  const fits = manifests.filter(
    ({ annotations }) => tag === null || annotations?.[REF_NAME] === tag,
  );
  const [first] = fits;
  if (first === undefined || fits.length > 1) {
    const tags = manifests.map(({ annotations }) => annotations?.[REF_NAME] ?? '(no tag)');
    const wanted = tag === null ? 'one image' : `an image tagged ${tag}`;
    throw layoutError(
      folder,
      `expected ${wanted}, found ${tags.slice(0, 10).join(', ') || 'none'}`,
    );
  }
  return readManifest(folder, first, platform);
}

async function readManifest(
  folder: string,
  descriptor: Descriptor,
  platform: Platform,
): Promise<ImageManifest> {
  const path = layoutBlobPath(folder, descriptor.digest);
  const bytes = await readLimited(path);
  if (digestOf(bytes) !== descriptor.digest) {
    throw layoutError(path, `expected ${descriptor.digest}, found ${digestOf(bytes)}`);
  }
  const manifest = parseManifest(path, bytes);
  if (!isIndex(manifest)) return manifest;
  const chosen = selectPlatform(path, manifest, platform);
  const inner = parseManifest(path, await readLimited(layoutBlobPath(folder, chosen.digest)));
  if (isIndex(inner)) throw layoutError(path, 'expected an image, found nested indexes');
  return inner;
}

async function readIndex(folder: string): Promise<ImageIndex> {
  const path = join(folder, INDEX_FILE);
  try {
    const index = parseManifest(path, await readLimited(path));
    if (!isIndex(index)) throw layoutError(path, 'expected an index, found an image manifest');
    return index;
  } catch (error) {
    if (codeOf(error) !== 'ENOENT') throw error;
    return { schemaVersion: 2, mediaType: mediaTypes.ociIndex, manifests: [] };
  }
}

async function readLimited(path: string): Promise<Uint8Array> {
  const { size } = await stat(path);
  if (size <= registryLimits.manifestBytesMax) return readFile(path);
  throw layoutError(
    path,
    `expected at most ${registryLimits.manifestBytesMax} bytes, found ${size}`,
  );
}

async function replaceFile(path: string, bytes: Uint8Array): Promise<void> {
  const partial = `${path}.partial-${process.pid}`;
  const file = await open(partial, 'wx');
  try {
    await file.writeFile(bytes);
    await file.datasync();
    await rename(partial, path);
  } catch (error) {
    await rm(partial, { force: true });
    throw error;
  } finally {
    await file.close();
  }
}

function layoutError(name: string, problem: string): ReplaybdError {
  return new ReplaybdError('ERR_LAYOUT', `${name}: image layout: ${problem}.`, { errno: 'EINVAL' });
}
