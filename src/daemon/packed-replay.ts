import { codeOf, messageOf } from '../base/errors.ts';
import type { Blob } from '../blob/blob.ts';
import type { PackedPiece } from '../blob/fetch/packed-stream.ts';
import { RemoteBlob } from '../blob/fetch/remote-blob.ts';
import type { LowerLocation } from '../image/config.ts';
import type { Stack } from '../image/stack.ts';
import { checkPacked } from '../prefetch/packed-check.ts';
import { packedWins, type PackedLink, type PackedMode } from '../prefetch/packed-rule.ts';
import type { PackedLane, PackedRange, Replay } from '../prefetch/replay.ts';
import { parseRepositoryAddress } from '../registry/reference.ts';
import { hotRanges } from '../trace/hot-layout.ts';
import type { Trace } from '../trace/trace.ts';
import type { ChosenMode } from './choose-mode.ts';
import type { ImageDescription } from './image-description.ts';
import type { Runtime } from './runtime.ts';

/** What decides whether a replay reads the hot blob. */
export interface PackedChoice {
  readonly mode: PackedMode;
  /** The trace came from the user, and not with the image. */
  readonly isUsersTrace: boolean;
  readonly lowers: readonly LowerLocation[];
  /** How long the manifest took on a connection of its own; 0 when there was none. */
  readonly describedMs: number;
}

/** A connection and a request. */
const DESCRIBE_ROUND_TRIPS = 2;

/**
 * An attach's choice; `describedMs` is how long describing the image took. Only a trace that somebody
 * named, in the attach or the configuration, is the user's own: those of the store may have been pulled.
 */
export function packedChoice(
  mode: PackedMode | undefined,
  source: ChosenMode['source'],
  { lowers, identity, traceSource }: ImageDescription,
  describedMs: number,
): PackedChoice {
  const isConfigured = source === 'image' && traceSource?.kind === 'file';
  return {
    ...{ mode: mode ?? 'auto', lowers },
    isUsersTrace: source === 'given' || isConfigured,
    describedMs: identity.manifestDigest === null ? 0 : describedMs,
  };
}

/** Of what a device's requests may be: its blobs, and the hot blob of its trace. */
export function askedDigests(
  blobs: readonly Blob[],
  trace: ChosenMode['trace'],
): ReadonlySet<string | null> {
  const hot = trace?.kind === 'replaybd' ? trace.trace.packed?.digest : undefined;
  return new Set([...blobs.map(({ digest }) => digest), ...(hot === undefined ? [] : [hot])]);
}

/**
 * The lane by which a trace's replay reads its hot blob, from the repository of the image's blobs; null
 * when it should not.
 */
export function packedLane(
  runtime: Runtime,
  trace: Trace,
  remote: ReadonlyMap<string, RemoteBlob>,
  choice: PackedChoice,
): PackedLane | null {
  const { packed } = trace;
  const lower = choice.lowers.find((one) => one.kind === 'remote');
  const first = [...remote.values()].at(0);
  const fetcher = first === undefined ? undefined : runtime.fetchers.of(first);
  if (packed === undefined || lower?.kind !== 'remote' || fetcher === undefined) return null;
  if (first === undefined) return null;
  const link = { ...fetcher.stats, rangesPerRequest: rangesPerRequest(first) };
  if (!isChosen(trace, remote, choice, link)) return null;
  const repository = parseRepositoryAddress(lower.url.slice(0, lower.url.lastIndexOf('/')));
  return {
    fetch: (ranges, { signal, onRequest }) => {
      const source = runtime.client.blobSource(repository, packed.digest, packed.sizeBytes);
      const stream = fetcher.packed({
        ...{ source, signal, onRequest, digest: packed.digest },
        flow: first.flow,
        pieces: piecesOf(ranges),
      });
      for (const blob of remote.values()) {
        blob.onPackedDamage = () => {
          if (!stream.isOver) stream.giveUp('its bytes are damaged');
        };
      }
      return { finished: stream.finished.finally(() => source.close()) };
    },
  };
}

/**
 * When a replay that read a hot blob has ended: what the cache holds of the plan must hash to the blob's
 * digest. If it does not, what came out of the blob is forgotten.
 */
