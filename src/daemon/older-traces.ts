import { codeOf, messageOf } from '../base/errors.ts';
import { traceStoreLimits } from '../base/limits.ts';
import { parseReference, type ImageReference } from '../registry/reference.ts';
import { decodeTrace } from '../trace/decode.ts';
import { catalogEntry, type CatalogEntry } from '../trace/store-catalog.ts';
import { imageKey, readTraceFile } from '../trace/store.ts';
import type { Trace, TraceWorkload } from '../trace/trace.ts';
import type { ImageDescription } from './image-description.ts';
import { orderOlderTags } from './older-tags.ts';
import type { Runtime } from './runtime.ts';
import { pulledTrace, repositoryOf, warnOfTrace } from './trace-search.ts';

/** A trace of an older image of the same repository. */
export interface OlderTrace {
  readonly trace: Trace;
  /** The older image in its registry; null when that is not known. */
  readonly reference: string | null;
}

interface Search {
  readonly runtime: Runtime;
  readonly image: ImageDescription;
  readonly workload: TraceWorkload;
  /** Without a tag or a digest. */
  readonly repository: ImageReference;
  readonly signal: AbortSignal;
}

/**
 * Traces of a workload for other images of the same repository, the likeliest to be of use first: of the
 * local store, then what the registry has for older images that the store knows of, then for those that
 * the repository's tags name. Each is looked for when it is asked for; none has no records. Rejects
 * only with the signal's reason, or when the store cannot be read.
 */
export async function* olderTraces(
  runtime: Runtime,
  image: ImageDescription,
  workload: TraceWorkload,
  signal: AbortSignal,
): AsyncGenerator<OlderTrace, void, undefined> {
  const name = repositoryOf(image);
  if (name === '') return;
  const repository = parseReference(`${schemeOf(image)}${name}`);
  const search: Search = { runtime, image, workload, repository, signal };
  const others = await relatives(runtime, image, name, signal);
  const ofWorkload = others.filter((entry) => entry.workload === workload.key);
  for (const { path } of ofWorkload.slice(0, traceStoreLimits.olderImagesMax)) {
    const trace = await storedTrace(runtime, path);
    if (trace === null) continue;
    yield { trace, reference: referenceTo(repository, trace.image.manifestDigest) };
  }
  if (runtime.traceFrom === 'store') return;
  const seen = new Set<string>();
  const own = image.identity.manifestDigest;
  if (own !== null) seen.add(own);
  const digests = others.map(({ facts }) => facts?.manifestDigest ?? null);
  const known = [...new Set(digests.filter((digest) => digest !== null))];
  for (const digest of known.slice(0, traceStoreLimits.olderImagesMax)) {
    yield* traceOf(search, digest, seen);
  }
  for (const tag of await olderTags(search)) {
    const digest = await digestOfTag(search, tag);
    if (digest !== null) yield* traceOf(search, digest, seen);
  }
}

/** What the registry has for one image, which is asked once. */
async function* traceOf(
  { runtime, workload, repository, signal }: Search,
  digest: string,
  seen: Set<string>,
): AsyncGenerator<OlderTrace, void, undefined> {
  if (seen.has(digest)) return;
  seen.add(digest);
  const found = await pulledTrace(runtime, repository, digest, workload, signal);
  if (found !== null) yield { trace: found.trace, reference: referenceTo(repository, digest) };
}

/** Null, with a warning, for one that cannot be read. */
async function storedTrace(runtime: Runtime, path: string): Promise<Trace | null> {
  try {
    const trace = decodeTrace(await readTraceFile(path), path);
    return trace.records.count === 0 ? null : trace;
  } catch (error) {
    warnOfTrace(runtime, path, error);
    return null;
  }
}

/** The tags to look at; none where the registry does not tell. */
async function olderTags({ runtime, image, repository, signal }: Search): Promise<string[]> {
  try {
    const tags = await runtime.client.listTags(repository, signal);
    const isReference = image.identity.manifestDigest !== null;
    const own = isReference ? parseReference(image.name).tag : null;
    return orderOlderTags(tags, own).slice(0, traceStoreLimits.olderTagsMax);
  } catch (error) {
    signal.throwIfAborted();
    const facts = { image: image.name, code: codeOf(error) };
    // Many registries let nobody list tags who may read images.
    const level = codeOf(error) === 'ERR_REGISTRY_AUTH' ? 'info' : 'warn';
    runtime.log[level](facts, `older images are not looked for: ${messageOf(error)}`);
    return [];
  }
}

/** Of the image for this host; null where the tag has none, or cannot be read. */
async function digestOfTag(
  { runtime, repository, signal }: Search,
  tag: string,
): Promise<string | null> {
  try {
    const { digest } = await runtime.client.getManifest({ ...repository, tag }, { signal });
    return digest;
  } catch (error) {
    signal.throwIfAborted();
    runtime.log.debug({ tag, code: codeOf(error) }, `not looked at: ${messageOf(error)}`);
    return null;
  }
}

/** Traces of the store for other images of a repository, the latest recording first. */
async function relatives(
  runtime: Runtime,
  image: ImageDescription,
  repository: string,
  signal: AbortSignal,
): Promise<CatalogEntry[]> {
  const { traces } = runtime;
  const own = imageKey(image.identity);
  const stored = (await traces.list()).filter((one) => one.image !== own);
  stored.sort((a, b) => b.modifiedAtMs - a.modifiedAtMs);
  const found: CatalogEntry[] = [];
  for (const one of stored.slice(0, traceStoreLimits.olderLookedAtMax)) {
    signal.throwIfAborted();
    const entry = await catalogEntry(traces, one);
    if (entry.facts?.repository === repository) found.push(entry);
  }
  const recordedAt = ({ facts }: CatalogEntry): number => facts?.recordedAtMs ?? 0;
  return found.sort((a, b) => recordedAt(b) - recordedAt(a));
}

function referenceTo(
  { scheme, host, repository }: ImageReference,
  digest: string | null,
): string | null {
  return digest === null ? null : `${scheme ?? 'https'}://${host}/${repository}@${digest}`;
}

/** `http://` or `https://`, as the image's layers are reached. */
function schemeOf({ lowers }: ImageDescription): string {
  const remote = lowers.find((lower) => lower.kind === 'remote');
  return remote?.kind === 'remote' && remote.url.startsWith('http:') ? 'http://' : 'https://';
}
