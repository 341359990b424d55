import { convertLimits } from '../../base/limits.ts';
import {
  isIndex,
  mediaTypes,
  type Descriptor,
  type ImageManifest,
  type Platform,
} from '../../registry/manifest.ts';
import { annotation } from '../build/annotations.ts';
import { chainIds } from './chain-id.ts';
import type { LayerSettings } from './context.ts';
import { parseSourceConfig, type SourceConfig } from './image-config.ts';
import { layerKey, type StoredLayer } from './layer-cache.ts';
import { layerCompression, type LayerCompression } from './media-types.ts';
import { sourceError, type ImageSource, type SourceObject } from './source.ts';

/** The only file system that layers are applied to. */
export const FS_TYPE = 'ext4';

/** A layer of the source. */
export interface SourceLayer {
  descriptor: Descriptor;
  compression: LayerCompression;
  /** Of its uncompressed tar. */
  diffId: string;
  /** Of all layers up to this one. */
  chainId: string;
}

/** A layer that the converted image will have. */
export interface PlannedLayer {
  /** In the cache, where the base layer never is. */
  key: string;
  /** Null for the base layer. */
  input: SourceLayer | null;
  /** Known beforehand: the base layer. */
  stored: StoredLayer | null;
}

/** One image, checked as far as it can be before its layers are read. */
export interface PlannedImage {
  /** Unique in a run. */
  id: string;
  platform: Platform;
  /** The source's manifest. */
  source: Descriptor;
  manifest: ImageManifest;
  config: SourceConfig;
  /** The bottom first. */
  layers: PlannedLayer[];
}

const CONFIG_TYPES: readonly string[] = [mediaTypes.ociConfig, mediaTypes.dockerConfig];

/**
 * Reads an image's configuration and plans its layers. Errors: ERR_CONVERT_SOURCE for what is no
 * container image or is one of overlaybd's own, ERR_CONVERT_CONFIG, ERR_CONVERT_MEDIA_TYPE,
 * ERR_CONVERT_SIZE.
 */
export async function planImage(
  source: ImageSource,
  { descriptor, manifest }: SourceObject,
  settings: LayerSettings,
  base: StoredLayer | null,
): Promise<PlannedImage> {
  const name = `${source.name}: ${descriptor.digest}`;
  if (isIndex(manifest)) throw badSource(name, 'an image', 'an index inside an index');
  checkManifest(name, manifest);
  const bytes = await source.config(manifest.config);
  const config = parseSourceConfig(name, bytes, manifest.layers.length);
  if (config.platform.os !== 'linux') {
    throw badSource(name, 'an image for linux', `one for ${config.platform.os.slice(0, 40)}`);
  }
  const chain = chainIds(config.diffIds);
  const layers = manifest.layers.map((layer, i): PlannedLayer => {
    const compression = layerCompression(`${name}: ${layer.digest}`, layer.mediaType);
    const chainId = chain[i];
    const key = layerKey({
      chainId,
      ...settings,
      fsType: FS_TYPE,
      baseDigest: base?.digest ?? null,
    });
    const input = { descriptor: layer, compression, diffId: config.diffIds[i], chainId };
    return { key, input, stored: null };
  });
  if (base !== null) layers.unshift({ key: '', input: null, stored: base });
  const id = descriptor.digest.slice('sha256:'.length);
  return { id, platform: config.platform, source: descriptor, manifest, config, layers };
}

function checkManifest(name: string, { config, layers }: ImageManifest): void {
  if (!CONFIG_TYPES.includes(config.mediaType)) {
    throw badSource(name, 'a container image', `an artifact of ${config.mediaType.slice(0, 120)}`);
  }
  const { layersMax, layerBytesMax } = convertLimits;
  if (layers.length === 0 || layers.length > layersMax) {
    throw badSource(name, `1 to ${layersMax} layers`, String(layers.length));
  }
  for (const { digest, size, annotations } of layers) {
    if (annotations?.[annotation.blobDigest] !== undefined) {
      throw badSource(name, 'an ordinary image', 'one that is an overlaybd image already');
    }
    if (size > layerBytesMax) {
      throw sourceError(
        'ERR_CONVERT_SIZE',
        `${name}: ${digest}: expected at most ${layerBytesMax} bytes, found ${size}.`,
      );
    }
  }
}

function badSource(name: string, expected: string, found: string) {
  return sourceError('ERR_CONVERT_SOURCE', `${name}: expected ${expected}, found ${found}.`);
}
