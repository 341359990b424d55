import { registryLimits } from '../base/limits.ts';
import { CollectingSink } from './collect.ts';
import { assertDigest, digestHex, digestOf } from './digest.ts';
import { publicUrl, RegistryError } from './errors.ts';
import { header, nextPage } from './headers.ts';
import {
  isIndex,
  mediaTypes,
  parseManifest,
  type Descriptor,
  type ImageIndex,
  type ImageManifest,
} from './manifest.ts';
import { fetchManifest, manifestName } from './manifests.ts';
import { pushBlob } from './push.ts';
import type { Repository } from './reference.ts';
import type { Session } from './session.ts';
import { statusError } from './status-error.ts';

/** The descriptor and bytes of OCI's empty JSON object, the config of artifacts that have none. */
export const emptyDescriptor: Descriptor = {
  mediaType: mediaTypes.ociEmpty,
  digest: digestOf(Buffer.from('{}')),
  size: 2,
};

/** The tag that lists an object's referrers where the registry does not (distribution 1.1). */
export function referrersTag(digest: string): string {
  return `sha256-${digestHex(digest)}`;
}

/** Pushes a manifest or index; says whether the registry took note of its subject. */
export async function pushManifest(
  session: Session,
  repository: Repository,
  bytes: Uint8Array,
  mediaType: string,
  tag: string | null,
): Promise<{ digest: string; subjectAccepted: boolean }> {
  const digest = digestOf(bytes);
  const url = new URL(manifestName(repository, tag ?? digest));
  const sink = new CollectingSink(url, registryLimits.answerBytesMax);
  const request = {
    url,
    method: 'PUT' as const,
    access: { repository, actions: 'pull,push' as const },
    headers: { 'content-type': mediaType, 'content-length': String(bytes.length) },
    body: () => bytes,
  };
  const head = await session.exchange(request, sink);
  if (head.status !== 201) throw statusError(url, head, sink.bytes(), session.clock.wallMs());
  const told = header(head.headers, 'docker-content-digest') ?? digest;
  if (told !== digest) {
    throw new RegistryError(
      'ERR_DIGEST_MISMATCH',
      `${publicUrl(url)}: expected the registry to store ${digest}, found ${told.slice(0, 100)}.`,
    );
  }
  return { digest, subjectAccepted: header(head.headers, 'oci-subject') !== null };
}

/**
 * What refers to an object, by the referrers API or, where that is missing, by the fallback tag.
 * An empty list when nothing does.
 */
export async function listReferrers(
  session: Session,
  repository: Repository,
  digest: string,
  artifactType?: string,
  signal?: AbortSignal,
): Promise<Descriptor[]> {
  assertDigest(digest, repository.name);
  const answer =
    (await askReferrers(session, repository, digest, artifactType, signal)) ??
    (await readFallback(session, repository, digest, signal)).manifests;
  return answer.filter(
    (found) => artifactType === undefined || found.artifactType === artifactType,
  );
}

/**
 * Pushes a manifest or index that has a subject (what it names must be there; the empty config is
 * pushed if used) and makes sure that listing the subject's referrers finds it. Where the registry
 * keeps no such list, the fallback tag is rewritten: two writers at once may lose one entry there,
 * which the specification accepts.
 */
export async function pushReferrer(
  session: Session,
  repository: Repository,
  manifest: (ImageManifest | ImageIndex) & { subject: Descriptor },
): Promise<Descriptor> {
  const config = isIndex(manifest) ? null : manifest.config;
  if (config?.digest === emptyDescriptor.digest) {
    const content = { bytes: Buffer.from('{}') };
    await pushBlob(session, repository, { digest: emptyDescriptor.digest, sizeBytes: 2, content });
  }
  const mediaType = config === null ? mediaTypes.ociIndex : mediaTypes.ociManifest;
  const bytes = Buffer.from(JSON.stringify({ ...manifest, mediaType }));
  const artifactType = manifest.artifactType ?? config?.mediaType;
  const pushed = await pushManifest(session, repository, bytes, mediaType, null);
  const descriptor: Descriptor = {
    mediaType,
    digest: pushed.digest,
    size: bytes.length,
    ...(artifactType === undefined ? {} : { artifactType }),
    ...(manifest.annotations === undefined ? {} : { annotations: manifest.annotations }),
  };
  if (!pushed.subjectAccepted) {
    await addToFallback(session, repository, manifest.subject.digest, descriptor);
  }
  return descriptor;
}

