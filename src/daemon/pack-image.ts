import type { FileHandle } from 'node:fs/promises';
import { packTrace } from '../trace/hot-blob.ts';
import type { Trace } from '../trace/trace.ts';
import { replayTrace } from './open-image.ts';
import type { Runtime } from './runtime.ts';
import { withTraceImage } from './trace-image.ts';

/**
 * Packs a trace for an image whose blobs may be in a registry: they are prefetched in the order in which
 * they are packed. Errors: those of packTrace and of opening the image.
 */
export async function packForImage(
  runtime: Runtime,
  target: string,
  trace: Trace,
  options: {
    file: FileHandle;
    onProgress: (share: number) => void;
    signal: AbortSignal;
  },
): Promise<Trace> {
  const { workload } = trace;
  const pack = async ({ image, stack }: Parameters<Parameters<typeof withTraceImage>[3]>[0]) => {
    const blobs = stack.layers.map((layer) => layer.blob);
    const replay = replayTrace(runtime, trace, blobs, {});
    try {
      return await packTrace(trace, { name: target, image, stack, ...options });
    } finally {
      replay.cancel();
    }
  };
  return await withTraceImage(runtime, target, workload, pack, options.signal);
}
