import { writeFile } from 'node:fs/promises';
import { codeOf, messageOf } from '../base/errors.ts';
import type { Logger } from '../base/log.ts';
import { mergeRanges, type ByteRange } from '../base/range.ts';
import type { Blob } from '../blob/blob.ts';
import { Flow } from '../blob/fetch/fair-share.ts';
import { RemoteBlob } from '../blob/fetch/remote-blob.ts';
import { openLocalBlob } from '../blob/local-blob.ts';
import { startReplay, type PrefetchLane, type Replay } from '../prefetch/replay.ts';
import type { RepositoryName } from '../registry/client.ts';
import type { Trace } from '../trace/trace.ts';
import type { AttachmentOptions, AttachMode } from './attachment.ts';
import type { ChosenMode } from './choose-mode.ts';
import { describeImage, type ImageDescription } from './image-description.ts';
import { checkAfterReplay, packedChoice, packedLane, type PackedChoice } from './packed-replay.ts';
import type { Runtime } from './runtime.ts';
import { withUpperFolder } from './upper-folder.ts';

// The steps that turn a description of an image into open blobs and, with a trace, a running replay.

/** Several connections get through TCP's slow start together. */
const PRECONNECTIONS = { demand: 2, prefetch: 32 } as const;
const BUDGET_BYTES_DEFAULT = 2 ** 32;

/**
 * Describes what an attach names, with its writable layer. `onResultFile` is told of the configuration's
 * `resultFile` before anything is refused. Errors: those of describeImage and withUpperFolder.
 */
export async function describeAttached(
  runtime: Runtime,
  { target, mode, upperFolder, signal }: AttachmentOptions,
  onResultFile: (path: string) => void,
): Promise<ImageDescription> {
  const described = await describeImage(target, runtime.client, {
    identify: mode !== 'off',
    log: runtime.log,
    onRepository: (repository) => preconnect(runtime, repository, mode),
    onResultFile,
    ...(signal === undefined ? {} : { signal }),
  });
  if (upperFolder === undefined) return described;
  return await withUpperFolder(described, upperFolder, runtime.log);
}

/** Handshakes happen while the manifest is under way. A bad URL shows when it is used. */
function preconnect(runtime: Runtime, repository: RepositoryName, mode: AttachMode): void {
  try {
    runtime.client.preconnect(repository, 'demand', PRECONNECTIONS.demand);
    if (mode === 'replay' || mode === 'auto') {
      runtime.client.preconnect(repository, 'prefetch', PRECONNECTIONS.prefetch);
    }
  } catch (error) {
    runtime.log.debug({ code: codeOf(error) }, `no connections ahead: ${messageOf(error)}`);
  }
}

/** Opens all lowers, or none. */
export async function openBlobs(
  runtime: Runtime,
  image: ImageDescription,
  signal?: AbortSignal,
): Promise<Blob[]> {
  const flow = new Flow();
  const opening = image.lowers.map((lower): Promise<Blob> =>
    lower.kind === 'file' ? openLocalBlob(lower.path) : runtime.openRemoteBlob(lower, flow, signal),
  );
  const settled = await Promise.allSettled(opening);
  const blobs = settled.flatMap((one) => (one.status === 'fulfilled' ? [one.value] : []));
  const failed = settled.find((one) => one.status === 'rejected');
  if (failed === undefined) return blobs;
  await closeAll(blobs);
  throw failed.reason;
}

/** Starts the replay of the trace that an attach has chosen; null where that is none of ours. */
export function replayChosen(
  runtime: Runtime,
  chosen: ChosenMode,
  attach: {
    image: ImageDescription;
    blobs: readonly Blob[];
    options: AttachmentOptions;
    /** How long describing the image took. */
    describedMs: number;
  },
): Replay | null {
  if (chosen.trace?.kind !== 'replaybd') return null;
  const { image, blobs, options, describedMs } = attach;
  const packed = packedChoice(options.packed, chosen.source, image, describedMs);
  return replayTrace(runtime, chosen.trace.trace, blobs, options, packed);
}

