import assert from 'node:assert/strict';
import { join } from 'node:path';
import PQueue from 'p-queue';
import {
  isIndex,
  type Descriptor,
  type ImageIndex,
  type Platform,
} from '../../registry/manifest.ts';
import { readBaseLayer } from './base-layer.ts';
import type { ConvertContext, ConvertProgress, LayerSettings } from './context.ts';
import { convertLayers, type ConvertedLayer } from './convert-image.ts';
import { finishConfig, finishIndex, finishManifest, type ImageStyle } from './finish-image.ts';
import { LayerCache, type StoredLayer } from './layer-cache.ts';
import { planImage, type PlannedImage } from './plan-image.ts';
import { matchesPlatform, platformText, selectEntries, type SkippedEntry } from './platforms.ts';
import { sourceError, type ImageSource, type SourceObject } from './source.ts';
import type { FinishedObject, ImageTarget } from './target.ts';
import { lockedWorkFolder, temporaryWorkFolder } from './work-folder.ts';

export interface ConvertOptions {
  source: ImageSource;
  target: ImageTarget;
  settings: LayerSettings;
  style: ImageStyle;
  platform: Platform | 'all';
  /** A layer with an empty file system to put below all; null: the first layer brings it. */
  baseLayerPath: string | null;
  /** Images of an index that are converted at a time. */
  concurrency: number;
  /** Where converted layers are kept for later runs; null: nowhere. */
  cache: { folder: string; quotaBytes: number } | null;
  /** Where this run works when there is no cache; by default the folder for temporary files. */
  workParent?: string | undefined;
  /** The target keeps the files themselves: they have to be on disk before they are named. */
  isDurable: boolean;
  progress: ConvertProgress;
  signal: AbortSignal;
}

/** One image of the result. */
export interface ConvertedImage {
  platform: Platform;
  /** The source's manifest. */
  source: Descriptor;
  object: FinishedObject;
  layers: ConvertedLayer[];
}

export interface ConvertedRoot {
  /** A manifest, or an index when the source was one and all platforms were asked for. */
  root: FinishedObject;
  images: ConvertedImage[];
  skipped: SkippedEntry[];
}

/**
 * Converts an image, or every image of an index, to overlaybd images of as many layers, and gives
 * them to the target; what the target's name stands for changes last. Equal sources and settings
 * give equal images. Errors: ERR_CONVERT_*, and those of source, target, applying and the formats.
 */
export async function convert(options: ConvertOptions): Promise<ConvertedRoot> {
  const { source, cache: kept, signal } = options;
  await using work =
    kept === null
      ? await temporaryWorkFolder(options.workParent)
      : await lockedWorkFolder(join(kept.folder, 'runs'));
  const folder = kept?.folder ?? join(work.path, 'cache');
  const cache = await LayerCache.open(folder, kept?.quotaBytes ?? Infinity);
  const { baseLayerPath: path, settings } = options;
  const base =
    path === null ? null : await readBaseLayer(path, settings.virtualSizeBytes, work.path);
  const run = { options, base, context: { ...options, cache, workFolder: work.path } };
  const root = await source.root(signal);
  const result = isIndex(root.manifest)
    ? await convertIndex(run, root, root.manifest)
    : await convertSingle(run, root);
  await cache.trim();
  return result;
}

interface Run {
  options: ConvertOptions;
  base: StoredLayer | null;
  context: ConvertContext;
}

async function convertSingle(run: Run, root: SourceObject): Promise<ConvertedRoot> {
  const { source, platform } = run.options;
  const image = await planImage(source, root, run.options.settings, run.base);
  if (platform !== 'all' && !matchesPlatform(image.platform, platform)) {
    throw sourceError(
      'ERR_CONVERT_PLATFORM',
      `${source.name}: expected an image for ${platformText(platform)}, found one for ` +
        `${platformText(image.platform)}.`,
    );
  }
  const converted = await convertImage(run, image, true);
  return { root: converted.object, images: [converted], skipped: [] };
}

async function convertIndex(
  run: Run,
  root: SourceObject,
  index: ImageIndex,
): Promise<ConvertedRoot> {
  const { source, settings, platform, concurrency, signal, style, target } = run.options;
  const { images: entries, skipped } = selectEntries(source.name, index, platform);
  const isSingle = platform !== 'all' && entries.length === 1;
  const distinct = new Map(entries.map((entry) => [entry.digest, entry]));
  // All are read before the first is converted: what cannot be converted is said at once.
  const planned: PlannedImage[] = [];
  for (const entry of distinct.values()) {
    const object = await source.child(entry, signal);
    planned.push(await planImage(source, object, settings, run.base));
  }
  const images = await convertImages(run, planned, concurrency, isSingle);
  if (isSingle) return { root: images[0].object, images, skipped };
  const pairs = entries.map((original) => {
    const converted = images.find((image) => image.source.digest === original.digest);
    assert(converted !== undefined, 'every entry was converted');
    return { original, converted: converted.object.descriptor };
  });
  const object = finishIndex(root.descriptor, index, pairs, style);
  signal.throwIfAborted();
  await target.putManifest(object, true);
  return { root: object, images, skipped };
}

/** The first failure ends the others. */
async function convertImages(
  run: Run,
  planned: readonly PlannedImage[],
  concurrency: number,
  isRoot: boolean,
): Promise<ConvertedImage[]> {
  const stop = new AbortController();
  const signal = AbortSignal.any([run.context.signal, stop.signal]);
  const inner = { ...run, context: { ...run.context, signal } };
  const queue = new PQueue({ concurrency });
  const converting = planned.map((image) =>
    queue.add(async () => {
      signal.throwIfAborted();
      return convertImage(inner, image, isRoot);
    }),
  );
  for (const one of converting) one.catch((error: unknown) => stop.abort(error));
  await Promise.allSettled(converting);
  stop.signal.throwIfAborted();
  return Promise.all(converting);
}

async function convertImage(
  run: Run,
  image: PlannedImage,
  isRoot: boolean,
): Promise<ConvertedImage> {
  const { context, options } = run;
  const { target, progress, signal } = context;
  progress.begun(image);
  const layers = await convertLayers(context, image);
  const config = finishConfig(image, layers, options.style);
  await target.putConfig(config.descriptor, config.bytes, signal);
  const object = finishManifest(image, layers, config.descriptor, options.style);
  signal.throwIfAborted();
  await target.putManifest(object, isRoot);
  return { platform: image.platform, source: image.source, object, layers };
}
