import assert from 'node:assert/strict';
import type { RegistryClient } from '../../registry/client.ts';
import { parseReference } from '../../registry/reference.ts';
import { sourceError } from './source.ts';
import type { ImageTarget } from './target.ts';

/** What a target needs of a registry. */
export type TargetRegistry = Pick<
  RegistryClient,
  'pushBlob' | 'pushManifest' | 'pushReferrer' | 'repository'
>;

/**
 * A repository. The image is tagged as the reference says: `latest` without a tag, but nothing for
 * a referrer, which is found by what it refers to. Throws ERR_REFERENCE; errors of its methods:
 * those of the registry client.
 */
export function registryTarget(
  client: TargetRegistry,
  reference: string,
  isReferrer: boolean,
): ImageTarget {
  const address = parseReference(reference);
  if (address.digest !== null) {
    throw sourceError(
      'ERR_REFERENCE',
      `${reference}: expected a tag to convert to, found a digest, which nobody can choose.`,
    );
  }
  const tag = address.tag ?? (isReferrer ? null : 'latest');
  const { host, name } = client.repository(address);
  const place = `${host}/${name}`;
  return {
    place,
    putLayer: ({ path, digest, sizeBytes, places }, signal) => {
      // One of the same registry, which is another repository than this.
      const known = places.find((other) => other.startsWith(`${host}/`) && other !== place);
      const mount = known === undefined ? {} : { mountFrom: known.slice(host.length + 1) };
      const blob = { digest, sizeBytes, content: { path } };
      return client.pushBlob(address, blob, { ...mount, signal });
    },
    putConfig: async ({ digest, size }, bytes, signal) => {
      const blob = { digest, sizeBytes: size, content: { bytes } };
      await client.pushBlob(address, blob, { signal });
    },
    putManifest: async ({ descriptor, bytes, manifest }, isRoot) => {
      const { subject } = manifest;
      if (subject !== undefined) {
        const pushed = await client.pushReferrer(address, { ...manifest, subject });
        assert.equal(pushed.digest, descriptor.digest, 'a referrer is pushed as it is');
      }
      if (isRoot && tag !== null) {
        await client.pushManifest(address, bytes, descriptor.mediaType, tag);
      } else if (subject === undefined) {
        await client.pushManifest(address, bytes, descriptor.mediaType);
      }
    },
  };
}
