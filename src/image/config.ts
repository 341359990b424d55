import { access } from 'node:fs/promises';
import { join } from 'node:path';
import { readConfigFile } from '../base/config-file.ts';
import { configLimits, lsmtLimits } from '../base/limits.ts';
import { ReplaybdError } from '../base/errors.ts';
import { JsonObject } from '../base/json-object.ts';

/**
 * One device's image: overlaybd's `config.v1.json`. Keys mean what they mean there; a key that is
 * absent is '' (or 0, or false), and keys nobody knows are ignored.
 */
export interface ImageConfig {
  /** File path, for messages. */
  readonly name: string;
  /** `https://host/v2/<repository>/blobs`. */
  readonly repoBlobUrl: string;
  /** Bottom first. */
  readonly lowers: readonly LowerConfig[];
  readonly upper: UpperConfig;
  /** Where the outcome of opening the device is written. */
  readonly resultFile: string;
  /** Overrides the daemon's own settings of the background download. */
  readonly download: DownloadConfig | null;
  /** The topmost lower is not a layer but a trace. */
  readonly accelerationLayer: boolean;
  readonly recordTracePath: string;
}

export interface LowerConfig {
  readonly file: string;
  /** Folder whose `overlaybd.commit` and the like is the layer once it is local. */
  readonly dir: string;
  readonly digest: string;
  /** Bytes of the blob; 0 when unknown. */
  readonly size: number;
  /** TurboOCI: the data the layer's metadata points into. */
  readonly targetFile: string;
  readonly targetDigest: string;
  readonly gzipIndex: string;
}

/** The writable layer; a device without `index` or `data` is read-only. */
export interface UpperConfig {
  readonly index: string;
  readonly data: string;
  readonly target: string;
  readonly gzipIndex: string;
}

export interface DownloadConfig {
  readonly enable: boolean;
  readonly delay: number;
  readonly delayExtra: number;
  readonly maxMBps: number;
  readonly tryCnt: number;
  readonly blockSize: number;
}

/** Where a lower's bytes are. */
export type LowerLocation =
  | { kind: 'file'; path: string }
  | { kind: 'remote'; url: string; digest: string; size: number | null };

const DIGEST_PATTERN = /^sha256:[0-9a-f]{64}$/;
const LAYER_FILE_NAMES = ['overlaybd.commit', '.commit', 'overlaybd.sealed'];

/** Reads a configuration file. Errors: those of parseImageConfig, ERR_CONFIG_READ, ERR_CONFIG_SIZE. */
export async function readImageConfig(path: string): Promise<ImageConfig> {
  return parseImageConfig(await readConfigFile(path, configLimits.fileBytesMax), path);
}

/** Errors: ERR_CONFIG_JSON, ERR_CONFIG_TYPE, ERR_CONFIG_LOWERS. */
export function parseImageConfig(text: string, name: string): ImageConfig {
  const root = JsonObject.parse(text, name);
  const lowers = root.list('lowers');
  const upper = root.object('upper');
  // A writable layer may be all there is: an image begins so.
  const lowersMin = upper !== null && upper.string('data') !== '' ? 0 : 1;
  const { layersMax } = lsmtLimits;
  if (lowers.length < lowersMin || lowers.length > layersMax) {
    throw new ReplaybdError(
      'ERR_CONFIG_LOWERS',
      `${name}: $.lowers: expected ${lowersMin} to ${layersMax} layers, found ${lowers.length}`,
    );
  }
  const download = root.object('download');
  return {
    name,
    repoBlobUrl: root.string('repoBlobUrl'),
    lowers: lowers.map(parseLower),
    upper: {
      index: upper?.string('index') ?? '',
      data: upper?.string('data') ?? '',
      target: upper?.string('target') ?? '',
      gzipIndex: upper?.string('gzipIndex') ?? '',
    },
    resultFile: root.string('resultFile'),
    download: download === null ? null : parseDownload(download),
    accelerationLayer: root.boolean('accelerationLayer'),
    recordTracePath: root.string('recordTracePath'),
  };
}

function parseLower(lower: JsonObject): LowerConfig {
  return {
    file: lower.string('file'),
    dir: lower.string('dir'),
    digest: lower.string('digest'),
    size: lower.natural('size', 0),
    targetFile: lower.string('targetFile'),
    targetDigest: lower.string('targetDigest'),
    gzipIndex: lower.string('gzipIndex'),
  };
}

function parseDownload(download: JsonObject): DownloadConfig {
  return {
    enable: download.boolean('enable'),
    delay: download.natural('delay', 300),
    delayExtra: download.natural('delayExtra', 30),
    maxMBps: download.natural('maxMBps', 100),
    tryCnt: download.natural('tryCnt', 5),
    blockSize: download.natural('blockSize', 262_144),
  };
}

/**
 * Finds a lower as the original does: the first file that exists of `file`, then of the names a
 * layer has in `dir`; otherwise the blob in the registry. Errors: ERR_CONFIG_UNSUPPORTED for
 * TurboOCI, ERR_CONFIG_DIGEST, ERR_CONFIG_URL, ERR_CONFIG_LOWER when there is nothing to open.
 */
export async function resolveLower(
  config: ImageConfig,
  lower: LowerConfig,
): Promise<LowerLocation> {
  const where = `${config.name}: $.lowers[${config.lowers.indexOf(lower)}]`;
  if (lower.targetFile !== '' || lower.targetDigest !== '') {
    throw new ReplaybdError(
      'ERR_CONFIG_UNSUPPORTED',
      `${where}: TurboOCI layers (targetFile, targetDigest) are not supported. ` +
        'Convert the image to overlaybd-native layers.',
    );
  }
  const candidates = lower.file === '' ? [] : [lower.file];
  if (lower.dir !== '') candidates.push(...LAYER_FILE_NAMES.map((file) => join(lower.dir, file)));
  for (const path of candidates) {
    if (await exists(path)) return { kind: 'file', path };
  }
  if (lower.digest === '') {
    const tried = candidates.length === 0 ? 'no file, dir or digest' : candidates.join(', ');
    throw new ReplaybdError(
      'ERR_CONFIG_LOWER',
      `${where}: expected a local file or a digest, found ${tried}` +
        (candidates.length === 0 ? '' : ', none of which exists, and no digest'),
    );
  }
  if (!DIGEST_PATTERN.test(lower.digest)) {
    throw new ReplaybdError(
      'ERR_CONFIG_DIGEST',
      `${where}.digest: expected sha256: and 64 lower-case hexadecimal digits, ` +
        `found "${lower.digest}"`,
    );
  }
  const url = `${blobsUrl(config, where)}/${lower.digest}`;
  return { kind: 'remote', url, digest: lower.digest, size: lower.size === 0 ? null : lower.size };
}

/** The message never repeats the URL: it may hold a password. */
function blobsUrl({ repoBlobUrl }: ImageConfig, where: string): string {
  const isUrl = URL.canParse(repoBlobUrl) && /^https?:$/.test(new URL(repoBlobUrl).protocol);
  if (isUrl) return repoBlobUrl.replace(/\/+$/, '');
  const found = repoBlobUrl === '' ? 'an empty one' : 'something else';
  throw new ReplaybdError(
    'ERR_CONFIG_URL',
    `${where} is remote: expected repoBlobUrl to be an http(s) URL, found ${found}`,
  );
}

async function exists(path: string): Promise<boolean> {
  return access(path).then(
    () => true,
    () => false,
  );
}
