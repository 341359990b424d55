import type { Descriptor, ImageIndex, ImageManifest } from '../../registry/manifest.ts';
import type { StoredLayer } from './layer-cache.ts';

/** How a blob came to where it was wanted. */
export type PutOutcome = 'present' | 'mounted' | 'uploaded';

/** A manifest or index that is ready. */
export interface FinishedObject {
  descriptor: Descriptor;
  /** What the descriptor is of. */
  bytes: Buffer;
  manifest: ImageManifest | ImageIndex;
}

/** Where a converted image goes. Blobs come before the manifests that name them. */
export interface ImageTarget {
  /** The repository that is given blobs, `host/name`; null when it is none. */
  readonly place: string | null;
  putLayer(layer: StoredLayer, signal: AbortSignal): Promise<PutOutcome>;
  putConfig(descriptor: Descriptor, bytes: Buffer, signal: AbortSignal): Promise<void>;
  /** `isRoot` is the last: what the target's name then stands for. */
  putManifest(object: FinishedObject, isRoot: boolean): Promise<void>;
}

/** Takes everything and keeps nothing. */
export function dryTarget(): ImageTarget {
  return {
    place: null,
    putLayer: () => Promise.resolve('present'),
    putConfig: () => Promise.resolve(),
    putManifest: () => Promise.resolve(),
  };
}
