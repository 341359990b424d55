import { ReplaybdError } from '../base/errors.ts';
import { listCatalog, type CatalogEntry } from './store-catalog.ts';
import type { TraceStore } from './store.ts';

/** Hex digits of a key that people are shown. */
const SHOWN_DIGITS = 12;

/** What `trace ls` calls a trace, and `rm` and `pin` take. */
export function shortKey({ image, workload }: Pick<CatalogEntry, 'image' | 'workload'>): string {
  return `${image.slice(0, SHOWN_DIGITS)}/${workload.slice(0, SHOWN_DIGITS)}`;
}

/**
 * The traces that some keys name: `IMAGE/WORKLOAD`, each by its first hex digits, a workload's digits
 * alone, or the path of the file. Throws ERR_TRACE_NOT_FOUND, or ERR_TRACE_KEY for a key of several.
 */
export async function selectTraces(
  store: TraceStore,
  keys: readonly string[],
): Promise<CatalogEntry[]> {
  const entries = await listCatalog(store);
  const chosen = new Set<CatalogEntry>();
  for (const key of keys) {
    const matches = entries.filter((entry) => isNamedBy(entry, key));
    if (matches.length === 0) {
      throw notFound(store, `a trace ${key}`);
    }
    if (matches.length > 1) {
      throw new ReplaybdError(
        'ERR_TRACE_KEY',
        `${key}: expected the key of one trace, found ${matches.length} that begin so: ` +
          `${matches.slice(0, 4).map(shortKey).join(', ')}. Give more digits.`,
        { errno: 'EINVAL' },
      );
    }
    chosen.add(matches[0]);
  }
  return [...chosen];
}

/** All traces of an image, see isOfImage. Throws ERR_TRACE_NOT_FOUND when there are none. */
export async function selectTracesOfImage(
  store: TraceStore,
  image: string,
): Promise<CatalogEntry[]> {
  const chosen = (await listCatalog(store)).filter((entry) => isOfImage(entry, image));
  if (chosen.length === 0) throw notFound(store, `traces of ${image}`);
  return chosen;
}

function notFound(store: TraceStore, expected: string): ReplaybdError {
  return new ReplaybdError(
    'ERR_TRACE_NOT_FOUND',
    `${store.folder}: expected ${expected}, found none. \`replaybd trace ls\` lists them.`,
    { errno: 'ENOENT' },
  );
}

/** Traces of an image: as it was named, with or without a scheme, by its manifest's digest, or by the first digits of its key. */
export function isOfImage({ image, facts }: CatalogEntry, name: string): boolean {
  const named = facts?.image ?? null;
  if (named !== null && withoutScheme(named) === withoutScheme(name)) return true;
  const digest = facts?.manifestDigest ?? null;
  if (digest !== null && (name === digest || name.endsWith(`@${digest}`))) return true;
  return /^[0-9a-f]{6,64}$/.test(name) && image.startsWith(name);
}

function withoutScheme(reference: string): string {
  return reference.replace(/^https?:\/\//, '');
}

function isNamedBy({ image, workload, path }: CatalogEntry, key: string): boolean {
  if (key === path) return true;
  const [, first, second] = /^([0-9a-f]{1,64})\/([0-9a-f]{1,64})$/.exec(key) ?? [];
  if (second !== undefined) return image.startsWith(first) && workload.startsWith(second);
  return /^[0-9a-f]{4,64}$/.test(key) && workload.startsWith(key);
}
