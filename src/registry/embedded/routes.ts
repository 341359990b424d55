import { isRepositoryName } from '../reference.ts';
import type { RequestFacts } from './faults.ts';

/** A request's path, taken apart (distribution specification, "Endpoints"). */
export interface Route {
  kind: RequestFacts['kind'];
  repository: string | null;
  /** Digest, tag or upload id. */
  item: string;
}

const ITEM = '([A-Za-z0-9_][A-Za-z0-9_.:-]{0,199})';
const NAME = '([a-z0-9._/-]+)';
const PATTERNS: readonly (readonly [RequestFacts['kind'], RegExp])[] = [
  ['upload', new RegExp(`^/v2/${NAME}/blobs/uploads/(?:${ITEM})?$`)],
  ['blob', new RegExp(`^/v2/${NAME}/blobs/${ITEM}$`)],
  ['manifest', new RegExp(`^/v2/${NAME}/manifests/${ITEM}$`)],
  ['referrers', new RegExp(`^/v2/${NAME}/referrers/${ITEM}$`)],
  ['tags', new RegExp(`^/v2/${NAME}/tags/(list)$`)],
];
const PATH_LENGTH_MAX = 1024;

export function route(path: string): Route {
  if (path === '/v2/' || path === '/v2') return { kind: 'base', repository: null, item: '' };
  if (path === '/token') return { kind: 'token', repository: null, item: '' };
  if (path.length > PATH_LENGTH_MAX) return { kind: 'other', repository: null, item: '' };
  for (const [kind, pattern] of PATTERNS) {
    const match = pattern.exec(path);
    const repository = match?.[1] ?? '';
    if (isRepositoryName(repository)) return { kind, repository, item: match?.[2] ?? '' };
  }
  return { kind: 'other', repository: null, item: '' };
}
