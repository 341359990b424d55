import { stat } from 'node:fs/promises';
import { ReplaybdError } from '../base/errors.ts';
import { sha256OfFile } from '../base/file-digest.ts';
import { traceLimits, traceStoreLimits } from '../base/limits.ts';
import type { RegistryClient } from '../registry/client.ts';
import { digestOf } from '../registry/digest.ts';
import { mediaTypes, type Descriptor } from '../registry/manifest.ts';
import { parseReference, type ImageReference } from '../registry/reference.ts';
import { emptyDescriptor } from '../registry/referrers.ts';
import { decodeTrace } from './decode.ts';
import { HOT_MEDIA_TYPE } from './hot-blob.ts';
import type { Trace } from './trace.ts';
import { workloadText } from './workload.ts';

/** What a manifest says it is whose only layer is a trace. */
export const TRACE_ARTIFACT_TYPE = 'application/vnd.replaybd.trace.v1';
export const TRACE_MEDIA_TYPE = 'application/vnd.replaybd.trace.v1+msgpack';
/** Annotation that carries the workload key. */
export const WORKLOAD_ANNOTATION = 'dev.replaybd.workload';
/** The workload on one line, for people. */
export const WORKLOAD_TEXT_ANNOTATION = 'dev.replaybd.workload.text';
/** When the recording began: of two traces of a workload, the later one is used. */
export const CREATED_ANNOTATION = 'org.opencontainers.image.created';

/** The part of the registry client that traces need. */
export type TraceRegistry = Pick<
  RegistryClient,
  | 'getManifest'
  | 'getBlob'
  | 'headBlob'
  | 'pushBlob'
  | 'pushReferrer'
  | 'listReferrers'
  | 'deleteReferrer'
>;

export interface PulledTrace {
  readonly bytes: Uint8Array;
  readonly trace: Trace;
  /** Of the manifest that refers to the image. */
  readonly digest: string;
}

export interface PushTraceOptions {
  /** The hot blob of a packed trace. Without it, the repository must hold it already. */
  readonly hotBlobPath?: string;
  readonly signal?: AbortSignal;
}

/**
 * Attaches a trace to an image; of a packed trace, the manifest has the hot blob as a layer too, so that
 * the registry keeps it. Throws ERR_TRACE_EMPTY without records, ERR_TRACE_IMAGE when the trace has layers that the image does not,
 * ERR_HOT_BLOB when the hot blob is not there or another one, those of `decodeTrace`, and the
 * registry's.
 */
export async function pushTrace(
  registry: TraceRegistry,
  image: string,
  bytes: Uint8Array,
  options: PushTraceOptions = {},
): Promise<Descriptor> {
  const trace = decodeTrace(bytes);
  if (trace.records.count === 0) {
    throw new ReplaybdError(
      'ERR_TRACE_EMPTY',
      `${image}: expected a trace with records, found one without: nobody would replay it. ` +
        'Record a run that reads something.',
      { errno: 'EINVAL' },
    );
  }
  const reference = parseReference(image);
  const fetched = await registry.getManifest(reference);
  const held = new Set(fetched.manifest.layers.map((layer) => layer.digest));
  const foreign = trace.image.layers.find((layer) => !held.has(layer.digest));
  if (foreign !== undefined) {
    throw new ReplaybdError(
      'ERR_TRACE_IMAGE',
      `${image}: expected the image of the trace, found one without layer ${foreign.digest}. ` +
        'Push to the image that was recorded, or record this one.',
    );
  }
  const hotLayers = await pushHotBlob(registry, reference, trace, options);
  const digest = digestOf(bytes);
  await registry.pushBlob(reference, { digest, sizeBytes: bytes.length, content: { bytes } });
  const layer = { mediaType: TRACE_MEDIA_TYPE, digest, size: bytes.length };
  return await registry.pushReferrer(reference, {
    schemaVersion: 2,
    artifactType: TRACE_ARTIFACT_TYPE,
    config: emptyDescriptor,
    layers: [layer, ...hotLayers],
    subject: {
      mediaType: fetched.mediaType || mediaTypes.ociManifest,
      digest: fetched.digest,
      size: fetched.bytes.length,
    },
    annotations: {
      [CREATED_ANNOTATION]: new Date(trace.recording.startedAtMs).toISOString(),
      [WORKLOAD_ANNOTATION]: trace.workload.key,
      [WORKLOAD_TEXT_ANNOTATION]: workloadText(trace.workload).slice(
        0,
        traceStoreLimits.textLengthMax,
      ),
    },
  });
}

