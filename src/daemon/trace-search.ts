import { codeOf, messageOf } from '../base/errors.ts';
import { traceStoreLimits } from '../base/limits.ts';
import { parseReference, parseRepositoryAddress } from '../registry/reference.ts';
import { pullTrace, type PulledTrace } from '../trace/referrer.ts';
import { catalogEntry, type CatalogEntry } from '../trace/store-catalog.ts';
import { imageKey, readTraceFile } from '../trace/store.ts';
import { decodeTrace } from '../trace/decode.ts';
import type { Trace, TraceWorkload } from '../trace/trace.ts';
import type { ImageDescription } from './image-description.ts';
import type { Runtime } from './runtime.ts';

/** A trace of an older image of the same repository. */
export interface OlderTrace {
  readonly trace: Trace;
  /** The older image in its registry; null when that is not known. */
  readonly reference: string | null;
}

/** `host/name` of the repository that an image's layers come from; '' when all are files. */
export function repositoryOf({ lowers }: Pick<ImageDescription, 'lowers'>): string {
  for (const lower of lowers) {
    if (lower.kind !== 'remote') continue;
    const { host, repository } = parseRepositoryAddress(
      lower.url.slice(0, lower.url.lastIndexOf('/')),
    );
    return `${host}/${repository}`;
  }
  return '';
}

/**
 * The latest trace of a workload that the registry has for this very image. Null when there is none,
 * when the image has no manifest, or, with a warning, when it cannot be had.
 */
export async function traceFromRegistry(
  runtime: Runtime,
  image: ImageDescription,
  workload: TraceWorkload,
  signal: AbortSignal,
): Promise<PulledTrace | null> {
  const { manifestDigest } = image.identity;
  if (manifestDigest === null) return null;
  return await pulled(runtime, image.name, manifestDigest, workload, signal);
}

/**
 * The latest trace of a workload for another image of the same repository: of the local store, else what
 * the registry has for older images that the store knows of.
 */
export async function olderTrace(
  runtime: Runtime,
  image: ImageDescription,
  workload: TraceWorkload,
  signal: AbortSignal,
): Promise<OlderTrace | null> {
  const repository = repositoryOf(image);
  if (repository === '') return null;
  const others = await relatives(runtime, image, repository, signal);
  const referenceOf = (digest: string | null): string | null =>
    digest === null ? null : `${schemeOf(image)}${repository}@${digest}`;
  for (const { path } of others.filter((entry) => entry.workload === workload.key)) {
    try {
      const trace = decodeTrace(await readTraceFile(path), path);
      return { trace, reference: referenceOf(trace.image.manifestDigest) };
    } catch (error) {
      warn(runtime, path, error);
    }
  }
  if (runtime.traceFrom === 'store') return null;
  const digests = others.map(({ facts }) => facts?.manifestDigest ?? null);
  const known = [...new Set(digests.filter((digest) => digest !== null))];
  for (const digest of known.slice(0, traceStoreLimits.olderImagesMax)) {
    const reference = referenceOf(digest);
    if (reference === null) continue;
    const found = await pulled(runtime, reference, digest, workload, signal);
    if (found !== null) return { trace: found.trace, reference };
  }
  return null;
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

async function pulled(
  runtime: Runtime,
  name: string,
  digest: string,
  workload: TraceWorkload,
  signal: AbortSignal,
): Promise<PulledTrace | null> {
  try {
    const reference = { ...parseReference(name), digest };
    return await pullTrace(runtime.client, reference, workload.key, signal);
  } catch (error) {
    signal.throwIfAborted();
    // An older image may be gone by now.
    if (codeOf(error) !== 'ERR_REGISTRY_NOT_FOUND') warn(runtime, name, error);
    return null;
  }
}

/** `http://` or `https://`, as the image's layers are reached. */
function schemeOf({ lowers }: ImageDescription): string {
  const remote = lowers.find((lower) => lower.kind === 'remote');
  return remote?.kind === 'remote' && remote.url.startsWith('http:') ? 'http://' : 'https://';
}

function warn(runtime: Runtime, trace: string, error: unknown): void {
  runtime.log.warn({ trace, code: codeOf(error) }, `not replayed: ${messageOf(error)}`);
}
