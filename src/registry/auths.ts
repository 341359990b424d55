import { isObject } from './collect.ts';
import type { Credentials } from './credentials.ts';

/** Entries of one `auths` object that are looked at. */
const ENTRIES_MAX = 10_000;

/**
 * Finds the entry of an `auths` object whose key is the longest prefix, by whole path segments, of
 * `host/path` (overlaybd takes the first match in file order; the longest is what its users mean).
 * Keys may be URLs, as Docker writes them. Null when none fits.
 */
export function matchAuths(auths: unknown, host: string, path: string): Credentials | null {
  if (!isObject(auths)) return null;
  const subject = `${host}/${path}`;
  let best: { length: number; credentials: Credentials } | null = null;
  for (const [key, entry] of Object.entries(auths).slice(0, ENTRIES_MAX)) {
    const prefix = normaliseKey(key);
    if (prefix !== subject && !subject.startsWith(`${prefix}/`)) continue;
    const credentials = readEntry(entry);
    if (credentials === null || (best !== null && best.length >= prefix.length)) continue;
    best = { length: prefix.length, credentials };
  }
  return best?.credentials ?? null;
}

/** `https://index.docker.io/v1/` and `index.docker.io` name the same registry. */
export function normaliseKey(key: string): string {
  const bare = key.replace(/^https?:\/\//, '').replace(/\/+$/, '');
  return bare.replace(/\/v[12]$/, '');
}

/** `username` and `password`, `auth` (their base64), or `identitytoken`. */
export function readEntry(entry: unknown): Credentials | null {
  if (!isObject(entry)) return null;
  const { username, password, auth, identitytoken } = entry;
  if (typeof identitytoken === 'string' && identitytoken !== '') {
    return { kind: 'identity-token', token: identitytoken };
  }
  if (typeof username === 'string' && username !== '' && typeof password === 'string') {
    return { kind: 'password', username, password };
  }
  if (typeof auth !== 'string') return null;
  const decoded = Buffer.from(auth, 'base64').toString('utf8').replace(/\0+$/, '');
  const colon = decoded.indexOf(':');
  if (colon <= 0) return null;
  return {
    kind: 'password',
    username: decoded.slice(0, colon),
    password: decoded.slice(colon + 1),
  };
}
