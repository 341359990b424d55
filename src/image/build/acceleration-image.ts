import { ReplaybdError } from '../../base/errors.ts';
import type { RegistryClient } from '../../registry/client.ts';
import { isObject, parseJsonObject } from '../../registry/collect.ts';
import { digestOf } from '../../registry/digest.ts';
import { mediaTypes, type Descriptor, type ImageManifest } from '../../registry/manifest.ts';
import { parseReference } from '../../registry/reference.ts';
import { annotation, LAYER_VERSION } from './annotations.ts';

/** What overlaybd's tools call such a layer in an image's history. */
const HISTORY_COMMENT = 'Acceleration Layer';

/** An image with one more layer, ready to be pushed. */
export interface AcceleratedImage {
  readonly layer: { readonly descriptor: Descriptor; readonly bytes: Uint8Array };
  readonly config: { readonly descriptor: Descriptor; readonly bytes: Buffer };
  readonly manifest: { readonly descriptor: Descriptor; readonly bytes: Buffer };
}

export interface ImageParts {
  /** For messages. */
  readonly name: string;
  readonly manifest: ImageManifest;
  /** Of the manifest. */
  readonly mediaType: string;
  readonly config: Uint8Array;
}

/**
 * Puts an acceleration layer on top of an image, as overlaybd's `record-trace` does: the layer's
 * annotations, its diff id and a line of history. Unlike theirs the line is the last one and has no
 * date of its own, so equal images and traces give equal results.
 * Errors: ERR_IMAGE_NOT_OVERLAYBD, ERR_IMAGE_ACCELERATED for an image that has such a layer,
 * ERR_IMAGE_CONFIG.
 */
export function addAccelerationLayer(image: ImageParts, layerBytes: Uint8Array): AcceleratedImage {
  const { manifest, mediaType } = image;
  checkTopLayer(image);
  const isDocker = mediaType === mediaTypes.dockerManifest;
  const layer = describe(layerBytes, isDocker ? mediaTypes.dockerLayer : mediaTypes.ociLayer);
  const fsType = manifest.layers.at(-1)?.annotations?.[annotation.fsType];
  layer.annotations = {
    [annotation.blobDigest]: layer.digest,
    [annotation.blobSize]: String(layer.size),
    [annotation.accelerationLayer]: 'yes',
    [annotation.version]: LAYER_VERSION,
    ...(fsType === undefined ? {} : { [annotation.fsType]: fsType }),
  };
  const config = configWith(image, layer.digest);
  // Without `subject`: what refers to the old image does not refer to this one.
  const { subject: _subject, ...kept } = manifest;
  const described = { ...manifest.config, ...describe(config, manifest.config.mediaType) };
  const changed = { ...kept, mediaType, config: described, layers: [...manifest.layers, layer] };
  const bytes = Buffer.from(JSON.stringify(changed));
  return {
    layer: { descriptor: layer, bytes: layerBytes },
    config: { descriptor: described, bytes: config },
    manifest: { descriptor: describe(bytes, mediaType), bytes },
  };
}

/**
 * Adds an acceleration layer to an image of a registry, and pushes it to the same repository under
 * another tag. Resolves to the new manifest's digest. Errors: those of addAccelerationLayer,
 * ERR_PACK_TARGET, and the registry client's.
 */
export async function pushAccelerated(
  client: Pick<
    RegistryClient,
    'getManifest' | 'getBlob' | 'pushBlob' | 'pushManifest' | 'repository'
  >,
  source: string,
  target: string,
  layerBytes: Uint8Array,
): Promise<string> {
  const [from, to] = [parseReference(source), parseReference(target)];
  const [home, goal] = [client.repository(from), client.repository(to)];
  const isSamePlace = home.host === goal.host && home.name === goal.name;
  const { tag } = to;
  const isSameImage = from.digest === null && tag === (from.tag ?? 'latest');
  if (!isSamePlace || tag === null || to.digest !== null || isSameImage) {
    throw new ReplaybdError(
      'ERR_PACK_TARGET',
      `${target}: expected another tag of ${home.host}/${home.name}, where the image's layers are, ` +
        `found ${isSamePlace ? 'none' : 'another place'}. Pack there, and copy the image afterwards.`,
    );
  }
  const fetched = await client.getManifest(from);
  const { manifest } = fetched;
  const mediaType = fetched.mediaType || mediaTypes.ociManifest;
  const config = await client.getBlob(from, manifest.config.digest);
  const image = addAccelerationLayer({ name: source, manifest, mediaType, config }, layerBytes);
  for (const { descriptor, bytes } of [image.layer, image.config]) {
    const { digest, size } = descriptor;
    await client.pushBlob(to, { digest, sizeBytes: size, content: { bytes } });
  }
  const { descriptor, bytes } = image.manifest;
  return (await client.pushManifest(to, bytes, descriptor.mediaType, tag)).digest;
}

function checkTopLayer({ name, manifest }: ImageParts): void {
  const top = manifest.layers.at(-1);
  if (top === undefined || top.annotations?.[annotation.blobDigest] !== top.digest) {
    throw new ReplaybdError(
      'ERR_IMAGE_NOT_OVERLAYBD',
      `${name}: the top layer lacks the annotation ${annotation.blobDigest} with its digest: this ` +
        'is not an overlaybd image. Convert it first.',
    );
  }
  if (top.annotations[annotation.accelerationLayer] === 'yes') {
    throw new ReplaybdError(
      'ERR_IMAGE_ACCELERATED',
      `${name}: has an acceleration layer already. Pack the trace for the image without it.`,
    );
  }
}

function configWith({ name, manifest, config }: ImageParts, diffId: string): Buffer {
  const json = parseJsonObject(config);
  const rootfs = json?.rootfs;
  const diffIds = isObject(rootfs) ? rootfs.diff_ids : null;
  if (json === null || !isObject(rootfs) || !Array.isArray(diffIds)) {
    throw configError(name, 'an object with rootfs.diff_ids', 'something else');
  }
  if (diffIds.length !== manifest.layers.length) {
    throw configError(name, `${manifest.layers.length} diff ids, one a layer`, diffIds.length);
  }
  const ids: unknown[] = [...diffIds, diffId];
  const past: unknown[] = Array.isArray(json.history) ? json.history : [];
  // The image's own date, where it has one.
  const date = typeof json.created === 'string' ? { created: json.created } : {};
  const history = [...past, { ...date, comment: HISTORY_COMMENT }];
  const changed = { ...json, rootfs: { ...rootfs, diff_ids: ids }, history };
  return Buffer.from(JSON.stringify(changed));
}

function describe(bytes: Uint8Array, mediaType: string): Descriptor {
  return { mediaType, digest: digestOf(bytes), size: bytes.length };
}

function configError(name: string, expected: string, found: string | number): ReplaybdError {
  const message = `${name}: image configuration: expected ${expected}, found ${found}.`;
  return new ReplaybdError('ERR_IMAGE_CONFIG', message);
}
