import { createHash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { link, mkdir, readdir, readFile, rename, rm, stat, utimes } from 'node:fs/promises';
import { join } from 'node:path';
import { writeFileAtomic } from '../../base/atomic-file.ts';
import { codeOf } from '../../base/errors.ts';
import { convertLimits } from '../../base/limits.ts';
import { isObject, parseJsonObject } from '../../registry/collect.ts';
import { digestHex, digestOf, isDigest } from '../../registry/digest.ts';
import type { LayerFile } from '../build/layer-file.ts';

/** A converted layer, as it is published. */
export interface StoredLayer {
  /** The blob; stays until the run that asked for it ends. */
  path: string;
  digest: string;
  sizeBytes: number;
  /** Data it holds, uncompressed. */
  dataBytes: number;
  /** Repositories, `host/name`, that were given the blob; the last one first. */
  places: string[];
}

/** What a layer's bytes follow from, beside the versions of the libraries that make them. */
export interface LayerKeyFacts {
  chainId: string;
  virtualSizeBytes: number;
  fsType: string;
  algorithm: string;
  blockBytes: number;
  /** Digest of the layer below all, null when the first layer brings the file system. */
  baseDigest: string | null;
}

/** Changes whenever this program would make other layers of the same facts. */
const FORMAT_VERSION = 1;

/** Names a converted layer before it is made. */
export function layerKey(facts: LayerKeyFacts): string {
  const { chainId, virtualSizeBytes, fsType, algorithm, blockBytes, baseDigest } = facts;
  const all = [
    FORMAT_VERSION,
    chainId,
    virtualSizeBytes,
    fsType,
    algorithm,
    blockBytes,
    baseDigest,
  ];
  return digestHex(digestOf(Buffer.from(JSON.stringify(all))));
}

/**
 * Converted layers by what they were made of:
 *
 *   <folder>/layers/<key>.json   a layer's record
 *   <folder>/blobs/<hex>         its blob
 *
 * Files appear under their names whole, a record after its blob; nothing found there is believed
 * before its digest was checked. Whoever uses a blob links it into its own folder first. So any
 * number of processes may use a cache, and each may be killed at any time.
 */
export class LayerCache {
  readonly #layers: string;
  readonly #blobs: string;
  readonly #quotaBytes: number;

  private constructor(folder: string, quotaBytes: number) {
    this.#layers = join(folder, 'layers');
    this.#blobs = join(folder, 'blobs');
    this.#quotaBytes = quotaBytes;
  }

  /** Makes the folder where it is missing. */
  static async open(folder: string, quotaBytes: number): Promise<LayerCache> {
    const cache = new LayerCache(folder, quotaBytes);
    await mkdir(cache.#layers, { recursive: true });
    await mkdir(cache.#blobs, { recursive: true });
    return cache;
  }

  /** The layer of that key, linked into `folder`; null when there is none that is sound. */
  async find(key: string, folder: string): Promise<StoredLayer | null> {
    const record = parseRecord(await this.#readRecord(key));
    if (record === null) return null;
    const hex = digestHex(record.digest);
    const blob = join(this.#blobs, hex);
    const path = join(folder, hex);
    try {
      await linkAnew(blob, path);
      if ((await stat(path)).size === record.sizeBytes && (await sha256Of(path)) === hex) {
        const now = new Date();
        await Promise.all([blob, this.#recordPath(key)].map((used) => utimes(used, now, now)));
        return { ...record, path };
      }
      await rm(blob, { force: true });
    } catch (error) {
      if (codeOf(error) !== 'ENOENT') throw error;
    }
    return null;
  }

  /** Keeps a layer that was made in `folder`, where its blob stays. */
  async put(key: string, layer: LayerFile, folder: string): Promise<StoredLayer> {
    const { path, digest, sizeBytes, dataBytes } = layer;
    const offered = join(folder, `${key}.offered`);
    await linkAnew(path, offered);
    await rename(offered, join(this.#blobs, digestHex(digest)));
    // Between two links of one file, rename does nothing at all.
    await rm(offered, { force: true });
    const stored = { path, digest, sizeBytes, dataBytes, places: [] };
    await this.#writeRecord(key, stored);
    return stored;
  }

  /** Remembers where a layer's blob can be mounted from. */
  async addPlace(key: string, layer: StoredLayer, place: string): Promise<void> {
    const others = layer.places.filter((known) => known !== place);
    if (layer.places[0] === place) return;
    layer.places = [place, ...others].slice(0, convertLimits.placesMax);
    await this.#writeRecord(key, layer);
  }

  /** Removes what was not used for longest, until the rest fits the quota. */
  async trim(): Promise<void> {
    const blobs = await this.#listBlobs();
    blobs.sort((a, b) => b.usedMs - a.usedMs);
    let keptBytes = 0;
    const gone = new Set<string>();
    for (const { hex, sizeBytes } of blobs) {
      keptBytes += sizeBytes;
      if (keptBytes > this.#quotaBytes) gone.add(hex);
    }
    if (gone.size === 0) return;
    for (const hex of gone) await rm(join(this.#blobs, hex), { force: true });
    for (const name of await readdir(this.#layers)) {
      const record = parseRecord(await this.#readRecord(name.replace(/\.json$/, '')));
      const isLost = record === null || gone.has(digestHex(record.digest));
      if (isLost) await rm(join(this.#layers, name), { force: true });
    }
  }

  async #listBlobs(): Promise<{ hex: string; sizeBytes: number; usedMs: number }[]> {
    const found = [];
    for (const hex of await readdir(this.#blobs)) {
      try {
        const { size, mtimeMs } = await stat(join(this.#blobs, hex));
        found.push({ hex, sizeBytes: size, usedMs: mtimeMs });
      } catch (error) {
        if (codeOf(error) !== 'ENOENT') throw error;
      }
    }
    return found;
  }

  async #readRecord(key: string): Promise<Uint8Array | null> {
    const path = this.#recordPath(key);
    try {
      const { size } = await stat(path);
      return size > convertLimits.recordBytesMax ? null : await readFile(path);
    } catch (error) {
      if (codeOf(error) === 'ENOENT') return null;
      throw error;
    }
  }

  async #writeRecord(key: string, layer: StoredLayer): Promise<void> {
    const { digest, sizeBytes, dataBytes, places } = layer;
    const record = JSON.stringify({ digest, sizeBytes, dataBytes, places });
    await writeFileAtomic(this.#recordPath(key), Buffer.from(record));
  }

  #recordPath(key: string): string {
    return join(this.#layers, `${key}.json`);
  }
}

/** Null for anything that is no record: the layer is then made again. */
function parseRecord(bytes: Uint8Array | null): Omit<StoredLayer, 'path'> | null {
  const json = bytes === null ? null : parseJsonObject(bytes);
  if (!isObject(json)) return null;
  const { digest, sizeBytes, dataBytes, places } = json;
  if (typeof digest !== 'string' || !isDigest(digest)) return null;
  if (!isCount(sizeBytes) || !isCount(dataBytes) || !Array.isArray(places)) return null;
  const texts = places.filter((place) => typeof place === 'string');
  return { digest, sizeBytes, dataBytes, places: texts.slice(0, convertLimits.placesMax) };
}

function isCount(value: unknown): value is number {
  return typeof value === 'number' && Number.isSafeInteger(value) && value >= 0;
}

/** A second name for a file, in the place of what may have it. */
async function linkAnew(from: string, to: string): Promise<void> {
  await rm(to, { force: true });
  await link(from, to);
}

async function sha256Of(path: string): Promise<string> {
  const hash = createHash('sha256');
  for await (const chunk of createReadStream(path, { highWaterMark: 1024 * 1024 })) {
    hash.update(chunk as Buffer);
  }
  return hash.digest('hex');
}
