import type { ZFileAlgorithm } from '../zfile/format.ts';
import type { ConvertedLayer } from './convert-image.ts';
import type { LayerCache } from './layer-cache.ts';
import type { PlannedImage } from './plan-image.ts';
import type { ImageSource } from './source.ts';
import type { ImageTarget } from './target.ts';

/** What decides about the layers that are made. */
export interface LayerSettings {
  /** Of the disk; a multiple of 4 KiB. */
  virtualSizeBytes: number;
  algorithm: ZFileAlgorithm;
  /** Of a ZFile block. */
  blockBytes: number;
}

/** Told how a conversion proceeds. */
export interface ConvertProgress {
  /** An image begins, with what is to be fetched of it at most. */
  begun(image: PlannedImage): void;
  /** Stored bytes of source layers arrived. */
  fetched(bytes: number): void;
  /** Content of files was stored. */
  applied(bytes: number): void;
  /** Data of changed blocks was compressed. */
  committed(bytes: number): void;
  /** A layer is where it belongs. */
  finished(done: { image: PlannedImage; position: number; layer: ConvertedLayer }): void;
}

/** What converting one image needs of its surroundings. */
export interface ConvertContext {
  source: ImageSource;
  target: ImageTarget;
  cache: LayerCache;
  /** On the cache's file system. */
  workFolder: string;
  settings: LayerSettings;
  /** Layers must survive the machine's sudden end: they stay where they are made. */
  isDurable: boolean;
  progress: ConvertProgress;
  signal: AbortSignal;
}
