import { codeOf, messageOf } from '../base/errors.ts';
import { parseReference, parseRepositoryAddress } from '../registry/reference.ts';
import type { ImageReference } from '../registry/reference.ts';
import { pullTraceOf, type PulledTrace } from '../trace/referrer.ts';
import type { TraceWorkload } from '../trace/trace.ts';
import type { ImageDescription } from './image-description.ts';
import type { Runtime } from './runtime.ts';

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
  const reference = parseReference(image.name);
  return await pulledTrace(runtime, reference, manifestDigest, workload, signal);
}

/**
 * The latest trace of a workload that the registry has for the manifest with this digest. Null when there
 * is none, when it has no records, or, with a warning, when it cannot be had.
 */
export async function pulledTrace(
  runtime: Runtime,
  reference: ImageReference,
  digest: string,
  workload: TraceWorkload,
  signal: AbortSignal,
): Promise<PulledTrace | null> {
  const { host, repository } = reference;
  try {
    const found = await pullTraceOf(runtime.client, reference, digest, workload.key, signal);
    if (found === null || found.trace.records.count > 0) return found;
    runtime.log.info({ trace: found.digest }, 'a trace without records is as good as none');
    return null;
  } catch (error) {
    signal.throwIfAborted();
    // An older image may be gone by now.
    if (codeOf(error) === 'ERR_REGISTRY_NOT_FOUND') return null;
    warnOfTrace(runtime, `${host}/${repository}@${digest}`, error);
    return null;
  }
}

export function warnOfTrace(runtime: Runtime, trace: string, error: unknown): void {
  runtime.log.warn({ trace, code: codeOf(error) }, `not replayed: ${messageOf(error)}`);
}