/**
 * Removes a referrer of `subject`; where the registry keeps no list of referrers, also from the fallback
 * tag. Throws ERR_REGISTRY_DELETE where deleting is not allowed.
 */
export async function deleteReferrer(
  session: Session,
  repository: Repository,
  subject: string,
  digest: string,
): Promise<void> {
  assertDigest(subject, repository.name);
  assertDigest(digest, repository.name);
  const url = new URL(manifestName(repository, digest));
  const sink = new CollectingSink(url, registryLimits.answerBytesMax);
  const access = { repository, actions: 'pull,push,delete' as const };
  const head = await session.exchange({ url, method: 'DELETE', access }, sink);
  // Without the method there is no such path (404 and UNSUPPORTED) or no such method.
  const isUnsupported = /\bUNSUPPORTED\b/.test(Buffer.from(sink.bytes()).toString('latin1'));
  if (head.status === 405 || (head.status >= 400 && isUnsupported)) {
    throw new RegistryError(
      'ERR_REGISTRY_DELETE',
      `${publicUrl(url)}: expected a registry that allows deletion, found status ${head.status}. ` +
        'Allow it there (docker-registry: REGISTRY_STORAGE_DELETE_ENABLED=true).',
      { status: head.status },
    );
  }
  if (head.status !== 202 && head.status !== 200) {
    throw statusError(url, head, sink.bytes(), session.clock.wallMs());
  }
  const index = await readFallback(session, repository, subject);
  const manifests = index.manifests.filter((found) => found.digest !== digest);
  if (manifests.length === index.manifests.length) return;
  const bytes = Buffer.from(JSON.stringify({ ...index, manifests }));
  await pushManifest(session, repository, bytes, mediaTypes.ociIndex, referrersTag(subject));
}

async function addToFallback(
  session: Session,
  repository: Repository,
  subject: string,
  descriptor: Descriptor,
): Promise<void> {
  const index = await readFallback(session, repository, subject);
  if (index.manifests.some(({ digest }) => digest === descriptor.digest)) return;
  const next = { ...index, manifests: [...index.manifests, descriptor] };
  const bytes = Buffer.from(JSON.stringify(next));
  await pushManifest(session, repository, bytes, mediaTypes.ociIndex, referrersTag(subject));
}

async function readFallback(
  session: Session,
  repository: Repository,
  subject: string,
  signal?: AbortSignal,
): Promise<ImageIndex> {
  try {
    const { manifest } = await fetchManifest(session, repository, referrersTag(subject), signal);
    if (isIndex(manifest)) return manifest;
    const name = manifestName(repository, referrersTag(subject));
    throw new RegistryError('ERR_MANIFEST', `${name}: expected an index, found a manifest.`);
  } catch (error) {
    const isMissing = error instanceof RegistryError && error.code === 'ERR_REGISTRY_NOT_FOUND';
    if (!isMissing) throw error;
    return { schemaVersion: 2, mediaType: mediaTypes.ociIndex, manifests: [] };
  }
}

/** All pages of the referrers API; null where the registry does not have it. */
async function askReferrers(
  session: Session,
  repository: Repository,
  digest: string,
  artifactType?: string,
  signal?: AbortSignal,
): Promise<Descriptor[] | null> {
  const first = new URL(`${repository.origin}/v2/${repository.name}/referrers/${digest}`);
  if (artifactType !== undefined) first.searchParams.set('artifactType', artifactType);
  const found: Descriptor[] = [];
  let url: URL | null = first;
  for (let page = 0; url !== null && page < registryLimits.referrerPagesMax; page += 1) {
    const sink = new CollectingSink(url, registryLimits.manifestBytesMax);
    const access = { repository, actions: 'pull' as const };
    const headers = { accept: mediaTypes.ociIndex };
    const request = { url, method: 'GET' as const, access, headers };
    const head = await session.exchange(
      signal === undefined ? request : { ...request, signal },
      sink,
    );
    if (page === 0 && (head.status === 404 || head.status === 405)) return null;
    if (head.status !== 200) throw statusError(url, head, sink.bytes(), session.clock.wallMs());
    const manifest = parseManifest(publicUrl(url), sink.bytes());
    if (isIndex(manifest)) found.push(...manifest.manifests);
    url = nextPage(url, header(head.headers, 'link'));
  }
  return found;
}
