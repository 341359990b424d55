import { ReplaybdError } from '../base/errors.ts';
import { traceLimits } from '../base/limits.ts';
import type { RegistryClient } from '../registry/client.ts';
import { digestOf } from '../registry/digest.ts';
import { mediaTypes, type Descriptor } from '../registry/manifest.ts';
import { parseReference, type ImageReference } from '../registry/reference.ts';
import { emptyDescriptor } from '../registry/referrers.ts';
import { decodeTrace } from './decode.ts';
import type { Trace } from './trace.ts';

/** What a manifest says it is whose only layer is a trace. */
export const TRACE_ARTIFACT_TYPE = 'application/vnd.replaybd.trace.v1';
export const TRACE_MEDIA_TYPE = 'application/vnd.replaybd.trace.v1+msgpack';
/** Annotation that carries the workload key. */
export const WORKLOAD_ANNOTATION = 'dev.replaybd.workload';
/** When the recording began: of two traces of a workload, the later one is used. */
const CREATED_ANNOTATION = 'org.opencontainers.image.created';

/** The part of the registry client that traces need. */
export type TraceRegistry = Pick<
  RegistryClient,
  'getManifest' | 'getBlob' | 'pushBlob' | 'pushReferrer' | 'listReferrers'
>;

export interface PulledTrace {
  readonly bytes: Uint8Array;
  readonly trace: Trace;
  /** Of the manifest that refers to the image. */
  readonly digest: string;
}

/**
 * Attaches a trace to an image. Throws ERR_TRACE_IMAGE when the trace has layers that the image
 * does not, those of `decodeTrace`, and the registry's.
 */
export async function pushTrace(
  registry: TraceRegistry,
  image: string,
  bytes: Uint8Array,
): Promise<Descriptor> {
  const trace = decodeTrace(bytes);
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
  const digest = digestOf(bytes);
  await registry.pushBlob(reference, { digest, sizeBytes: bytes.length, content: { bytes } });
  const layer = { mediaType: TRACE_MEDIA_TYPE, digest, size: bytes.length };
  return await registry.pushReferrer(reference, {
    schemaVersion: 2,
    artifactType: TRACE_ARTIFACT_TYPE,
    config: emptyDescriptor,
    layers: [layer],
    subject: {
      mediaType: fetched.mediaType || mediaTypes.ociManifest,
      digest: fetched.digest,
      size: fetched.bytes.length,
    },
    annotations: {
      [CREATED_ANNOTATION]: new Date(trace.recording.startedAtMs).toISOString(),
      [WORKLOAD_ANNOTATION]: trace.workload.key,
    },
  });
}

/**
 * The latest trace attached to an image, of one workload when `workload` is given; null when
 * there is none. A trace that is there but cannot be read throws what `decodeTrace` throws.
 */
export async function pullTrace(
  registry: TraceRegistry,
  image: string,
  workload?: string,
): Promise<PulledTrace | null> {
  const reference = parseReference(image);
  const [latest] = (await listTraces(registry, reference)).filter(
    (found) => workload === undefined || found.annotations?.[WORKLOAD_ANNOTATION] === workload,
  );
  if (latest === undefined) return null;
  const { manifest } = await registry.getManifest({ ...reference, digest: latest.digest });
  const layer = manifest.layers.find(({ mediaType }) => mediaType === TRACE_MEDIA_TYPE);
  const name = `${image}: trace ${latest.digest}`;
  if (layer === undefined) {
    throw new ReplaybdError(
      'ERR_TRACE_FORMAT',
      `${name}: expected a layer of ${TRACE_MEDIA_TYPE}, found none`,
    );
  }
  const bytes = await registry.getBlob(reference, layer.digest, traceLimits.fileBytesMax);
  return { bytes, trace: decodeTrace(bytes, name), digest: latest.digest };
}

/** What traces an image has, the latest first. Of an index, those of this host's platform. */
export async function listTraces(
  registry: TraceRegistry,
  image: string | ImageReference,
): Promise<Descriptor[]> {
  const reference = typeof image === 'string' ? parseReference(image) : image;
  const { digest } = await registry.getManifest(reference);
  const found = await registry.listReferrers(reference, digest, TRACE_ARTIFACT_TYPE);
  return found.sort((a, b) => compare(createdAt(b), createdAt(a)) || compare(a.digest, b.digest));
}

function createdAt(descriptor: Descriptor): string {
  return descriptor.annotations?.[CREATED_ANNOTATION] ?? '';
}

function compare(a: string, b: string): number {
  if (a === b) return 0;
  return a < b ? -1 : 1;
}
