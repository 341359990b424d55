import { parseReference } from '../../registry/reference.ts';
import type { RegistryClient } from '../../registry/client.ts';
import type { BuiltImage } from './image.ts';

/**
 * Pushes layers, configuration and, last, the manifest, under the reference's tag (default
 * `latest`). Resolves to the manifest's digest. Errors: those of the registry client.
 */
export async function pushImage(
  client: Pick<RegistryClient, 'pushBlob' | 'pushManifest'>,
  reference: string,
  image: BuiltImage,
  signal?: AbortSignal,
): Promise<string> {
  const target = parseReference(reference);
  const options = signal === undefined ? {} : { signal };
  for (const { path, digest, sizeBytes } of image.layers) {
    await client.pushBlob(target, { digest, sizeBytes, content: { path } }, options);
  }
  const { descriptor, bytes } = image.config;
  const config = { digest: descriptor.digest, sizeBytes: descriptor.size, content: { bytes } };
  await client.pushBlob(target, config, options);
  const { mediaType } = image.manifest.descriptor;
  const tag = target.tag ?? 'latest';
  const pushed = await client.pushManifest(target, image.manifest.bytes, mediaType, tag);
  return pushed.digest;
}
