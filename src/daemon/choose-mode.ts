import { codeOf, messageOf } from '../base/errors.ts';
import { overlaybdTraceLimits } from '../base/limits.ts';
import { decodeTrace } from '../trace/decode.ts';
import { recordsIn, type AnyTrace } from '../trace/overlaybd/any-trace.ts';
import { decodeOverlaybdTrace, hasOverlaybdTraceMagic } from '../trace/overlaybd/format.ts';
import { imageKey, readTraceFile } from '../trace/store.ts';
import type { AttachmentOptions, AttachMode } from './attachment.ts';
import type { ImageDescription } from './image-description.ts';
import { readAccelerationTrace, readRecordTrace, type RecordTrace } from './image-trace.ts';
import type { Runtime } from './runtime.ts';
import { repositoryOf } from './trace-search.ts';

/** What an attach comes to once it was looked for a trace. */
export interface ChosenMode {
  mode: 'off' | 'record' | 'replay';
  /** What to replay. */
  trace: AnyTrace | null;
  /** Where it is from; null without one. */
  source: 'given' | 'image' | 'store' | null;
  /** There is none here, but one may be found elsewhere. */
  isSought: boolean;
  /** '' in mode 'off'. */
  tracePath: string;
  /** Records to `tracePath` as overlaybd does, instead of a trace of ours. */
  isRecordTrace: boolean;
}

/**
 * 'auto' replays when there is a good trace, which is not that of a run that read nothing, and records
 * otherwise; 'replay' without a good trace is
 * a warning and plain lazy loading. The first of these that is there counts: the trace that the user
 * named, the configuration's recordTracePath, the local store's trace, the image's acceleration layer.
 * Without any of them one is looked for while the device is in use: see SoughtReplay.
 */
export async function chooseMode(
  runtime: Runtime,
  image: ImageDescription,
  options: AttachmentOptions,
  given: Promise<AnyTrace | null> | null,
): Promise<ChosenMode> {
  const { mode, workload } = options;
  const chosen = { trace: null, isRecordTrace: false, source: null, isSought: false };
  if (mode === 'off') return { ...chosen, mode, tracePath: '' };
  const key = imageKey(image.identity);
  const tracePath = options.tracePath ?? runtime.traces.path(key, workload.key);
  const isGiven = options.tracePath !== undefined;
  const configured = isGiven ? null : await configuredTrace(runtime, image);
  if (configured?.kind === 'record' && mode !== 'replay') {
    return { ...chosen, mode: 'record', tracePath: configured.path, isRecordTrace: true };
  }
  if (mode === 'record') return { ...chosen, mode, tracePath };
  const ofImage = { ...chosen, mode: 'replay', source: 'image' } as const;
  if (configured !== null && configured.kind !== 'record') {
    return { ...ofImage, trace: configured, tracePath: nameOfSource(image) };
  }
  const acceleration = isGiven ? null : accelerationOf(image);
  const isSought = !isGiven && acceleration === null && isSearchable(runtime, image, mode);
  const isExpected = mode === 'replay' && acceleration === null && !isSought;
  const skipsStore = runtime.traceFrom === 'registry' && isSought;
  const found = skipsStore ? null : await (given ?? readTrace(runtime, tracePath, isExpected));
  const isEmpty = found !== null && recordsIn(found) === 0;
  const trace = mode === 'auto' && isEmpty ? null : found;
  const source = isGiven ? 'given' : 'store';
  if (trace !== null) return { ...chosen, mode: 'replay', trace, source, tracePath };
  const offered = acceleration === null ? null : await readAccelerationTrace(runtime, acceleration);
  if (offered !== null) {
    return { ...ofImage, trace: offered, tracePath: nameOfSource(image) };
  }
  return { ...chosen, mode: mode === 'auto' ? 'record' : 'off', tracePath, isSought };
}

/** The registry has traces by manifest; older images are known by their repository, in mode auto. */
function isSearchable(runtime: Runtime, image: ImageDescription, mode: AttachMode): boolean {
  const asksRegistry = runtime.traceFrom !== 'store' && image.identity.manifestDigest !== null;
  return asksRegistry || (mode === 'auto' && repositoryOf(image) !== '');
}

/** Reads the trace that the user named while the manifest is still under way; null without one. */
export function readGivenTrace(
  runtime: Runtime,
  { mode, tracePath }: AttachmentOptions,
): Promise<AnyTrace | null> | null {
  const mayReplay = mode === 'replay' || mode === 'auto';
  if (!mayReplay || tracePath === undefined) return null;
  return readTrace(runtime, tracePath, mode === 'replay');
}

/** A trace of either format. */
async function readTrace(
  runtime: Runtime,
  path: string,
  expected: boolean,
): Promise<AnyTrace | null> {
  try {
    const bytes = await readTraceFile(path, overlaybdTraceLimits.fileBytesMax);
    return hasOverlaybdTraceMagic(bytes)
      ? { kind: 'overlaybd', trace: decodeOverlaybdTrace(bytes, path) }
      : { kind: 'replaybd', trace: decodeTrace(bytes, path) };
  } catch (error) {
    if (codeOf(error) !== 'ERR_TRACE_NOT_FOUND' || expected) {
      runtime.log.warn({ trace: path, code: codeOf(error) }, `no replay: ${messageOf(error)}`);
    }
    return null;
  }
}

async function configuredTrace(runtime: Runtime, image: ImageDescription): Promise<RecordTrace> {
  const { traceSource } = image;
  return traceSource?.kind === 'file' ? await readRecordTrace(runtime, traceSource.path) : null;
}

function accelerationOf({ traceSource }: ImageDescription) {
  return traceSource === null || traceSource.kind === 'file' ? null : traceSource;
}

function nameOfSource({ name, traceSource }: ImageDescription): string {
  if (traceSource === null) return name;
  return traceSource.kind === 'layer' ? traceSource.name : traceSource.path;
}
