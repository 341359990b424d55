import { convertLimits } from '../../base/limits.ts';
import type { Descriptor, ImageIndex, Platform } from '../../registry/manifest.ts';
import { sourceError } from './source.ts';

/** An entry of an index that is left out, and why. */
export interface SkippedEntry {
  descriptor: Descriptor;
  reason: string;
}

export interface SelectedEntries {
  /** In the index's order. */
  images: Descriptor[];
  skipped: SkippedEntry[];
}

/**
 * The images of an index that are to be converted: all, or those of one platform. Attestations,
 * which name no platform, other artifacts and other operating systems' images are left out.
 * Throws ERR_CONVERT_PLATFORM when nothing remains, ERR_CONVERT_SOURCE beyond the limit.
 */
export function selectEntries(
  name: string,
  index: ImageIndex,
  wanted: Platform | 'all',
): SelectedEntries {
  const images: Descriptor[] = [];
  const skipped: SkippedEntry[] = [];
  for (const descriptor of index.manifests) {
    const reason = reasonToSkip(descriptor, wanted);
    if (reason === null) images.push(descriptor);
    else skipped.push({ descriptor, reason });
  }
  if (images.length > convertLimits.imagesMax) {
    throw sourceError(
      'ERR_CONVERT_SOURCE',
      `${name}: expected an index of at most ${convertLimits.imagesMax} images, ` +
        `found ${images.length}. Choose one with --platform.`,
    );
  }
  if (images.length > 0) return { images, skipped };
  const found = skipped.slice(0, 10).map(({ descriptor }) => platformText(descriptor.platform));
  const expected = wanted === 'all' ? 'an image for linux' : `an image for ${platformText(wanted)}`;
  throw sourceError(
    'ERR_CONVERT_PLATFORM',
    `${name}: expected ${expected}, found ${found.join(', ') || 'an empty index'}.`,
  );
}

/** `os/architecture[/variant]`. */
export function platformText(platform: Platform | undefined): string {
  if (platform === undefined) return 'no platform';
  const { os, architecture, variant } = platform;
  return [os, architecture, ...(variant === undefined ? [] : [variant])].join('/');
}

function reasonToSkip(descriptor: Descriptor, wanted: Platform | 'all'): string | null {
  const { platform, annotations, artifactType } = descriptor;
  if (annotations?.['vnd.docker.reference.type'] !== undefined) return 'an attestation';
  if (platform?.os === 'unknown' && platform.architecture === 'unknown') return 'an attestation';
  if (artifactType !== undefined) return `an artifact, ${artifactType.slice(0, 120)}`;
  if (platform !== undefined && platform.os !== 'linux') return 'not for linux';
  return wanted === 'all' || matchesPlatform(platform, wanted) ? null : 'another platform';
}

/** Whether an image for `platform` is one for `wanted`, which may leave the variant open. */
export function matchesPlatform(platform: Platform | undefined, wanted: Platform): boolean {
  if (platform?.os !== wanted.os || platform.architecture !== wanted.architecture) return false;
  return wanted.variant === undefined || platform.variant === wanted.variant;
}
