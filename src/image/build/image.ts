import { digestOf } from '../../registry/digest.ts';
import {
  hostPlatform,
  mediaTypes,
  type Descriptor,
  type ImageManifest,
  type Platform,
} from '../../registry/manifest.ts';
import { layerAnnotations } from './annotations.ts';
import { buildLayers, type BuildLayersOptions, type BuiltLayers } from './layers.ts';

/** What a container of the image runs; OCI image specification, config.md. */
export interface ImageProcess {
  entrypoint?: readonly string[] | undefined;
  cmd?: readonly string[] | undefined;
  /** `NAME=value`. */
  env?: readonly string[] | undefined;
  workingDir?: string | undefined;
}

export interface BuildImageOptions extends BuildLayersOptions {
  /** Default: this machine's. */
  platform?: Platform | undefined;
  process?: ImageProcess | undefined;
}

export interface BuiltImage extends BuiltLayers {
  config: { descriptor: Descriptor; bytes: Buffer };
  manifest: { descriptor: Descriptor; bytes: Buffer };
}

/**
 * Builds layers (see buildLayers) and the OCI manifest and configuration that make them an image.
 * Neither holds a date: equal content and options give an equal image. Nothing is published yet.
 */
export async function buildImage(options: BuildImageOptions): Promise<BuiltImage> {
  const platform = options.platform ?? hostPlatform();
  const built = await buildLayers(options);
  const config = toJson(imageConfig(built, platform, options.process ?? {}), mediaTypes.ociConfig);
  const manifest: ImageManifest = {
    schemaVersion: 2,
    mediaType: mediaTypes.ociManifest,
    config: config.descriptor,
    layers: built.layers.map(({ digest, sizeBytes }) => ({
      mediaType: mediaTypes.ociLayer,
      digest,
      size: sizeBytes,
      annotations: layerAnnotations(digest, sizeBytes),
    })),
  };
  const { descriptor, bytes } = toJson(manifest, mediaTypes.ociManifest);
  return { ...built, config, manifest: { descriptor: { ...descriptor, platform }, bytes } };
}

function imageConfig(built: BuiltLayers, platform: Platform, container: ImageProcess): object {
  const { entrypoint, cmd, env, workingDir } = container;
  return {
    ...platform,
    config: {
      ...(env === undefined ? {} : { Env: env }),
      ...(entrypoint === undefined ? {} : { Entrypoint: entrypoint }),
      ...(cmd === undefined ? {} : { Cmd: cmd }),
      ...(workingDir === undefined ? {} : { WorkingDir: workingDir }),
    },
    rootfs: { type: 'layers', diff_ids: built.layers.map(({ digest }) => digest) },
    history: built.layers.map(() => ({ created_by: 'replaybd image build' })),
  };
}

function toJson(value: object, mediaType: string): { descriptor: Descriptor; bytes: Buffer } {
  const bytes = Buffer.from(JSON.stringify(value));
  return { descriptor: { mediaType, digest: digestOf(bytes), size: bytes.length }, bytes };
}
