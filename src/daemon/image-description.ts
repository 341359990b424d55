import { createHash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { stat } from 'node:fs/promises';
import { pipeline } from 'node:stream/promises';
import { ReplaybdError } from '../base/errors.ts';
import type { Logger } from '../base/log.ts';
import { recoverSnapshot } from '../device/snapshot.ts';
import { annotation } from '../image/build/annotations.ts';
import {
  readImageConfig,
  resolveLower,
  type ImageConfig,
  type LowerLocation,
} from '../image/config.ts';
import { overlaybdTraceLimits } from '../base/limits.ts';
import type { RegistryClient, RepositoryName } from '../registry/client.ts';
import { parseReference, repositoryBlobUrl } from '../registry/reference.ts';
import { readTraceFile } from '../trace/store.ts';
import type { TraceImage, TraceLayer } from '../trace/trace.ts';
import type { TraceSource } from './image-trace.ts';
import type { UpperLocation } from './upper-folder.ts';

/** An image, before any of its layers is opened. */
export interface ImageDescription {
  /** As the user named it. */
  readonly name: string;
  /** The image as its traces name it. */
  readonly identity: Omit<TraceImage, 'virtualSizeBytes'>;
  /** Bottom first: one for each layer of the identity, then what snapshots of the device sealed. */
  readonly lowers: readonly LowerLocation[];
  /** The writable layer; null for a read-only device. */
  readonly upper: UpperLocation | null;
  /** Where the trace is that the image brings with it. */
  readonly traceSource: TraceSource | null;
}

export interface DescribeOptions {
  /** Compute the digests that a configuration file leaves out: traces are keyed by them. */
  identify: boolean;
  /** Called as soon as it is known where the blobs will come from. */
  onRepository: (repository: RepositoryName) => void;
  /** Called with a configuration's `resultFile` ('' when it has none) before anything is refused. */
  onResultFile: (path: string) => void;
  log: Logger;
  signal?: AbortSignal;
}

/** Describes what `config.v1.json` or an image reference names. */
export async function describeImage(
  target: string,
  client: Pick<RegistryClient, 'getManifest' | 'getBlob' | 'repository'>,
  options: DescribeOptions,
): Promise<ImageDescription> {
  const isFile = target.endsWith('.json') || (await isRegularFile(target));
  return isFile ? describeConfig(target, options) : describeReference(target, client, options);
}

async function describeConfig(path: string, options: DescribeOptions): Promise<ImageDescription> {
  await recoverSnapshot(path, options.log);
  const config = await readImageConfig(path);
  options.onResultFile(config.resultFile);
  const traceSource = configuredTrace(config);
  // An acceleration layer holds a trace, not a part of the disk.
  const layersOfDisk = config.accelerationLayer ? config.lowers.slice(0, -1) : config.lowers;
  if (config.repoBlobUrl !== '') options.onRepository(config.repoBlobUrl);
  const lowers = await Promise.all(layersOfDisk.map((lower) => resolveLower(config, lower)));
  const layers = await Promise.all(
    lowers.map(async (lower, i): Promise<TraceLayer> => {
      if (lower.kind === 'remote') {
        return { digest: lower.digest, sizeBytes: lower.size ?? 0, diffId: null };
      }
      const { size } = await stat(lower.path);
      const stated = config.lowers[i].digest;
      const digest = stated !== '' || !options.identify ? stated : await digestOfFile(lower.path);
      return { digest, sizeBytes: size, diffId: null };
    }),
  );
  const identity = { manifestDigest: null, layers };
  return { name: path, identity, lowers, upper: configuredUpper(config), traceSource };
}

function configuredUpper({ name, upper }: ImageConfig): UpperLocation | null {
  const { data, index, target, gzipIndex } = upper;
  if (data === '' || index === '') return null;
  if (target === '' && gzipIndex === '') return { data, index, configPath: name, isThere: true };
  throw new ReplaybdError(
    'ERR_CONFIG_UNSUPPORTED',
    `${name}: $.upper: TurboOCI layers (target, gzipIndex) are not supported. ` +
      'Convert the image to overlaybd-native layers.',
  );
}

/** Errors: ERR_CONFIG_TRACE for two traces at once, which overlaybd refuses too. */
function configuredTrace(config: ImageConfig): TraceSource | null {
  const { accelerationLayer, recordTracePath, lowers, name } = config;
  if (!accelerationLayer) {
    return recordTracePath === '' ? null : { kind: 'file', path: recordTracePath };
  }
  if (recordTracePath === '') {
    const { dir, file } = lowers[lowers.length - 1];
    if (dir !== '') return { kind: 'folder', path: dir };
    const read = () => readTraceFile(file, overlaybdTraceLimits.layerBytesMax);
    return file === '' ? null : { kind: 'layer', name: file, read };
  }
  throw new ReplaybdError(
    'ERR_CONFIG_TRACE',
    `${name}: expected accelerationLayer or recordTracePath, found both. Remove one of them.`,
  );
}

async function describeReference(
  target: string,
  client: Pick<RegistryClient, 'getManifest' | 'getBlob' | 'repository'>,
  options: DescribeOptions,
): Promise<ImageDescription> {
  const reference = parseReference(target);
  const { signal } = options;
  options.onRepository(reference);
  const { digest, manifest } = await client.getManifest(
    reference,
    signal === undefined ? {} : { signal },
  );
  const blobsUrl = repositoryBlobUrl(client.repository(reference));
  const overlaybdLayers = manifest.layers.filter(
    ({ annotations }) => annotations?.[annotation.accelerationLayer] !== 'yes',
  );
  for (const layer of overlaybdLayers) {
    if (layer.annotations?.[annotation.blobDigest] === layer.digest) continue;
    throw new ReplaybdError(
      'ERR_IMAGE_NOT_OVERLAYBD',
      `${target}: layer ${layer.digest} lacks the annotation ${annotation.blobDigest} with its ` +
        'digest: this is not an overlaybd image. Convert it first.',
    );
  }
  const acceleration = manifest.layers.findLast((layer) => !overlaybdLayers.includes(layer));
  return {
    name: target,
    upper: null,
    traceSource:
      acceleration === undefined
        ? null
        : {
            kind: 'layer',
            name: `${target}: layer ${acceleration.digest}`,
            read: () =>
              client.getBlob(
                reference,
                acceleration.digest,
                overlaybdTraceLimits.layerBytesMax,
                signal,
              ),
          },
    identity: {
      manifestDigest: digest,
      layers: overlaybdLayers.map((layer) => ({
        digest: layer.digest,
        sizeBytes: layer.size,
        // The layer's tar is not compressed, so the two digests are one.
        diffId: layer.digest,
      })),
    },
    lowers: overlaybdLayers.map((layer) => ({
      kind: 'remote',
      url: `${blobsUrl}/${layer.digest}`,
      digest: layer.digest,
      size: layer.size,
    })),
  };
}

async function digestOfFile(path: string): Promise<string> {
  const hash = createHash('sha256');
  await pipeline(createReadStream(path, { highWaterMark: 2 ** 20 }), hash);
  return `sha256:${hash.digest('hex')}`;
}

async function isRegularFile(path: string): Promise<boolean> {
  return stat(path).then(
    (facts) => facts.isFile(),
    () => false,
  );
}
