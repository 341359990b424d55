import { realpath, stat } from 'node:fs/promises';
import { ReplaybdError } from '../../base/errors.ts';
import type { RegistryClient } from '../../registry/client.ts';
import type { Descriptor, ImageManifest } from '../../registry/manifest.ts';
import { parseReference, repositoryBlobUrl } from '../../registry/reference.ts';
import { annotation } from './annotations.ts';
import { layoutBlobPath, readLayoutImage } from './oci-layout.ts';

/** overlaybd's image configuration (`config.v1.json`), as far as an image determines it. */
export interface DeviceConfig {
  /** '' when every lower is a file. */
  repoBlobUrl: string;
  /** The bottom first. */
  lowers: ({ file: string } | { digest: string; size: number })[];
  /** Where a runtime writes how opening went; '' when nowhere. */
  resultFile: string;
}

/** The configuration of an image in an OCI layout: its lowers are the layout's files. */
export async function layoutDeviceConfig(
  folder: string,
  tag: string | null,
): Promise<DeviceConfig> {
  const manifest = await readLayoutImage(folder, tag);
  const lowers: DeviceConfig['lowers'] = [];
  for (const { digest, size } of overlaybdLayers(folder, manifest)) {
    const path = layoutBlobPath(await realpath(folder), digest);
    const found = (await stat(path)).size;
    if (found !== size) {
      throw new ReplaybdError(
        'ERR_LAYOUT',
        `${path}: expected ${size} bytes, found ${found}. The layout is damaged.`,
      );
    }
    lowers.push({ file: path });
  }
  return { repoBlobUrl: '', lowers, resultFile: '' };
}

/** The configuration of an image in a registry: its lowers are fetched as they are read. */
export async function registryDeviceConfig(
  client: Pick<RegistryClient, 'getManifest' | 'repository'>,
  reference: string,
): Promise<DeviceConfig> {
  const target = parseReference(reference);
  const { manifest } = await client.getManifest(target);
  const layers = overlaybdLayers(reference, manifest);
  return {
    repoBlobUrl: repositoryBlobUrl(client.repository(target)),
    lowers: layers.map(({ digest, size }) => ({ digest, size })),
    resultFile: '',
  };
}

/** An image's layers without the one that holds a trace. Errors: ERR_IMAGE_NOT_OVERLAYBD. */
function overlaybdLayers(name: string, manifest: ImageManifest): Descriptor[] {
  for (const { digest, annotations } of manifest.layers) {
    if (annotations?.[annotation.blobDigest] === digest) continue;
    throw new ReplaybdError(
      'ERR_IMAGE_NOT_OVERLAYBD',
      `${name}: layer ${digest}: expected the annotation ${annotation.blobDigest} with its digest, ` +
        `found ${annotations?.[annotation.blobDigest] ?? 'none'}. Convert the image first.`,
    );
  }
  return manifest.layers.filter(
    ({ annotations }) => annotations?.[annotation.accelerationLayer] !== 'yes',
  );
}
