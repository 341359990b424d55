import { ReplaybdError } from '../base/errors.ts';
import {
  END_REASONS,
  type Trace,
  type TraceImage,
  type TraceLayer,
  type TracePlan,
  type TraceRecording,
  type TraceRecords,
  type TraceWorkload,
} from './trace.ts';

/** A trace that is merged, without its columns; the duration is on the warm axis. */
export interface TraceFacts extends Pick<Trace, 'image' | 'workload' | 'recording'> {
  /** Its path, for messages. */
  readonly name: string;
}

/** Throws ERR_TRACE_IMAGE unless the layers, bottom first, are those of the first trace. */
export function checkLayers(
  first: TraceFacts,
  { layers }: { readonly layers: readonly TraceLayer[] },
  name: string,
): void {
  const wanted = first.image.layers;
  if (layers.length === wanted.length && layers.every((l, i) => isSameLayer(l, wanted[i]))) return;
  throw new ReplaybdError(
    'ERR_TRACE_IMAGE',
    `${name}: expected the layers of ${first.name}, found others. ` +
      'Carry traces over to one image with `replaybd trace rebase` first.',
  );
}

/** Throws ERR_TRACE_WORKLOAD unless it is that of the first trace. */
export function checkWorkload(first: TraceFacts, { key }: TraceWorkload, name: string): void {
  if (key === first.workload.key) return;
  throw new ReplaybdError(
    'ERR_TRACE_WORKLOAD',
    `${name}: expected workload ${first.workload.key} of ${first.name}, found ${key}. ` +
      'Merge the runs of each workload by themselves.',
  );
}

function isSameLayer(a: TraceLayer, b: TraceLayer): boolean {
  return a.digest === b.digest && a.sizeBytes === b.sizeBytes;
}

/**
 * What a merged trace says beside its columns: the same whatever the order of the traces, of which there
 * is at least one.
 */
export function mergeFacts(
  traces: readonly TraceFacts[],
  records: TraceRecords,
  plan: TracePlan,
): Pick<Trace, 'image' | 'workload' | 'recording'> {
  return {
    image: mergeImages(traces.map(({ image }) => image)),
    workload: smallest(traces.map(({ workload }) => workload)),
    recording: mergeRecordings(traces, records, plan),
  };
}

/** Images of the same layers may differ in what is known of them. */
function mergeImages(images: readonly TraceImage[]): TraceImage {
  const manifests = new Set(images.map((image) => image.manifestDigest));
  return {
    manifestDigest: manifests.size === 1 ? images[0].manifestDigest : null,
    virtualSizeBytes: Math.max(...images.map((image) => image.virtualSizeBytes)),
    layers: images[0].layers.map(({ digest, sizeBytes }, i) => {
      const known = images.map((image) => image.layers[i].diffId).filter((id) => id !== null);
      return { digest, sizeBytes, diffId: known.sort().at(0) ?? null };
    }),
  };
}

/** Begins with the first, lasts as long as the longest, ended like the one that is least complete. */
function mergeRecordings(
  traces: readonly TraceFacts[],
  records: TraceRecords,
  plan: TracePlan,
): TraceRecording {
  const all = traces.map((trace) => trace.recording);
  const ends = all.map((recording) => END_REASONS.indexOf(recording.endReason));
  return {
    startedAtMs: Math.min(...all.map((recording) => recording.startedAtMs)),
    durationUs: Math.max(
      ...all.map((recording) => recording.durationUs),
      records.timeUs.at(-1) ?? 0,
      plan.dueUs.at(-1) ?? 0,
    ),
    endReason: END_REASONS[Math.max(...ends)],
    deviceSizeBytes: Math.max(...all.map((recording) => recording.deviceSizeBytes)),
  };
}

/** The one whose JSON text comes first: the same whatever their order. */
function smallest<T>(values: readonly T[]): T {
  return values.reduce((a, b) => (JSON.stringify(b) < JSON.stringify(a) ? b : a));
}
