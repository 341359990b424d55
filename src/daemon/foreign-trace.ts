import type { Logger } from '../base/log.ts';
import type { Blob } from '../blob/blob.ts';
import type { Stack } from '../image/stack.ts';
import type { Replay } from '../prefetch/replay.ts';
import {
  importOverlaybdTrace,
  traceOfRanges,
  type ImportTarget,
} from '../trace/overlaybd/import.ts';
import type { AnyTrace } from '../trace/overlaybd/any-trace.ts';
import { rangesOfPaths } from '../trace/overlaybd/path-list.ts';
import type { Trace, TraceImage } from '../trace/trace.ts';
import type { AttachmentOptions } from './attachment.ts';
import type { ImageDescription } from './image-description.ts';
import { LaterReplay } from './later-replay.ts';
import { replayTrace } from './open-image.ts';
import type { Runtime } from './runtime.ts';
import { stackDisk } from './stack-disk.ts';

/** A source of reads that becomes a trace only with the image's layers. */
export type ForeignTrace = Exclude<AnyTrace, { kind: 'replaybd' }>;

/** What was made of a foreign trace, for people. */
export interface ForeignTraceFacts {
  readonly kind: ForeignTrace['kind'];
  /** Of overlaybd's trace: reads taken over, and reads of layers that the image does not have. */
  readonly reads: number;
  readonly foreignReads: number;
  /** Of a list of paths: files found, and paths that are not there or cannot be read. */
  readonly files: number;
  readonly missing: readonly string[];
  readonly failed: readonly { path: string; reason: string }[];
}

/**
 * Makes a trace of ours of overlaybd's, or of a list of paths, for an opened image. Errors: those of
 * rangesOfPaths.
 */
export async function traceOfForeign(
  foreign: ForeignTrace,
  target: ImportTarget,
  name: string,
  signal?: AbortSignal,
): Promise<{ trace: Trace; facts: ForeignTraceFacts }> {
  const none = { reads: 0, foreignReads: 0, files: 0, missing: [], failed: [] };
  if (foreign.kind === 'overlaybd') {
    const { trace, reads, foreignReads } = importOverlaybdTrace(foreign.trace, target);
    return { trace, facts: { ...none, kind: foreign.kind, reads, foreignReads } };
  }
  const disk = stackDisk(target.stack, name);
  const { ranges, files, missing, failed } = await rangesOfPaths(disk, foreign.paths, signal);
  const trace = traceOfRanges(ranges, target);
  return { trace, facts: { ...none, kind: foreign.kind, files, missing, failed } };
}

/** Replays a foreign trace: of overlaybd's at once, of a list of paths as soon as files are found. */
export function replayForeign(
  runtime: Runtime,
  foreign: ForeignTrace,
  opened: {
    image: ImageDescription;
    stack: Stack;
    blobs: readonly Blob[];
    options: AttachmentOptions;
  },
): Replay {
  const { image, stack, blobs, options } = opened;
  const { workload } = options;
  const make = async (signal: AbortSignal): Promise<Trace> => {
    const target = { image: traceImageOf(image, blobs, stack), stack, workload };
    const { trace, facts } = await traceOfForeign(foreign, target, image.name, signal);
    logForeign(runtime.log, image.name, facts);
    return trace;
  };
  const start = (trace: Trace) => replayTrace(runtime, trace, blobs, options);
  return new LaterReplay(make, start, runtime.log);
}

/** An opened image as its traces name it. */
export function traceImageOf(
  { identity }: ImageDescription,
  blobs: readonly Blob[],
  stack: Stack,
): TraceImage {
  const layers = identity.layers.map((layer, i) => ({ ...layer, sizeBytes: blobs[i].sizeBytes }));
  return { ...identity, layers, virtualSizeBytes: stack.map.virtualSizeBytes };
}

/** Tells the log what a foreign trace holds that the image does not. */
export function logForeign(log: Logger, name: string, facts: ForeignTraceFacts): void {
  const { foreignReads, missing, failed } = facts;
  if (foreignReads + missing.length + failed.length === 0) return;
  const few = { missing: missing.slice(0, 10), failed: failed.slice(0, 10) };
  log.warn(
    { trace: name, foreignReads, missingPaths: missing.length, failedPaths: failed.length, ...few },
    'a part of the trace is not in the image',
  );
}
