import { SECTOR_BYTES } from '../base/limits.ts';
import type { OpenedInput } from './input.ts';
import type { LsmtKind } from './lsmt/layer.ts';
import { sumMergedIndex } from './lsmt/merged-index.ts';
import type { IndexedLayer } from './stack.ts';

/** What there is to know about one layer. Sizes are bytes. */
export interface LayerReport {
  name: string;
  kind: LsmtKind;
  uuid: string | null;
  parentUuid: string | null;
  userTag: string;
  virtualSizeBytes: number;
  /** Of the blob, as the registry stores it. */
  blobBytes: number;
  tarWrapper: boolean;
  compression: 'none' | 'lz4' | 'zstd';
  /** Uncompressed bytes of a compression block; null without compression. */
  blockBytes: number | null;
  blockChecksums: boolean | null;
  /** Of the LSMT file, uncompressed. */
  lsmtBytes: number;
  /** lsmtBytes / blobBytes. */
  compressionRatio: number;
  index: IndexReport;
  /** Blob bytes that opening the layer reads. */
  metadataBytes: number;
}

export interface IndexReport {
  entries: number;
  zeroedEntries: number;
  dataBytes: number;
  zeroedBytes: number;
  /** Of entries with data; 0 when there are none. */
  entryBytesMedian: number;
  entryBytesMax: number;
}

/** What the layers make together. */
export interface ImageReport {
  layers: LayerReport[];
  merged: {
    virtualSizeBytes: number;
    segments: number;
    /** Bytes of the disk that each layer serves, bottom first; the upper, if any, is last. */
    servedBytes: number[];
    zeroedBytes: number;
    /** Bytes that no layer has. */
    holeBytes: number;
  };
  /** The configuration's writable layer. */
  upper: { name: string; kind: string; virtualSizeBytes: number; entries: number } | null;
}

/** Sums up what is open; reads nothing but indexes. */
export function inspectInput({ stack, upper, source }: OpenedInput): ImageReport {
  const { index, virtualSizeBytes } = source;
  const layerCount = stack.layers.length + (upper === null ? 0 : 1);
  const sums = sumMergedIndex(index, layerCount);
  const servedBytes = sums.dataSectors.map((sectors) => sectors * SECTOR_BYTES);
  const zeroedBytes = sums.zeroSectors * SECTOR_BYTES;
  const coveredBytes = servedBytes.reduce((sum, bytes) => sum + bytes, zeroedBytes);
  return {
    layers: stack.layers.map(reportLayer),
    merged: {
      virtualSizeBytes,
      segments: index.segmentCount,
      servedBytes,
      zeroedBytes,
      holeBytes: virtualSizeBytes - coveredBytes,
    },
    upper:
      upper === null
        ? null
        : {
            name: upper.name,
            kind: upper.kind,
            virtualSizeBytes: upper.virtualSizeBytes,
            entries: upper.count,
          },
  };
}

function reportLayer({ blob, container, lsmt, metadataRanges }: IndexedLayer): LayerReport {
  const { kind, uuid, parentUuid, userTag, virtualSizeBytes } = lsmt.facts;
  const { map, facts } = container;
  return {
    name: blob.name,
    kind,
    uuid,
    parentUuid,
    userTag,
    virtualSizeBytes,
    blobBytes: blob.sizeBytes,
    tarWrapper: facts.hasTarWrapper,
    compression: map.codec === 'raw' ? 'none' : map.codec,
    blockBytes: map.zfile?.blockBytes ?? null,
    blockChecksums: map.zfile?.hasBlockCrc ?? null,
    lsmtBytes: map.lsmtSizeBytes,
    compressionRatio: map.lsmtSizeBytes / blob.sizeBytes,
    index: reportIndex(lsmt),
    metadataBytes: metadataRanges.reduce((sum, range) => sum + range.length, 0),
  };
}

function reportIndex({ count, sectors, zeroed, facts }: IndexedLayer['lsmt']): IndexReport {
  const dataSectors = sectors.filter((_, entry) => zeroed[entry] === 0).sort();
  const allSectors = sectors.subarray(0, count).reduce((sum, length) => sum + length, 0);
  return {
    entries: facts.entries,
    zeroedEntries: facts.zeroedEntries,
    dataBytes: facts.dataSectors * SECTOR_BYTES,
    zeroedBytes: (allSectors - facts.dataSectors) * SECTOR_BYTES,
    entryBytesMedian: (dataSectors.at(dataSectors.length >> 1) ?? 0) * SECTOR_BYTES,
    entryBytesMax: (dataSectors.at(-1) ?? 0) * SECTOR_BYTES,
  };
}
