import assert from 'node:assert/strict';
import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import PQueue from 'p-queue';
import { ReplaybdError } from '../../base/errors.ts';
import { convertLimits } from '../../base/limits.ts';
import { applyLayer } from '../apply/apply-layer.ts';
import { writeLayerFile } from '../build/layer-file.ts';
import { chainUuid } from './chain-id.ts';
import type { ConvertContext } from './context.ts';
import { FlatDisk, type Change } from './flat-disk.ts';
import type { StoredLayer } from './layer-cache.ts';
import { LayerStream } from './layer-stream.ts';
import type { PlannedImage, PlannedLayer, SourceLayer } from './plan-image.ts';
import type { PutOutcome } from './target.ts';

/** A layer of a converted image. */
export interface ConvertedLayer {
  digest: string;
  sizeBytes: number;
  /** Data it holds, uncompressed. */
  dataBytes: number;
  /** Digest of the source's tar; null for a base layer, which has none. */
  diffId: string | null;
  from: 'converted' | 'cache' | 'base';
  /** How it came to the target. */
  put: PutOutcome;
}

/**
 * Converts the layers of one image and gives each to the target when it is ready; the bottom first.
 * Layers are fetched ahead of the one that is applied, and committed and pushed behind it. Errors:
 * those of applying, of the formats, of source, target and cache; nothing goes on after one.
 */
export async function convertLayers(
  context: ConvertContext,
  image: PlannedImage,
): Promise<ConvertedLayer[]> {
  const stop = new AbortController();
  const signal = AbortSignal.any([context.signal, stop.signal]);
  const folder = join(context.workFolder, image.id);
  await mkdir(folder);
  await using run = new ImageRun({ ...context, signal }, image, folder, stop);
  return await run.convert();
}

class ImageRun implements AsyncDisposable {
  readonly #context: ConvertContext;
  readonly #image: PlannedImage;
  readonly #folder: string;
  readonly #stop: AbortController;
  readonly #pushes = new PQueue({ concurrency: convertLimits.pushesMax });
  readonly #results: ConvertedLayer[] = [];
  readonly #background: Promise<void>[] = [];
  readonly #streams = new Map<SourceLayer, LayerStream>();
  readonly #stored: (StoredLayer | null)[] = [];
  #disk: FlatDisk | null = null;
  /** Layers that the disk holds, from the bottom; the base layer is one. */
  #level = 0;
  #committing: Promise<void> = Promise.resolve();

  constructor(context: ConvertContext, image: PlannedImage, folder: string, stop: AbortController) {
    this.#context = context;
    this.#image = image;
    this.#folder = folder;
    this.#stop = stop;
  }

