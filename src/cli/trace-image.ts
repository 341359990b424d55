import { withTraceImage } from '../daemon/trace-image.ts';
import type { ImportTarget } from '../trace/overlaybd/import.ts';
import { closeOnAbort } from './registry-options.ts';
import { openRuntime, type RuntimeFlags } from './runtime-options.ts';
import { interruptible } from './terminal.ts';

/** An image's opened layers for as long as `work` takes; Ctrl-C ends that. */
export function withImage<T>(
  flags: RuntimeFlags,
  image: string,
  workload: ImportTarget['workload'],
  work: (target: ImportTarget, signal: AbortSignal) => Promise<T>,
): Promise<T> {
  return withRuntime(flags, (runtime, signal) =>
    withTraceImage(runtime, image, workload, (target) => work(target, signal), signal),
  );
}

/** A runtime for as long as `work` takes; Ctrl-C ends that. */
export async function withRuntime<T>(
  flags: RuntimeFlags,
  work: (runtime: Awaited<ReturnType<typeof openRuntime>>, signal: AbortSignal) => Promise<T>,
): Promise<T> {
  const runtime = await openRuntime(flags);
  try {
    return await interruptible((signal) => {
      closeOnAbort(runtime.client, signal);
      return work(runtime, signal);
    });
  } finally {
    await runtime.close();
  }
}
