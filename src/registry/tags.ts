import { registryLimits } from '../base/limits.ts';
import { CollectingSink, parseJsonObject } from './collect.ts';
import { publicUrl, RegistryError } from './errors.ts';
import { header, nextPage } from './headers.ts';
import { isTag, type Repository } from './reference.ts';
import type { Session } from './session.ts';
import { statusError } from './status-error.ts';

/**
 * The repository's tags in the order of the registry, at most `tagsMax`. None where the registry does
 * not list tags. Errors: those of talking to it, and ERR_REGISTRY_TAGS for an answer that
 * is no list.
 */
export async function listTags(
  session: Session,
  repository: Repository,
  signal?: AbortSignal,
): Promise<string[]> {
  const found: string[] = [];
  let url: URL | null = new URL(`${repository.origin}/v2/${repository.name}/tags/list`);
  url.searchParams.set('n', String(registryLimits.tagsPerPage));
  for (let page = 0; url !== null && page < registryLimits.tagPagesMax; page += 1) {
    const sink = new CollectingSink(url, registryLimits.manifestBytesMax);
    const access = { repository, actions: 'pull' as const };
    const request = { url, method: 'GET' as const, access };
    const head = await session.exchange(
      signal === undefined ? request : { ...request, signal },
      sink,
    );
    if (page === 0 && (head.status === 404 || head.status === 405)) return [];
    if (head.status !== 200) throw statusError(url, head, sink.bytes(), session.clock.wallMs());
    // Some registries answer all of them at once.
    const room = registryLimits.tagsMax - found.length;
    found.push(...parseTags(url, sink.bytes()).slice(0, room));
    url = nextPage(url, header(head.headers, 'link'));
  }
  return found;
}

/** What cannot be a tag is left out; some registries answer null for no tags. */
function parseTags(url: URL, body: Uint8Array): string[] {
  const tags = parseJsonObject(body)?.tags;
  if (tags === null) return [];
  if (!Array.isArray(tags)) {
    throw new RegistryError(
      'ERR_REGISTRY_TAGS',
      `${publicUrl(url)}: expected a list of tags, found something else. Is this a registry?`,
    );
  }
  return tags.filter((tag) => typeof tag === 'string').filter(isTag);
}
