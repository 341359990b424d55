import { codeOf, messageOf, ReplaybdError } from '../base/errors.ts';
import { rebaseLimits } from '../base/limits.ts';
import type { Disk } from '../image/fs/disk.ts';
import type { Stack } from '../image/stack.ts';
import { parseReference } from '../registry/reference.ts';
import { mapAccessedFiles, type FileMap } from '../trace/file-map.ts';
import { isStale, rebaseTrace, type Rebased } from '../trace/rebase.ts';
import type { TraceTarget } from '../trace/served-by.ts';
import { imageKey } from '../trace/store.ts';
import type { Trace } from '../trace/trace.ts';
import type { Runtime } from './runtime.ts';
import { stackDisk } from './stack-disk.ts';
import { withTraceImage } from './trace-image.ts';

/** An opened image that a trace of an older one is rebased to. */
export interface RebaseTarget extends TraceTarget {
  readonly stack: Stack;
  /** As the user named it. */
  readonly name: string;
}

/**
 * The image that a trace was recorded on, as a reference to the repository of `target` by manifest
 * digest; null when the trace has no manifest, or `target` is a configuration file.
 */
export function olderImageOf(target: string, trace: Pick<Trace, 'image'>): string | null {
  const { manifestDigest } = trace.image;
  if (manifestDigest === null || target.endsWith('.json')) return null;
  try {
    const { scheme, host, repository } = parseReference(target);
    return `${scheme === null ? '' : `${scheme}://`}${host}/${repository}@${manifestDigest}`;
  } catch {
    return null;
  }
}

/**
 * The files that a trace read in the image it was recorded on. Errors: ERR_TRACE_IMAGE when `oldImage`
 * is another one, those of opening it and of its file system.
 */
export async function mapOldImage(
  runtime: Runtime,
  trace: Trace,
  oldImage: string,
  options: { signal: AbortSignal; bytesMax?: number },
): Promise<FileMap> {
  const { signal, bytesMax = Infinity } = options;
  return await withTraceImage(
    runtime,
    oldImage,
    trace.workload,
    async ({ image, stack }) => {
      if (imageKey(image) !== imageKey(trace.image)) {
        throw new ReplaybdError(
          'ERR_TRACE_IMAGE',
          `${oldImage}: expected the image of the trace, found one of other layers. ` +
            'Name the image that was recorded.',
        );
      }
      const disk = boundedDisk(stackDisk(stack, oldImage), bytesMax);
      return await mapAccessedFiles(disk, trace.records, signal);
    },
    signal,
  );
}

/**
 * Rebases a trace to an image that is being attached, within bounds of time and bytes. Nothing of it
 * can fail an attach: what goes wrong is a warning, and leaves records unmapped. Null when nothing of
 * the trace is of use, or when the signal was aborted.
 */
export async function rebaseForImage(
  runtime: Runtime,
  target: RebaseTarget,
  trace: Trace,
  oldImage: string | null,
  signal: AbortSignal,
): Promise<Rebased | null> {
  const enough = AbortSignal.any([signal, AbortSignal.timeout(rebaseLimits.attachMsMax)]);
  const bytesMax = rebaseLimits.attachBytesMax;
  const warn = (error: unknown) => {
    if (signal.aborted) return;
    const facts = { image: target.name, code: codeOf(error), error: messageOf(error) };
    runtime.log.warn(facts, 'the older trace is not mapped through files');
  };
  try {
    const from =
      oldImage === null || !isStale(trace, target)
        ? null
        : await mapOldImage(runtime, trace, oldImage, { signal: enough, bytesMax }).catch(warn);
    const to = boundedDisk(stackDisk(target.stack, target.name), bytesMax);
    const files = from === null || from === undefined ? null : { from, to };
    const rebased = await rebaseTrace(trace, target, files, { signal, enough });
    if (signal.aborted || rebased.trace.records.count === 0) return null;
    const { problems } = rebased.facts;
    if (problems.length > 0) warn(problems[0]);
    return rebased;
  } catch (error) {
    warn(error);
    return null;
  }
}

/** A disk that gives so many bytes. Errors: ERR_REBASE_LIMIT for more. */
function boundedDisk(disk: Disk, bytesMax: number): Disk {
  let bytes = 0;
  return {
    name: disk.name,
    sizeBytes: disk.sizeBytes,
    read: async (offset, length) => {
      bytes += length;
      if (bytes > bytesMax) {
        throw new ReplaybdError(
          'ERR_REBASE_LIMIT',
          `${disk.name}: metadata: expected at most ${bytesMax} bytes to read, found more. ` +
            'Rebase the trace with `replaybd trace rebase` instead.',
        );
      }
      return await disk.read(offset, length);
    },
  };
}
