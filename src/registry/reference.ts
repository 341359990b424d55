import { ReplaybdError } from '../base/errors.ts';
import { assertDigest, isDigest } from './digest.ts';

/** Where Docker Hub's registry API answers; image references call it docker.io. */
export const DOCKER_HUB_HOST = 'registry-1.docker.io';

const HUB_NAMES = new Set(['docker.io', 'index.docker.io', DOCKER_HUB_HOST]);
const REPOSITORY_MAX = 255;
const REFERENCE_MAX = 1024;
/** Path components of a repository, as the distribution specification writes them. */
const REPOSITORY =
  /^[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*(?:\/[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*)*$/;
const TAG = /^[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}$/;
const HOST =
  /^(?:\[[0-9a-fA-F:]{2,39}\]|[a-zA-Z0-9](?:[a-zA-Z0-9.-]{0,252}[a-zA-Z0-9])?)(?::[0-9]{1,5})?$/;

/** One repository of one registry, before it is decided how to reach the registry. */
export interface RepositoryAddress {
  /** Written in front of the reference; null when the text did not say. */
  scheme: 'http' | 'https' | null;
  /** `host` or `host:port`, in lower case. */
  host: string;
  repository: string;
}

export interface ImageReference extends RepositoryAddress {
  tag: string | null;
  digest: string | null;
}

/** A repository as the client talks to it. */
export interface Repository {
  /** `https://host[:port]`. */
  origin: string;
  host: string;
  name: string;
}

/**
 * Parses `[http[s]://][host[:port]/]repository[:tag][@digest]` as Docker does: without a host the
 * image is Docker Hub's, and a Hub image of one word lives under `library/`. Throws ERR_REFERENCE.
 */
export function parseReference(text: string): ImageReference {
  if (text.length > REFERENCE_MAX) throw badReference(text, 'at most 1024 characters');
  const { scheme, rest } = splitScheme(text);
  const at = rest.indexOf('@');
  const digest = at === -1 ? null : rest.slice(at + 1);
  if (digest !== null && !isDigest(digest)) throw badReference(text, 'a sha256 digest after @');
  const named = at === -1 ? rest : rest.slice(0, at);
  const slash = named.indexOf('/');
  const first = slash === -1 ? '' : named.slice(0, slash);
  const hasHost = first !== '' && (scheme !== null || /[.:]/.test(first) || first === 'localhost');
  if (scheme !== null && !hasHost) throw badReference(text, 'a host and a repository after ://');
  const { repository, tag } = splitTag(hasHost ? named.slice(slash + 1) : named);
  const host = (hasHost ? first : 'docker.io').toLowerCase();
  if (tag !== null && !isTag(tag)) throw badReference(text, 'a tag of letters, digits, . _ -');
  const address = toAddress(scheme, host, repository);
  if (address === null) throw badReference(text, 'host[:port]/repository[:tag][@digest]');
  return { ...address, tag, digest };
}

/**
 * Parses overlaybd's blob URLs: `https://host/v2/<repository>/blobs[/<digest>]`, with or without
 * the one leading slash overlaybd tolerates. Null when the text is no such URL.
 */
export function parseBlobUrl(text: string): (RepositoryAddress & { digest: string | null }) | null {
  const match = /^\/?(https?):\/\/([^/@?#]+)\/v2\/([^?#]+)\/blobs(?:\/([^/?#]*))?$/.exec(text);
  if (match === null || text.length > REFERENCE_MAX) return null;
  const [, scheme, host = '', repository = '', last = ''] = match;
  if (last !== '') assertDigest(last, 'blob URL');
  const address = toAddress(scheme === 'http' ? 'http' : 'https', host.toLowerCase(), repository);
  return address === null ? null : { ...address, digest: last === '' ? null : last };
}

/** An image reference, or overlaybd's `repoBlobUrl`: whatever names a repository. */
export function parseRepositoryAddress(text: string): RepositoryAddress {
  return parseBlobUrl(text) ?? parseReference(text);
}

/** Whether the distribution specification allows the name. */
export function isRepositoryName(text: string): boolean {
  return text.length <= REPOSITORY_MAX && REPOSITORY.test(text);
}

/** Whether the distribution specification allows the tag. */
export function isTag(text: string): boolean {
  return TAG.test(text);
}

/** overlaybd's `repoBlobUrl` of a repository. */
export function repositoryBlobUrl(repository: Repository): string {
  return `${repository.origin}/v2/${repository.name}/blobs`;
}

function toAddress(
  scheme: 'http' | 'https' | null,
  host: string,
  repository: string,
): RepositoryAddress | null {
  if (!HOST.test(host) || Number(/:(\d+)$/.exec(host)?.[1] ?? 0) > 65_535) return null;
  if (!isRepositoryName(repository)) return null;
  if (!HUB_NAMES.has(host)) return { scheme, host, repository };
  const name = repository.includes('/') ? repository : `library/${repository}`;
  return { scheme, host: DOCKER_HUB_HOST, repository: name };
}

function splitScheme(text: string): { scheme: 'http' | 'https' | null; rest: string } {
  const match = /^(https?):\/\//.exec(text);
  if (match === null) return { scheme: null, rest: text };
  return { scheme: match[1] === 'http' ? 'http' : 'https', rest: text.slice(match[0].length) };
}

function splitTag(text: string): { repository: string; tag: string | null } {
  const colon = text.indexOf(':');
  if (colon === -1) return { repository: text, tag: null };
  return { repository: text.slice(0, colon), tag: text.slice(colon + 1) };
}

/** Does not repeat the text when it may hold a password. */
function badReference(text: string, expected: string): ReplaybdError {
  const mayHoldSecret = /:[^/]*@(?!sha256:)/.test(text);
  const found = mayHoldSecret ? 'user information' : JSON.stringify(text.slice(0, 200));
  return new ReplaybdError(
    'ERR_REFERENCE',
    `image reference: expected ${expected}, found ${found}.`,
    {
      errno: 'EINVAL',
    },
  );
}
