import { encodeTrace, encodeTraceWithinLimit } from '../trace/encode.ts';
import type { AccelerationFiles } from '../trace/overlaybd/acceleration-layer.ts';
import type { AnyTrace } from '../trace/overlaybd/any-trace.ts';
import { exportOverlaybdTrace } from '../trace/overlaybd/export.ts';
import { encodeOverlaybdTrace } from '../trace/overlaybd/format.ts';
import type { ImportTarget } from '../trace/overlaybd/import.ts';
import { traceOfForeign } from './foreign-trace.ts';

const LINE_FEED = Buffer.from('\n');

/**
 * Both files of an acceleration layer from a trace of either kind, or a list of paths. overlaybd gets
 * a list as it is, and finds the files itself. Errors: those of the conversions.
 */
export async function accelerationFiles(
  source: AnyTrace,
  target: ImportTarget,
  name: string,
  signal?: AbortSignal,
): Promise<AccelerationFiles> {
  if (source.kind === 'replaybd') {
    const exported = exportOverlaybdTrace(source.trace, target.image, target.stack);
    return { trace: encodeOverlaybdTrace(exported.trace), msgpack: encodeTrace(source.trace) };
  }
  const { trace } = await traceOfForeign(source, target, name, signal);
  const theirs =
    source.kind === 'overlaybd'
      ? encodeOverlaybdTrace(source.trace)
      : Buffer.concat(source.paths.flatMap((path) => [path, LINE_FEED]));
  return { trace: theirs, msgpack: encodeTraceWithinLimit(trace) };
}
