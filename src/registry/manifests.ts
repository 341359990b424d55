import { registryLimits } from '../base/limits.ts';
import { CollectingSink } from './collect.ts';
import { assertDigest, digestOf } from './digest.ts';
import { publicUrl, RegistryError } from './errors.ts';
import { header } from './headers.ts';
import {
  isIndex,
  mediaTypes,
  parseManifest,
  selectPlatform,
  type ImageIndex,
  type ImageManifest,
  type Platform,
} from './manifest.ts';
import type { Repository } from './reference.ts';
import type { Session } from './session.ts';
import { statusError } from './status-error.ts';

export interface FetchedManifest {
  digest: string;
  mediaType: string;
  /** The exact bytes the digest is of. */
  bytes: Uint8Array;
  manifest: ImageManifest;
}

export interface FetchedIndex extends Omit<FetchedManifest, 'manifest'> {
  manifest: ImageManifest | ImageIndex;
}

const ACCEPT = [
  mediaTypes.ociManifest,
  mediaTypes.ociIndex,
  mediaTypes.dockerManifest,
  mediaTypes.dockerList,
].join(', ');

/** An image's manifest by tag or digest; of an index, the one for `platform`. */
export async function fetchImageManifest(
  session: Session,
  repository: Repository,
  tagOrDigest: string,
  platform: Platform,
  signal?: AbortSignal,
): Promise<FetchedManifest> {
  const fetched = await fetchManifest(session, repository, tagOrDigest, signal);
  if (!isIndex(fetched.manifest)) return { ...fetched, manifest: fetched.manifest };
  const name = manifestName(repository, tagOrDigest);
  const chosen = selectPlatform(name, fetched.manifest, platform);
  const inner = await fetchManifest(session, repository, chosen.digest, signal);
  if (isIndex(inner.manifest)) {
    throw new RegistryError('ERR_MANIFEST', `${name}: expected an image, found nested indexes.`);
  }
  return { ...inner, manifest: inner.manifest };
}

/** A manifest or index as it is, its digest verified. */
export async function fetchManifest(
  session: Session,
  repository: Repository,
  tagOrDigest: string,
  signal?: AbortSignal,
): Promise<FetchedIndex> {
  const url = new URL(manifestName(repository, tagOrDigest));
  const sink = new CollectingSink(url, registryLimits.manifestBytesMax);
  const request = {
    url,
    method: 'GET' as const,
    access: { repository, actions: 'pull' as const },
    headers: { accept: ACCEPT },
    ...(signal === undefined ? {} : { signal }),
  };
  const head = await session.exchange(request, sink);
  const bytes = sink.bytes();
  if (head.status !== 200) throw statusError(url, head, bytes, session.clock.wallMs());
  const digest = digestOf(bytes);
  const told = header(head.headers, 'docker-content-digest') ?? digest;
  const expected = tagOrDigest.startsWith('sha256:') ? tagOrDigest : told;
  if (expected !== digest) throw digestMismatch(url, expected, digest);
  const manifest = parseManifest(publicUrl(url), bytes);
  const contentType = (header(head.headers, 'content-type') ?? '').split(';')[0]?.trim();
  return { digest, mediaType: manifest.mediaType ?? contentType ?? '', bytes, manifest };
}

/** A blob small enough for memory, its digest verified. */
export async function fetchSmallBlob(
  session: Session,
  repository: Repository,
  digest: string,
  limitBytes: number,
  signal?: AbortSignal,
): Promise<Uint8Array> {
  assertDigest(digest, repository.name);
  const url = new URL(`${repository.origin}/v2/${repository.name}/blobs/${digest}`);
  const sink = new CollectingSink(url, limitBytes);
  const access = { repository, actions: 'pull' as const };
  const request = {
    url,
    method: 'GET' as const,
    access,
    ...(signal === undefined ? {} : { signal }),
  };
  const head = await session.exchange(request, sink);
  const bytes = sink.bytes();
  if (head.status !== 200) throw statusError(url, head, bytes, session.clock.wallMs());
  const found = digestOf(bytes);
  if (found !== digest) throw digestMismatch(url, digest, found);
  return bytes;
}

export function manifestName(repository: Repository, tagOrDigest: string): string {
  return `${repository.origin}/v2/${repository.name}/manifests/${tagOrDigest}`;
}

function digestMismatch(url: URL, expected: string, found: string): RegistryError {
  return new RegistryError(
    'ERR_DIGEST_MISMATCH',
    `${publicUrl(url)}: expected content of ${expected}, found ${found}.`,
    { retryable: true },
  );
}
