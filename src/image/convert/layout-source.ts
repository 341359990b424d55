import { registryLimits } from '../../base/limits.ts';
import { digestHex, digestOf } from '../../registry/digest.ts';
import { isIndex, parseManifest, type Descriptor } from '../../registry/manifest.ts';
import { readSmall, type LayoutFiles } from './layout-files.ts';
import { sourceError, type ImageSource, type LayerInput, type SourceObject } from './source.ts';

export const LAYOUT_INDEX = 'index.json';
const REF_NAME = 'org.opencontainers.image.ref.name';
/** The full reference, where containerd and Docker wrote the layout. */
const IMAGE_NAME = 'io.containerd.image.name';

/**
 * An image or index in an OCI image layout, by one of the names it may go by, or the only one when
 * `names` is null. Errors of its methods: ERR_CONVERT_SOURCE, ERR_MANIFEST, ERR_CONVERT_DIGEST.
 */
export function layoutSource(files: LayoutFiles, names: readonly string[] | null): ImageSource {
  return new LayoutSource(files, names);
}

class LayoutSource implements ImageSource {
  readonly name: string;
  readonly #files: LayoutFiles;
  readonly #names: readonly string[] | null;

  constructor(files: LayoutFiles, names: readonly string[] | null) {
    this.name = files.name;
    this.#files = files;
    this.#names = names;
  }

  async root(): Promise<SourceObject> {
    const bytes = await readSmall(this.#files, LAYOUT_INDEX, registryLimits.manifestBytesMax);
    const index = parseManifest(`${this.name}/${LAYOUT_INDEX}`, bytes);
    if (!isIndex(index)) {
      const problem = `${LAYOUT_INDEX}: expected an index, found a manifest`;
      throw sourceError('ERR_CONVERT_SOURCE', `${this.name}: ${problem}.`);
    }
    const wanted = this.#names;
    const fits = index.manifests.filter(
      ({ annotations }) =>
        wanted === null ||
        wanted.includes(annotations?.[REF_NAME] ?? '') ||
        wanted.includes(annotations?.[IMAGE_NAME] ?? ''),
    );
    // The same image may be listed under several names.
    const distinct = new Map(fits.map((descriptor) => [descriptor.digest, descriptor]));
    const [only] = distinct.values();
    if (only !== undefined && distinct.size === 1) return this.child(only);
    const found = index.manifests.map(({ annotations }) => annotations?.[REF_NAME] ?? '(no tag)');
    throw sourceError(
      'ERR_CONVERT_SOURCE',
      `${this.name}: expected ${wanted === null ? 'one image' : `an image tagged ${wanted[0]}`}, ` +
        `found ${found.slice(0, 10).join(', ') || 'none'}. Name the one to convert.`,
    );
  }

  async child(descriptor: Descriptor): Promise<SourceObject> {
    const bytes = await this.#small(descriptor, registryLimits.manifestBytesMax);
    const manifest = parseManifest(`${this.name}: ${descriptor.digest}`, bytes);
    const { digest } = descriptor;
    const mediaType = manifest.mediaType ?? descriptor.mediaType;
    return { descriptor: { mediaType, digest, size: bytes.length }, manifest };
  }

  config(descriptor: Descriptor): Promise<Uint8Array> {
    return this.#small(descriptor, registryLimits.smallBlobBytesMax);
  }

  async layer({ digest, size }: Descriptor): Promise<LayerInput> {
    const part = await this.#files.locate(blobName(digest));
    if (part === null) {
      const problem = `expected the blob ${digest} of a layer, found none`;
      throw sourceError('ERR_CONVERT_SOURCE', `${this.name}: ${problem}.`);
    }
    if (part.sizeBytes !== size) {
      const problem = `${digest}: expected ${size} bytes, found ${part.sizeBytes}`;
      throw sourceError('ERR_CONVERT_SIZE', `${this.name}: ${problem}. The layout is damaged.`);
    }
    return { kind: 'file', ...part, digest };
  }

  async #small({ digest }: Descriptor, bytesMax: number): Promise<Buffer> {
    const bytes = await readSmall(this.#files, blobName(digest), bytesMax);
    const found = digestOf(bytes);
    if (found === digest) return bytes;
    throw sourceError(
      'ERR_CONVERT_DIGEST',
      `${this.name}: expected ${digest}, found ${found}. The layout is damaged.`,
    );
  }
}

function blobName(digest: string): string {
  return `blobs/sha256/${digestHex(digest)}`;
}
