import type { RangeSource } from '../../blob/blob.ts';
import { ReplaybdError, type ErrorCode } from '../../base/errors.ts';
import type { Descriptor, ImageIndex, ImageManifest } from '../../registry/manifest.ts';

/** A manifest or index of a source, and what names it there. */
export interface SourceObject {
  /** Of the exact bytes that the source has. */
  descriptor: Descriptor;
  manifest: ImageManifest | ImageIndex;
}

/** Where a layer's stored bytes are; they are not verified yet. */
export type LayerInput =
  | { kind: 'file'; path: string; offset: number; sizeBytes: number; digest: string | null }
  | { kind: 'remote'; ranges: RangeSource; sizeBytes: number; digest: string };

/** An image, or an index of several, that is to be converted. */
export interface ImageSource {
  /** For messages. */
  readonly name: string;
  /** What the source's name stands for, its digest verified. */
  root(signal?: AbortSignal): Promise<SourceObject>;
  /** An entry of the root when that is an index, its digest verified. */
  child(descriptor: Descriptor, signal?: AbortSignal): Promise<SourceObject>;
  /** A configuration, its digest verified. */
  config(descriptor: Descriptor): Promise<Uint8Array>;
  layer(descriptor: Descriptor): Promise<LayerInput>;
}

/** An error about an image that is to be converted. */
export function sourceError(code: ErrorCode, message: string, cause?: unknown): ReplaybdError {
  return new ReplaybdError(code, message, {
    errno: 'EINVAL',
    ...(cause === undefined ? {} : { cause }),
  });
}
