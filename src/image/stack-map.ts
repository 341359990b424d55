import type { BlobMap } from '../blob/blob.ts';

/**
 * A merged stack of read-only layers as plain shareable data: any thread that receives a StackMap
 * by postMessage can answer reads of local bytes by itself.
 *
 *   LBA -> MergedIndexMap -> (layer, byte of its LSMT file) -> LayerMap -> ZFile block -> BlobMap
 */
export interface StackMap {
  readonly virtualSizeBytes: number;
  readonly index: MergedIndexMap;
  /** In the order of `lowers`: layer 0 is the bottom. */
  readonly layers: readonly LayerMap[];
}

/**
 * The merged index as sorted columns (structure of arrays) over SharedArrayBuffers, plus a radix
 * table: `radix[bucket]` is the first segment whose end lies beyond the bucket's first sector.
 * Segments are sorted, do not overlap, and leave out what no layer has (it reads as zeros).
 */
export interface MergedIndexMap {
  readonly segmentCount: number;
  /** First sector of each segment; exact to 2^53. */
  readonly start: Float64Array<SharedArrayBuffer>;
  readonly sectors: Uint32Array<SharedArrayBuffer>;
  /** Sector of the layer's LSMT file where the segment's data begins. */
  readonly mapped: Float64Array<SharedArrayBuffer>;
  /** Layer number (0 = bottom), or ZERO_LAYER for a segment that reads as zeros. */
  readonly layer: Uint16Array<SharedArrayBuffer>;
  readonly radix: Int32Array<SharedArrayBuffer>;
  /** Sectors a bucket covers: a power of two. */
  readonly bucketSectors: number;
}

export const ZERO_LAYER = 0xffff;

export type LayerCodec = 'raw' | 'lz4' | 'zstd';

/** One layer: how to find byte `o` of its LSMT file inside its blob. */
export interface LayerMap {
  readonly blob: BlobMap;
  /** For 'raw', LSMT byte `o` is blob byte `payloadOffset + o`. */
  readonly codec: LayerCodec;
  /** Where the tar wrapper's payload begins in the blob; 0 without a wrapper. */
  readonly payloadOffset: number;
  /** Size of the LSMT file, i.e. uncompressed. */
  readonly lsmtSizeBytes: number;
  /** Null for 'raw'. */
  readonly zfile: ZFileMap | null;
}

/** A ZFile's jump table. Block `i`'s stored bytes, CRC included, are
 * [blobOffset(i), blobOffset(i + 1)) with blobOffset(i) = groupBase[i >>> 12] + withinGroup[i]. */
export interface ZFileMap {
  readonly blockBytes: number;
  readonly blockCount: number;
  /** Each block is followed by a 4-byte CRC of its compressed bytes. */
  readonly hasBlockCrc: boolean;
  /** Absolute blob offset (tar wrapper included) of every 4,096th block. */
  readonly groupBase: Float64Array<SharedArrayBuffer>;
  /** blockCount + 1 entries. */
  readonly withinGroup: Uint32Array<SharedArrayBuffer>;
}

export const JUMP_TABLE_GROUP_SHIFT = 12;
