import { open } from 'node:fs/promises';
import { convertLimits, registryLimits } from '../../base/limits.ts';
import { isObject } from '../../registry/collect.ts';
import { digestOf } from '../../registry/digest.ts';
import { mediaTypes, type Descriptor } from '../../registry/manifest.ts';
import { archiveFiles } from './archive-index.ts';
import { parseSourceConfig } from './image-config.ts';
import { readSmall, type FilePart, type LayoutFiles } from './layout-files.ts';
import { LAYOUT_INDEX, layoutSource } from './layout-source.ts';
import { sourceError, type ImageSource, type LayerInput, type SourceObject } from './source.ts';

const ARCHIVE_MANIFEST = 'manifest.json';
const LAYOUT_MARK = 'oci-layout';
const GZIP_MAGIC = 0x8b1f;
const ZSTD_MAGIC = 0xfd2fb528;

/** One image of an archive's manifest.json. */
interface ArchiveImage {
  config: string;
  names: string[];
  layers: string[];
}

/**
 * An image in a file that `docker save` wrote (Docker image specification v1.2, "Combined Image JSON
 * + Filesystem Changeset Format"), or one with an OCI layout inside, as Docker writes since version
 * 25. `reference` chooses among several. Errors: ERR_CONVERT_ARCHIVE, ERR_CONVERT_SOURCE.
 */
export async function dockerArchiveSource(
  path: string,
  reference: string | null,
): Promise<ImageSource> {
  const files = await archiveFiles(path);
  const isLayout = (await files.locate(LAYOUT_MARK)) !== null;
  if (isLayout && (await files.locate(LAYOUT_INDEX)) !== null) {
    return layoutSource(files, reference === null ? null : [reference, fullName(reference)]);
  }
  const bytes = await readSmall(files, ARCHIVE_MANIFEST, registryLimits.manifestBytesMax);
  const images = parseArchiveManifest(path, bytes);
  return new DockerArchiveSource(files, chooseImage(path, images, reference));
}

class DockerArchiveSource implements ImageSource {
  readonly name: string;
  readonly #files: LayoutFiles;
  readonly #image: ArchiveImage;
  readonly #layers = new Map<string, FilePart>();

  constructor(files: LayoutFiles, image: ArchiveImage) {
    this.name = files.name;
    this.#files = files;
    this.#image = image;
  }

