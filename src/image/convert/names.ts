import { folderFiles } from './layout-files.ts';
import { dockerArchiveSource } from './docker-archive.ts';
import { layoutSource } from './layout-source.ts';
import { layoutTarget } from './layout-target.ts';
import { registrySource, type SourceRegistry } from './registry-source.ts';
import { registryTarget, type TargetRegistry } from './registry-target.ts';
import { sourceError, type ImageSource } from './source.ts';
import type { ImageTarget } from './target.ts';

/** How the command line names images, as skopeo does; without a prefix it is a reference. */
type ImageName =
  | { kind: 'layout'; folder: string; tag: string | null }
  | { kind: 'archive'; path: string; reference: string | null }
  | { kind: 'registry'; reference: string };

/** `oci:DIR[:TAG]`, `docker-archive:FILE[:REFERENCE]`, or a reference. Throws ERR_CONVERT_NAME. */
export function parseImageName(text: string): ImageName {
  const [, prefix, path = '', rest] = /^(oci|docker-archive):([^:]*)(?::(.+))?$/.exec(text) ?? [];
  if (prefix === undefined) return { kind: 'registry', reference: text };
  if (path === '') {
    throw sourceError('ERR_CONVERT_NAME', `${text}: expected a path after ${prefix}:, found none.`);
  }
  return prefix === 'oci'
    ? { kind: 'layout', folder: path, tag: rest ?? null }
    : { kind: 'archive', path, reference: rest ?? null };
}

/** What a name stands for as a source. */
export async function openSource(name: ImageName, client: SourceRegistry): Promise<ImageSource> {
  if (name.kind === 'registry') return registrySource(client, name.reference);
  if (name.kind === 'archive') return dockerArchiveSource(name.path, name.reference);
  return layoutSource(folderFiles(name.folder), name.tag === null ? null : [name.tag]);
}

/** What a name stands for as a target. Throws ERR_CONVERT_NAME for an archive. */
export function openTarget(
  name: ImageName,
  client: TargetRegistry,
  isReferrer: boolean,
): ImageTarget {
  if (name.kind === 'registry') return registryTarget(client, name.reference, isReferrer);
  if (name.kind === 'layout') {
    return layoutTarget(name.folder, name.tag ?? (isReferrer ? null : 'latest'));
  }
  throw sourceError(
    'ERR_CONVERT_NAME',
    `docker-archive:${name.path}: expected a registry reference or oci:DIR to convert to, found ` +
      'an archive, which cannot hold overlaybd images.',
  );
}
