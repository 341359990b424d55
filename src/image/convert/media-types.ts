import { mediaTypes } from '../../registry/manifest.ts';
import { sourceError } from './source.ts';

/** How a layer's tar is compressed. */
export type LayerCompression = 'none' | 'gzip' | 'zstd';

const COMPRESSIONS: ReadonlyMap<string, LayerCompression> = new Map([
  [mediaTypes.ociLayer, 'none'],
  [`${mediaTypes.ociLayer}+gzip`, 'gzip'],
  [`${mediaTypes.ociLayer}+zstd`, 'zstd'],
  [mediaTypes.dockerLayer, 'none'],
  [`${mediaTypes.dockerLayer}.gzip`, 'gzip'],
  [`${mediaTypes.dockerLayer}.zstd`, 'zstd'],
]);

/** Layers whose content their publisher allows nobody to pass on. */
const FOREIGN = /\.(?:foreign\.diff|layer\.nondistributable)\./;

/**
 * The compression that a layer's media type states (OCI image specification, layer.md; Docker's
 * image manifest schema 2). Throws ERR_CONVERT_MEDIA_TYPE for layers that cannot be converted.
 */
export function layerCompression(name: string, mediaType: string): LayerCompression {
  const compression = COMPRESSIONS.get(mediaType);
  if (compression !== undefined) return compression;
  const found = JSON.stringify(mediaType.slice(0, 120));
  const reason = FOREIGN.test(mediaType)
    ? 'Such a layer lies outside of registries and may not be passed on.'
    : mediaType.includes('+encrypted')
      ? 'Decrypt the image first.'
      : 'It is no file system layer of an OCI or Docker image.';
  throw sourceError(
    'ERR_CONVERT_MEDIA_TYPE',
    `${name}: expected a tar layer, plain, gzip or zstd, found ${found}. ${reason}`,
  );
}