  /** A manifest as a registry would have it: an archive names layers by their place in it. */
  async root(): Promise<SourceObject> {
    const { config, layers } = this.#image;
    const configBytes = await readSmall(this.#files, config, registryLimits.smallBlobBytesMax);
    const configDigest = digestOf(configBytes);
    const { diffIds } = parseSourceConfig(`${this.name}: ${config}`, configBytes, layers.length);
    const descriptors: Descriptor[] = [];
    for (const [i, diffId] of diffIds.entries()) {
      descriptors.push(await this.#describe(layers[i] ?? '', diffId));
    }
    const mediaType = mediaTypes.dockerManifest;
    const manifest = {
      schemaVersion: 2 as const,
      mediaType,
      config: {
        mediaType: mediaTypes.dockerConfig,
        digest: configDigest,
        size: configBytes.length,
      },
      layers: descriptors,
    };
    const bytes = Buffer.from(JSON.stringify(manifest));
    return { descriptor: { mediaType, digest: digestOf(bytes), size: bytes.length }, manifest };
  }

  async child(descriptor: Descriptor): Promise<SourceObject> {
    throw sourceError(
      'ERR_CONVERT_ARCHIVE',
      `${this.name}: expected one image, found an entry ${descriptor.digest}.`,
    );
  }

  config(): Promise<Uint8Array> {
    const { config } = this.#image;
    return readSmall(this.#files, config, registryLimits.smallBlobBytesMax);
  }

  async layer({ digest }: Descriptor): Promise<LayerInput> {
    const part = this.#layers.get(digest);
    if (part === undefined) {
      throw sourceError('ERR_CONVERT_ARCHIVE', `${this.name}: ${digest}: no layer of the image.`);
    }
    // The archive says nothing of the stored bytes; the diff id is what they are held against.
    return { kind: 'file', ...part, digest: null };
  }

  async #describe(name: string, diffId: string): Promise<Descriptor> {
    const part = await this.#files.locate(name);
    if (part === null) {
      const problem = `${ARCHIVE_MANIFEST}: expected the layer ${JSON.stringify(name)}, found none`;
      throw sourceError('ERR_CONVERT_ARCHIVE', `${this.name}: ${problem}.`);
    }
    this.#layers.set(diffId, part);
    return { mediaType: await mediaTypeOf(part), digest: diffId, size: part.sizeBytes };
  }
}

/** Docker's own archives hold plain tars; other writers' may be compressed. */
async function mediaTypeOf(part: FilePart): Promise<string> {
  const file = await open(part.path, 'r');
  try {
    const { buffer } = await file.read(
      Buffer.alloc(4),
      0,
      Math.min(4, part.sizeBytes),
      part.offset,
    );
    if (buffer.readUInt16LE(0) === GZIP_MAGIC) return `${mediaTypes.dockerLayer}.gzip`;
    if (buffer.readUInt32LE(0) === ZSTD_MAGIC) return `${mediaTypes.dockerLayer}.zstd`;
    return mediaTypes.dockerLayer;
  } finally {
    await file.close();
  }
}

/** Parses and checks a manifest.json. Throws ERR_CONVERT_ARCHIVE. */
export function parseArchiveManifest(path: string, bytes: Buffer): ArchiveImage[] {
  let json: unknown;
  try {
    json = JSON.parse(bytes.toString('utf8'));
  } catch (error) {
    throw sourceError(
      'ERR_CONVERT_ARCHIVE',
      `${path}: ${ARCHIVE_MANIFEST}: expected JSON, found something else.`,
      error,
    );
  }
  if (!Array.isArray(json) || json.length > convertLimits.archiveEntriesMax) {
    throw badManifest(path, 'a list of images');
  }
  return json.map((item: unknown) => {
    if (!isObject(item)) throw badManifest(path, 'images that are objects');
    const { Config: config, RepoTags: names, Layers: layers } = item;
    if (typeof config !== 'string') throw badManifest(path, 'a Config of each image');
    if (!isTexts(layers) || layers.length > convertLimits.layersMax) {
      throw badManifest(path, `Layers of each image, at most ${convertLimits.layersMax}`);
    }
    return { config, layers, names: isTexts(names) ? names : [] };
  });
}

function chooseImage(
  path: string,
  images: readonly ArchiveImage[],
  reference: string | null,
): ArchiveImage {
  const wanted = reference === null ? null : fullName(reference);
  const fits = images.filter(
    ({ names }) => wanted === null || names.some((name) => fullName(name) === wanted),
  );
  const [only] = fits;
  if (only !== undefined && fits.length === 1) return only;
  const found = images.flatMap(({ names }) => names).slice(0, 10);
  throw sourceError(
    'ERR_CONVERT_ARCHIVE',
    `${path}: expected ${reference === null ? 'one image' : `an image named ${reference}`}, ` +
      `found ${found.join(', ') || `${images.length} without names`}. Name the one to convert.`,
  );
}

/** `docker.io/library/name:latest` of `name`, as containerd writes references in full. */
function fullName(reference: string): string {
  const slash = reference.indexOf('/');
  const first = reference.slice(0, Math.max(slash, 0));
  const hasHost = /[.:]/.test(first) || first === 'localhost';
  const path = hasHost ? reference : `docker.io/${slash === -1 ? 'library/' : ''}${reference}`;
  return /:[^/]*$/.test(path) ? path : `${path}:latest`;
}

function isTexts(value: unknown): value is string[] {
  return Array.isArray(value) && value.every((item) => typeof item === 'string');
}

function badManifest(path: string, expected: string) {
  return sourceError(
    'ERR_CONVERT_ARCHIVE',
    `${path}: ${ARCHIVE_MANIFEST}: expected ${expected}, found something else.`,
  );
}
