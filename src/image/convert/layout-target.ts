import { copyFile, link, mkdir, rm, stat } from 'node:fs/promises';
import { dirname } from 'node:path';
import { writeFileAtomic } from '../../base/atomic-file.ts';
import { codeOf } from '../../base/errors.ts';
import { layoutBlobPath, tagInLayout } from '../build/oci-layout.ts';
import type { ImageTarget, PutOutcome } from './target.ts';

/**
 * An OCI image layout, made where it is missing. An image that had the tag loses it; without a tag
 * (a referrer has none) the image is listed by its digest alone.
 */
export function layoutTarget(folder: string, tag: string | null): ImageTarget {
  return {
    place: null,
    putLayer: ({ path, digest, sizeBytes }) => placeFile(folder, path, digest, sizeBytes),
    putConfig: ({ digest }, bytes) => writeFileAtomic(layoutBlobPath(folder, digest), bytes),
    putManifest: async ({ descriptor, bytes }, isRoot) => {
      await writeFileAtomic(layoutBlobPath(folder, descriptor.digest), bytes);
      if (isRoot) await tagInLayout(folder, descriptor, tag);
    },
  };
}

async function placeFile(
  folder: string,
  path: string,
  digest: string,
  sizeBytes: number,
): Promise<PutOutcome> {
  const target = layoutBlobPath(folder, digest);
  if (await isComplete(target, sizeBytes)) return 'present';
  await mkdir(dirname(target), { recursive: true });
  await rm(target, { force: true });
  try {
    await link(path, target);
  } catch (error) {
    if (codeOf(error) === 'EEXIST') return 'present';
    if (codeOf(error) !== 'EXDEV') throw error;
    await copyFile(path, target);
  }
  return 'uploaded';
}

/** Blobs appear whole, but a copy may have been cut short. */
async function isComplete(path: string, sizeBytes: number): Promise<boolean> {
  try {
    return (await stat(path)).size === sizeBytes;
  } catch (error) {
    if (codeOf(error) === 'ENOENT') return false;
    throw error;
  }
}