/**
 * Starts a trace's replay, which reads the trace's hot blob where `packed` says so. Blobs it covers need
 * no read-ahead: the plan knows better.
 */
export function replayTrace(
  runtime: Runtime,
  trace: Trace,
  blobs: readonly Blob[],
  options: Pick<AttachmentOptions, 'budgetBytes'>,
  packed: PackedChoice | null = null,
): Replay {
  const remote = new Map<string, RemoteBlob>();
  for (const blob of blobs) {
    if (blob instanceof RemoteBlob) remote.set(blob.digest, blob);
  }
  for (const blob of remote.values()) blob.readAhead = 'off';
  const hotLane = packed === null ? null : packedLane(runtime, trace, remote, packed);
  const replay = startReplay({
    trace,
    blobs: remote,
    lane: prefetchLane(runtime, [...remote.values()].at(0)),
    ...(hotLane === null ? {} : { packed: hotLane }),
    budgetBytes: options.budgetBytes ?? BUDGET_BYTES_DEFAULT,
    clock: runtime.clock,
    log: runtime.log,
  });
  if (hotLane !== null) void checkAfterReplay(runtime, trace, remote, replay);
  // Only now: the first requests do not wait for it.
  setImmediate(() => pinPlan(trace, remote));
  return replay;
}

/** The lane of a device's remote blobs, which are of one origin; one that does nothing without any. */
function prefetchLane({ fetchers }: Runtime, first: RemoteBlob | undefined): PrefetchLane {
  const fetcher = first === undefined ? undefined : fetchers.of(first);
  if (first === undefined || fetcher === undefined) return { prefetch: () => Promise.resolve() };
  return {
    prefetch: async (blob, range, { signal }) => {
      if (blob instanceof RemoteBlob) await fetcher.prefetch(blob, range, { signal });
    },
    gather: (ask) => fetcher.gather(ask),
    ready: () => (fetcher.takes(first.flow) ? null : fetcher.prefetchReady()),
    link: () => fetcher.link,
  };
}

/** What an open device's plan still needs is not evicted. */
function pinPlan(trace: Trace, blobs: ReadonlyMap<string, RemoteBlob>): void {
  for (const [layer, { digest }] of trace.image.layers.entries()) {
    const blob = blobs.get(digest);
    if (blob === undefined || blob.isClosed) continue;
    blob.cached.pin(plannedRanges(trace, layer, blob.sizeBytes));
  }
}

/** A layer's part of the plan, as far as it lies in the blob. */
function plannedRanges(trace: Trace, layer: number, sizeBytes: number): ByteRange[] {
  const { plan } = trace;
  const ranges: ByteRange[] = [];
  for (let i = 0; i < plan.count; i += 1) {
    if (plan.blob[i] !== layer || plan.offset[i] + plan.length[i] > sizeBytes) continue;
    ranges.push({ offset: plan.offset[i], length: plan.length[i] });
  }
  return mergeRanges(ranges);
}

/** Fails what waits for registries, so that whoever waits for it can end. Blobs stay open. */
export function abandonReads(blobs: readonly Blob[]): void {
  for (const blob of blobs) if (blob instanceof RemoteBlob) blob.abandon();
}

/** Closes every blob. */
export async function closeAll(blobs: readonly Blob[]): Promise<void> {
  await Promise.all(blobs.map((blob) => blob.close()));
}

/**
 * Tells overlaybd's snapshotter how opening went; exactly these words, without a line feed. A device
 * is not given up because nobody can be told of it.
 */
export async function writeResult(log: Logger, path: string, result: string): Promise<void> {
  if (path === '') return;
  await writeFile(path, result).catch((error: unknown) => {
    log.error({ resultFile: path, code: codeOf(error) }, messageOf(error));
  });
}
