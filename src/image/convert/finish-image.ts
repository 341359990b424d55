import { digestOf } from '../../registry/digest.ts';
import {
  mediaTypes,
  type Descriptor,
  type ImageIndex,
  type ImageManifest,
} from '../../registry/manifest.ts';
import { layerAnnotations } from '../build/annotations.ts';
import type { ConvertedLayer } from './convert-image.ts';
import { withDiffIds } from './image-config.ts';
import type { PlannedImage } from './plan-image.ts';
import type { FinishedObject } from './target.ts';

/** What a client asks for that looks for overlaybd images that refer to another. */
export const REFERRER_TYPE = 'application/vnd.containerd.overlaybd.native.v1+json';

/** Which media types an image has: Docker's schema 2, or OCI's. */
export interface ImageStyle {
  isOci: boolean;
  /** The image refers to its source, which only OCI's can. */
  isReferrer: boolean;
}

/** The source's configuration with the new layers' diff ids. */
export function finishConfig(
  image: PlannedImage,
  layers: readonly ConvertedLayer[],
  { isOci }: ImageStyle,
): { descriptor: Descriptor; bytes: Buffer } {
  // A blob's tar is not compressed: its digest is its diff id.
  const bytes = withDiffIds(
    image.config,
    layers.map(({ digest }) => digest),
  );
  return describe(bytes, isOci ? mediaTypes.ociConfig : mediaTypes.dockerConfig);
}

/** The manifest of the new layers; annotations stay those of the source's. */
export function finishManifest(
  image: PlannedImage,
  layers: readonly ConvertedLayer[],
  config: Descriptor,
  style: ImageStyle,
): FinishedObject {
  const { annotations } = image.manifest;
  const layerType = style.isOci ? mediaTypes.ociLayer : mediaTypes.dockerLayer;
  const manifest: ImageManifest = {
    schemaVersion: 2,
    mediaType: style.isOci ? mediaTypes.ociManifest : mediaTypes.dockerManifest,
    ...(style.isReferrer ? { artifactType: REFERRER_TYPE } : {}),
    config,
    layers: layers.map(({ digest, sizeBytes }) => ({
      mediaType: layerType,
      digest,
      size: sizeBytes,
      annotations: layerAnnotations(digest, sizeBytes),
    })),
    ...(style.isReferrer ? { subject: bare(image.source) } : {}),
    ...(annotations === undefined ? {} : { annotations }),
  };
  return finish(manifest, style);
}

/** The source's index with the images that took the place of its own, each with its platform. */
export function finishIndex(
  source: Descriptor,
  index: ImageIndex,
  entries: readonly { original: Descriptor; converted: Descriptor }[],
  style: ImageStyle,
): FinishedObject {
  const { annotations } = index;
  const manifest: ImageIndex = {
    schemaVersion: 2,
    mediaType: style.isOci ? mediaTypes.ociIndex : mediaTypes.dockerList,
    ...(style.isReferrer ? { artifactType: REFERRER_TYPE } : {}),
    manifests: entries.map(({ original, converted }) => ({
      ...converted,
      ...(original.annotations === undefined ? {} : { annotations: original.annotations }),
      ...(original.platform === undefined ? {} : { platform: original.platform }),
    })),
    ...(style.isReferrer ? { subject: bare(source) } : {}),
    ...(annotations === undefined ? {} : { annotations }),
  };
  return finish(manifest, style);
}

function finish(manifest: ImageManifest | ImageIndex, style: ImageStyle): FinishedObject {
  const bytes = Buffer.from(JSON.stringify(manifest));
  const { descriptor } = describe(bytes, manifest.mediaType ?? '');
  const artifactType = style.isReferrer ? { artifactType: REFERRER_TYPE } : {};
  return { descriptor: { ...descriptor, ...artifactType }, bytes, manifest };
}

function describe(bytes: Buffer, mediaType: string): { descriptor: Descriptor; bytes: Buffer } {
  return { descriptor: { mediaType, digest: digestOf(bytes), size: bytes.length }, bytes };
}

function bare({ mediaType, digest, size }: Descriptor): Descriptor {
  return { mediaType, digest, size };
}
