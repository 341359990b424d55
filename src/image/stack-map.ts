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
 * The merged index over SharedArrayBuffers: segments that are sorted, do not overlap, and leave out
 * what no layer has (it reads as zeros). What a lookup touches at random decides its speed, so each
 * column is as narrow as its disk allows: 14 bytes a segment below 2 TiB.
 *
 *              bucket 0        bucket 1        bucket 2        bucketSectors each
 *   disk     [--0--)  [----1--:--)  [--2--)   :   [--------3-----:--)
 *   radix      0               1               3               3      4 = segmentCount
 *   last          ^            :  ^        ^  :                :  ^
 *
 * A segment belongs to the bucket that its last sector is in; bucket `b` has those from `radix[b]`
 * up to `radix[b + 1]`, and `last` tells where in the bucket each one ends. So a search needs no
 * column but `last`, and what it finds is the first segment that ends after the sector searched.
 */
export interface MergedIndexMap {
  readonly segmentCount: number;
  /** First sector of each segment. */
  readonly start: SectorColumn;
  readonly sectors: Uint16Array<SharedArrayBuffer>;
  /** Sector of the layer's LSMT file where the segment's data begins. */
  readonly mapped: SectorColumn;
  /** Layer number (0 = bottom), or ZERO_LAYER for a segment that reads as zeros. */
  readonly layer: Uint16Array<SharedArrayBuffer>;
  /** The segment's last sector, counted from the start of its bucket. */
  readonly last: Uint16Array<SharedArrayBuffer> | Uint32Array<SharedArrayBuffer>;
  /** Of each bucket, the first segment that ends in it or after it; then the segment count. */
  readonly radix: Int32Array<SharedArrayBuffer>;
  /** Sectors a bucket covers: a power of two, at most 2^32. */
  readonly bucketSectors: number;
  /** 1 / bucketSectors, which is exact. */
  readonly bucketsPerSector: number;
}

/** Sector numbers: doubles, exact to 2^53, where 32 bits are too few. */
export type SectorColumn = Uint32Array<SharedArrayBuffer> | Float64Array<SharedArrayBuffer>;

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