export async function checkAfterReplay(
  runtime: Runtime,
  trace: Trace,
  remote: ReadonlyMap<string, RemoteBlob>,
  replay: Replay,
): Promise<void> {
  await replay.finished;
  const blobs = [...remote.values()];
  const isOver = (): boolean => blobs.some((blob) => blob.isClosed);
  const byLayer = trace.image.layers.map(({ digest }) => remote.get(digest) ?? null);
  if ((await checkPacked(trace, byLayer, isOver)) !== 'other' || isOver()) return;
  const droppedBytes = blobs.reduce((sum, blob) => sum + blob.dropPacked(), 0);
  runtime.log.warn(
    { hotBlob: trace.packed?.digest, droppedBytes },
    "the plan's bytes do not have the hot blob's digest: what came out of it is fetched again",
  );
}

/**
 * Opens the stack. Of what opening reads, a tar's header and a ZFile's magic say only whether they are
 * there: when it fails with bytes of a hot blob, they are fetched from the layers, and it is opened again.
 */
export async function openStackOf(runtime: Runtime, blobs: readonly Blob[]): Promise<Stack> {
  const stack = await openTwice(runtime, blobs);
  refuseUnverifiable(stack, blobs);
  return stack;
}

async function openTwice(runtime: Runtime, blobs: readonly Blob[]): Promise<Stack> {
  try {
    return await runtime.stacks.open(blobs);
  } catch (error) {
    const isClosed = blobs.some((blob) => blob instanceof RemoteBlob && blob.isClosed);
    const packedBytes = isClosed ? 0 : blobs.reduce((sum, blob) => sum + forgetPacked(blob), 0);
    if (packedBytes === 0) throw error;
    const reason = `not opened with bytes of a hot blob: ${messageOf(error)}`;
    runtime.log.warn({ packedBytes, code: codeOf(error) }, reason);
    return await runtime.stacks.open(blobs);
  }
}

/** From now on nothing of a blob comes out of a packed source; gives how many bytes of it had. */
function forgetPacked(blob: Blob): number {
  if (!(blob instanceof RemoteBlob)) return 0;
  blob.refusesPacked = true;
  return blob.dropPacked();
}

/**
 * Layers that carry no CRCs are not packed. Where a trace says otherwise, what came out of the hot blob
 * is forgotten before anybody reads it.
 */
function refuseUnverifiable(stack: Stack, blobs: readonly Blob[]): void {
  for (const [layer, { container }] of stack.layers.entries()) {
    const { zfile } = container.facts;
    if (zfile?.hasBlockCrc !== true || !zfile.hasDigest) forgetPacked(blobs[layer]);
  }
}

function isChosen(
  trace: Trace,
  remote: ReadonlyMap<string, RemoteBlob>,
  { mode, isUsersTrace, describedMs }: PackedChoice,
  link: PackedLink,
): boolean {
  if (mode !== 'auto') return mode === 'on';
  if (!isUsersTrace || !isMostlyAbsent(trace, remote)) return false;
  const roundTripMs = link.roundTripMs || describedMs / DESCRIBE_ROUND_TRIPS;
  return packedWins(trace.plan, { ...link, roundTripMs });
}

/** Null while no answer of whoever serves the blob has told. */
function rangesPerRequest({ source: { many } }: RemoteBlob): number | null {
  if (many === undefined) return 1;
  return many.isRangesMaxKnown ? many.rangesMax : null;
}

/** With half of it present, what is left lies too scattered in the hot blob to be worth it. */
function isMostlyAbsent(
  { image, plan, packed }: Trace,
  remote: ReadonlyMap<string, RemoteBlob>,
): boolean {
  if (packed === undefined) return false;
  let presentBytes = 0;
  for (const { layer, offset, length } of hotRanges(plan, packed.layers)) {
    const blob = remote.get(image.layers[layer].digest);
    if (blob === undefined || blob.has(offset, length)) presentBytes += length;
    if (presentBytes > packed.sizeBytes / 2) return false;
  }
  return true;
}

function* piecesOf(ranges: Iterator<PackedRange>): Generator<PackedPiece, void, undefined> {
  for (;;) {
    const { value, done } = ranges.next();
    if (done === true) return;
    const { blob, range, at } = value;
    if (blob instanceof RemoteBlob) yield { blob, range, at };
  }
}