/** Makes the repository hold a packed trace's hot blob; its descriptor, or none. */
async function pushHotBlob(
  registry: TraceRegistry,
  reference: ImageReference,
  { packed }: Trace,
  { hotBlobPath, signal }: PushTraceOptions,
): Promise<Descriptor[]> {
  if (packed === undefined) return [];
  const { digest, sizeBytes } = packed;
  const descriptor = { mediaType: HOT_MEDIA_TYPE, digest, size: sizeBytes };
  if (hotBlobPath === undefined) {
    const found = await registry.headBlob(reference, digest);
    if (found === sizeBytes) return [descriptor];
    throw new ReplaybdError(
      'ERR_HOT_BLOB',
      `${reference.repository}: expected the hot blob ${digest} of ${sizeBytes} bytes, found ` +
        `${found === null ? 'none' : `one of ${found}`}. Push it too: --blob.`,
    );
  }
  const found = `sha256:${await sha256OfFile(hotBlobPath, signal)}`;
  const { size } = await stat(hotBlobPath);
  if (found !== digest || size !== sizeBytes) {
    throw new ReplaybdError(
      'ERR_HOT_BLOB',
      `${hotBlobPath}: expected the trace's hot blob ${digest} of ${sizeBytes} bytes, found ` +
        `${found} of ${size}. Pack the trace again.`,
    );
  }
  const blob = { digest, sizeBytes, content: { path: hotBlobPath } };
  await registry.pushBlob(reference, blob, signal === undefined ? {} : { signal });
  return [descriptor];
}

/**
 * The latest trace attached to an image, of one workload when `workload` is given; null when
 * there is none. A trace that is there but cannot be read throws what `decodeTrace` throws.
 */
export async function pullTrace(
  registry: TraceRegistry,
  image: string | ImageReference,
  workload?: string,
  signal?: AbortSignal,
): Promise<PulledTrace | null> {
  const reference = typeof image === 'string' ? parseReference(image) : image;
  const traces = await listTraces(registry, reference, signal);
  return await pullLatest(registry, reference, traces, workload, signal);
}

/** As `pullTrace`, of the image whose manifest, not an index, has this digest. */
export async function pullTraceOf(
  registry: TraceRegistry,
  reference: ImageReference,
  digest: string,
  workload: string,
  signal?: AbortSignal,
): Promise<PulledTrace | null> {
  const traces = await tracesOf(registry, reference, digest, signal);
  return await pullLatest(registry, { ...reference, digest }, traces, workload, signal);
}

async function pullLatest(
  registry: TraceRegistry,
  reference: ImageReference,
  traces: readonly Descriptor[],
  workload?: string,
  signal?: AbortSignal,
): Promise<PulledTrace | null> {
  const latest = traces.find(
    ({ annotations }) => workload === undefined || annotations?.[WORKLOAD_ANNOTATION] === workload,
  );
  if (latest === undefined) return null;
  const options = signal === undefined ? {} : { signal };
  const { manifest } = await registry.getManifest({ ...reference, digest: latest.digest }, options);
  const layer = manifest.layers.find(({ mediaType }) => mediaType === TRACE_MEDIA_TYPE);
  const name = `${nameOf(reference)}: trace ${latest.digest}`;
  if (layer === undefined) {
    throw new ReplaybdError(
      'ERR_TRACE_FORMAT',
      `${name}: expected a layer of ${TRACE_MEDIA_TYPE}, found none`,
    );
  }
  const { fileBytesMax } = traceLimits;
  const bytes = await registry.getBlob(reference, layer.digest, fileBytesMax, signal);
  return { bytes, trace: decodeTrace(bytes, name), digest: latest.digest };
}

/** What traces an image has, the latest first. Of an index, those of this host's platform. */
export async function listTraces(
  registry: TraceRegistry,
  image: string | ImageReference,
  signal?: AbortSignal,
): Promise<Descriptor[]> {
  const reference = typeof image === 'string' ? parseReference(image) : image;
  const { digest } = await registry.getManifest(reference, signal === undefined ? {} : { signal });
  return await tracesOf(registry, reference, digest, signal);
}

async function tracesOf(
  registry: TraceRegistry,
  reference: ImageReference,
  digest: string,
  signal?: AbortSignal,
): Promise<Descriptor[]> {
  const found = await registry.listReferrers(reference, digest, TRACE_ARTIFACT_TYPE, signal);
  return found.sort((a, b) => compare(createdAt(b), createdAt(a)) || compare(a.digest, b.digest));
}

/**
 * Detaches a trace from an image. Throws ERR_TRACE_NOT_FOUND for a digest that is no trace of it, whatever
 * else it may name, and ERR_REGISTRY_DELETE.
 */
export async function deleteTrace(
  registry: TraceRegistry,
  image: string,
  digest: string,
): Promise<void> {
  const reference = parseReference(image);
  const subject = await registry.getManifest(reference);
  const found = await registry.listReferrers(reference, subject.digest, TRACE_ARTIFACT_TYPE);
  if (!found.some((one) => one.digest === digest)) {
    throw new ReplaybdError(
      'ERR_TRACE_NOT_FOUND',
      `${image}: expected a trace ${digest}, found none. \`replaybd trace ls ${image}\` lists them.`,
      { errno: 'ENOENT' },
    );
  }
  await registry.deleteReferrer(reference, subject.digest, digest);
}

/** As a person would write it. */
function nameOf({ host, repository, tag, digest }: ImageReference): string {
  return `${host}/${repository}${tag === null ? '' : `:${tag}`}${digest === null ? '' : `@${digest}`}`;
}

function createdAt(descriptor: Descriptor): string {
  return descriptor.annotations?.[CREATED_ANNOTATION] ?? '';
}

function compare(a: string, b: string): number {
  if (a === b) return 0;
  return a < b ? -1 : 1;
}
