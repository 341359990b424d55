import { ReplaybdError } from '../base/errors.ts';
import type { Blob } from '../blob/blob.ts';
import type { Stack } from '../image/stack.ts';
import { buildPlan } from '../trace/build-plan.ts';
import type { PieceResolver } from '../trace/recorder.ts';
import { Recording } from '../trace/recording.ts';
import type { Trace, TraceWorkload } from '../trace/trace.ts';
import type { WaitLog } from '../trace/wait-log.ts';
import { traceImageOf } from './foreign-trace.ts';
import type { ImageDescription } from './image-description.ts';
import type { RecordTraceFile } from './record-trace-file.ts';
import type { Runtime } from './runtime.ts';

/** Puts a recorded trace where it belongs. */
export type SaveTrace = (bytes: Uint8Array, trace: Trace) => Promise<void>;

/** What a recording is told. */
export interface RecordOptions {
  readonly workload: TraceWorkload;
  readonly recordLimitMs?: number;
  readonly recordUntilIdleMs?: number;
  /** Infinity: only a recording that ended is saved. */
  readonly checkpointMs?: number;
}

/** A device as its recordings see it. */
interface RecordedDevice {
  readonly image: ImageDescription;
  readonly stack: Stack;
  readonly blobs: readonly Blob[];
  /** Where overlaybd's `recordTracePath` wants the trace, instead of `save`. */
  readonly file: RecordTraceFile | null;
  /** How long reads have waited for bytes. */
  readonly waits: Pick<WaitLog, 'waitedUs'>;
  /** Ends the recording when that file's lock is gone. */
  readonly stop: () => void;
}

/** Begins to record an open device; `locate` says what the image's own layers serve. */
export function recordDevice(
  runtime: Runtime,
  { image: description, stack, blobs, file, waits, stop }: RecordedDevice,
  locate: PieceResolver,
  options: RecordOptions & { readonly startUs: number; readonly save: SaveTrace },
): Recording {
  const { recordLimitMs, recordUntilIdleMs, checkpointMs, startUs, save } = options;
  const image = traceImageOf(description, blobs, stack);
  const { layers } = image;
  const recording = new Recording({
    image,
    workload: options.workload,
    deviceSizeBytes: image.virtualSizeBytes,
    locate,
    plan: (records) =>
      buildPlan({
        records,
        layers,
        resolver: stack,
        metadataRanges: stack.layers.slice(0, layers.length).map((layer) => layer.metadataRanges),
      }),
    save: (bytes, trace) => (file === null ? save(bytes, trace) : file.save(trace, image, stack)),
    clock: runtime.clock,
    log: runtime.log,
    startUs,
    waitedUs: (timeUs) => waits.waitedUs(timeUs),
    ...(recordLimitMs === undefined ? {} : { timeLimitMs: recordLimitMs }),
    ...(recordUntilIdleMs === undefined ? {} : { untilIdleMs: recordUntilIdleMs }),
    ...(checkpointMs === undefined ? {} : { checkpointMs }),
  });
  file?.watchLock(stop);
  return recording;
}

/** Throws ERR_RECORD_IDENTITY when an image's layers have no names that a trace could be kept by. */
export function requireIdentity({ name, identity }: ImageDescription, id: string): void {
  if (identity.layers.every(({ digest }) => digest !== '')) return;
  throw new ReplaybdError(
    'ERR_RECORD_IDENTITY',
    `device ${id}: ${name} names layers without digests, which nobody has computed in mode off. ` +
      'Attach it in mode record or auto.',
    { errno: 'EINVAL' },
  );
}