  async convert(): Promise<ConvertedLayer[]> {
    const { layers } = this.#image;
    const missing: number[] = [];
    for (const [position, layer] of layers.entries()) {
      const found = await this.#find(layer);
      this.#stored[position] = found;
      if (found === null) missing.push(position);
      else this.#publish(position, found, layer.input === null ? 'base' : 'cache');
    }
    for (const [turn, position] of missing.entries()) {
      const ahead = missing.slice(turn, turn + 1 + convertLimits.layersAhead);
      for (const next of ahead) await this.#openStream(layers[next]);
      await this.#convertOne(position, turn + 1 === missing.length);
    }
    await this.#committing;
    await this.#pushes.onIdle();
    await Promise.all(this.#background);
    return this.#results;
  }

  /** Everything that runs has ended afterwards. */
  async [Symbol.asyncDispose](): Promise<void> {
    // What waits for its turn to be pushed then fails at once.
    this.#stop.abort();
    await Promise.allSettled([this.#committing, this.#pushes.onIdle(), ...this.#background]);
    await Promise.all([...this.#streams.values()].map((stream) => stream[Symbol.asyncDispose]()));
    this.#disk?.[Symbol.dispose]();
  }

  async #find(layer: PlannedLayer): Promise<StoredLayer | null> {
    this.#context.signal.throwIfAborted();
    return layer.stored ?? (await this.#context.cache.find(layer.key, this.#folder));
  }

  async #openStream({ input }: PlannedLayer): Promise<void> {
    if (input === null || this.#streams.has(input)) return;
    const { source, progress, signal } = this.#context;
    const { descriptor, compression, diffId } = input;
    const stream = new LayerStream({
      name: `${source.name}: ${descriptor.digest}`,
      input: await source.layer(descriptor),
      compression,
      diffId,
      workFolder: this.#folder,
      onBytes: (bytes) => progress.fetched(bytes),
      signal,
    });
    this.#streams.set(input, stream);
  }

  async #convertOne(position: number, isLast: boolean): Promise<void> {
    const { input } = this.#image.layers[position];
    assert(input !== null, 'a base layer needs no converting');
    const { progress, signal } = this.#context;
    const stream = this.#streams.get(input);
    assert(stream !== undefined, 'streams are opened before their turn');
    const disk = await this.#diskAt(position);
    let seenBytes = 0;
    const applying = applyLayer({
      imagePath: disk.path,
      tar: stream.tar(),
      onProgress: ({ bytes }) => {
        progress.applied(bytes - seenBytes);
        seenBytes = bytes;
      },
      signal,
    });
    const { dirty } = await applying.catch((error: unknown) => {
      throw namingLayer(error, `${this.#context.source.name}: ${input.descriptor.digest}`);
    });
    this.#streams.delete(input);
    await stream[Symbol.asyncDispose]();
    // The layer below is read from the state that is now to change.
    await this.#committing;
    const changes = await disk.commit(position === 0 ? null : dirty, isLast, signal);
    this.#level = position + 1;
    this.#committing = this.#commit(position, input, disk, changes);
    this.#watch(this.#committing);
  }

  /** The disk with all layers below `position`. */
  async #diskAt(position: number): Promise<FlatDisk> {
    const { settings, signal } = this.#context;
    const disk = (this.#disk ??= await FlatDisk.create(this.#folder, settings.virtualSizeBytes));
    if (position === 0) await disk.format(signal);
    if (this.#level < position) {
      await this.#committing;
      const paths = this.#stored.slice(this.#level, position).map((layer) => layer?.path ?? '');
      await disk.replay(paths, signal);
      this.#level = position;
    }
    return disk;
  }

  async #commit(
    position: number,
    input: SourceLayer,
    disk: FlatDisk,
    changes: readonly Change[],
  ): Promise<void> {
    const { settings, cache, progress, signal } = this.#context;
    const { layers } = this.#image;
    const parent = layers[position - 1]?.input ?? null;
    const extents = disk.committedExtents(changes, (bytes) => {
      signal.throwIfAborted();
      progress.committed(bytes);
    });
    const file = await writeLayerFile(
      this.#folder,
      {
        virtualSizeBytes: settings.virtualSizeBytes,
        uuid: chainUuid(input.chainId),
        parentUuid: parent === null ? null : chainUuid(parent.chainId),
        algorithm: settings.algorithm,
        blockBytes: settings.blockBytes,
        isDurable: this.#context.isDurable,
      },
      extents,
    );
    const stored = await cache.put(layers[position].key, file, this.#folder);
    this.#stored[position] = stored;
    this.#publish(position, stored, 'converted');
  }

  #publish(position: number, stored: StoredLayer, from: ConvertedLayer['from']): void {
    const { target, cache, progress, signal } = this.#context;
    const { key, input } = this.#image.layers[position];
    const pushing = this.#pushes.add(async () => {
      signal.throwIfAborted();
      const put = await target.putLayer(stored, signal);
      if (target.place !== null && from !== 'base') await cache.addPlace(key, stored, target.place);
      const { digest, sizeBytes, dataBytes } = stored;
      const diffId = input?.diffId ?? null;
      this.#results[position] = { digest, sizeBytes, dataBytes, diffId, from, put };
      progress.finished({ image: this.#image, position, layer: this.#results[position] });
    });
    this.#background.push(pushing);
    this.#watch(pushing);
  }

  /** The first failure ends the rest; it is reported where the work is awaited. */
  #watch(work: Promise<void>): void {
    work.catch((error: unknown) => this.#stop.abort(error));
  }
}

/** Applying a tar knows neither its layer nor how its disk came to its size. */
function namingLayer(error: unknown, name: string): unknown {
  if (!(error instanceof ReplaybdError) || !/^ERR_(?:APPLY|TAR|EXT4)_/.test(error.code)) {
    return error;
  }
  const isFull = error.code === 'ERR_EXT4_FULL' || error.code === 'ERR_APPLY_SIZE';
  const advice = isFull ? ' Choose a larger disk with --vsize.' : '';
  return new ReplaybdError(error.code, `${name}: ${error.message}${advice}`, {
    cause: error,
    errno: error.errno,
  });
}
