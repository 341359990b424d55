import { openStack } from '../image/stack.ts';
import type { ImportTarget } from '../trace/overlaybd/import.ts';
import type { TraceWorkload } from '../trace/trace.ts';
import { traceImageOf } from './foreign-trace.ts';
import { describeImage } from './image-description.ts';
import { abandonReads, closeAll, openBlobs } from './open-image.ts';
import type { Runtime } from './runtime.ts';

/**
 * Opens an image's layers, without a device, for as long as `work` takes: to make traces for it. Errors:
 * those of the configuration, the registry and the formats.
 */
export async function withTraceImage<T>(
  runtime: Runtime,
  target: string,
  workload: TraceWorkload,
  work: (opened: ImportTarget) => Promise<T>,
  signal?: AbortSignal,
): Promise<T> {
  const description = await describeImage(target, runtime.client, {
    identify: true,
    onRepository: () => undefined,
    onResultFile: () => undefined,
    log: runtime.log,
    ...(signal === undefined ? {} : { signal }),
  });
  const blobs = await openBlobs(runtime, description, signal);
  // Ctrl-C ends an opening that hangs.
  const interrupt = () => abandonReads(blobs);
  signal?.addEventListener('abort', interrupt);
  try {
    const stack = await openStack(blobs);
    return await work({ image: traceImageOf(description, blobs, stack), stack, workload });
  } catch (error) {
    signal?.throwIfAborted();
    throw error;
  } finally {
    signal?.removeEventListener('abort', interrupt);
    await closeAll(blobs);
  }
}
