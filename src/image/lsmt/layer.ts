import { lsmtLimits, SECTOR_BYTES } from '../../base/limits.ts';
import { formatError } from '../../base/errors.ts';
import type { ByteRange } from '../../base/range.ts';
import type { LayerBytes } from '../layer-bytes.ts';
import {
  flagsError,
  LSMT_BLOCK_BYTES,
  LSMT_ENTRY_BYTES,
  parseLsmtBlock,
  type LsmtBlock,
} from './format.ts';
import { parseSortedEntries, type LsmtEntryColumns } from './index-entries.ts';

/**
 * committed      header 0x07: written in LBA order, nothing superseded kept
 * merged         committed from several layers: its entries carry the sources' numbers
 * sealed         header 0x03: a writable layer's log of data with an index put behind it
 * sealed-sparse  header 0x13: a sparse writable layer with an index put behind it
 */
export type LsmtKind = 'committed' | 'merged' | 'sealed' | 'sealed-sparse';

/** What a layer says of itself, and what its index adds up to. */
export interface LsmtFacts {
  readonly kind: LsmtKind;
  /** Upper-case text; null when the layer has none. */
  readonly uuid: string | null;
  readonly parentUuid: string | null;
  /** The commit message. */
  readonly userTag: string;
  /** Whole sectors; 0 when the layer states none. */
  readonly virtualSizeBytes: number;
  /** Entries without padding, zeroed ones included. */
  readonly entries: number;
  readonly zeroedEntries: number;
  /** Sectors of the disk that the layer's data serves. */
  readonly dataSectors: number;
}

/** A read-only layer's index: which sectors of the disk it has, and where in its file. */
export interface LsmtLayer extends LsmtEntryColumns {
  /** File path or URL, for messages. */
  readonly name: string;
  readonly facts: LsmtFacts;
  /** Ranges of the LSMT file that opening it reads: header, index, trailer. */
  readonly metadataRanges: readonly ByteRange[];
}

/** A layer without its index. */
export type LsmtSummary = Pick<LsmtLayer, 'name' | 'facts' | 'metadataRanges'>;

/**
 * Opens a read-only layer of any kind and checks it as the original does (file.cpp verify_ht,
 * do_load_index, create_memory_index), except that it takes four times the index entries.
 * Errors: ERR_LSMT_MAGIC, _SIZE, _FLAGS, _ENTRIES, _INDEX, _ORDER, _MAPPED, _RANGE.
 */
export async function openLsmtLayer(bytes: LayerBytes): Promise<LsmtLayer> {
  const { name, sizeBytes } = bytes;
  if (sizeBytes < 2 * LSMT_BLOCK_BYTES) {
    throw formatError('ERR_LSMT_SIZE', {
      name,
      structure: 'LSMT file',
      expected: `at least ${2 * LSMT_BLOCK_BYTES} bytes`,
      found: String(sizeBytes),
    });
  }
  const trailerOffset = sizeBytes - LSMT_BLOCK_BYTES;
  const [headerBytes, trailerBytes] = await Promise.all([
    bytes.read(0, LSMT_BLOCK_BYTES),
    bytes.read(trailerOffset, LSMT_BLOCK_BYTES),
  ]);
  const header = parseLsmtBlock(headerBytes, name, 'LSMT header');
  if (!header.isHeader || !header.isData) {
    throw flagsError(name, 'LSMT header', 'the header of a data file', header);
  }
  const trailer = parseLsmtBlock(trailerBytes, name, 'LSMT trailer');
  if (trailer.isHeader || !trailer.isData || !trailer.isSealed) {
    throw flagsError(name, 'LSMT trailer', 'the trailer of a sealed data file', trailer);
  }

  const index = indexRange(trailer, trailerOffset, name);
  const indexBytes = await bytes.read(index.offset, index.length);
  const columns = parseSortedEntries(indexBytes, Math.floor(index.offset / SECTOR_BYTES), name);
  return {
    ...columns,
    name,
    facts: factsOf(header, trailer, columns),
    metadataRanges: [
      { offset: 0, length: LSMT_BLOCK_BYTES },
      ...(index.length > 0 ? [index] : []),
      { offset: trailerOffset, length: LSMT_BLOCK_BYTES },
    ],
  };
}

function indexRange(trailer: LsmtBlock, trailerOffset: number, name: string): ByteRange {
  const { indexOffset, indexCount } = trailer;
  if (indexCount > lsmtLimits.entriesMax) {
    throw formatError('ERR_LSMT_ENTRIES', {
      name,
      structure: 'LSMT trailer',
      expected: `at most ${lsmtLimits.entriesMax} index entries`,
      found: String(indexCount),
    });
  }
  const length = indexCount * LSMT_ENTRY_BYTES;
  if (indexOffset < LSMT_BLOCK_BYTES || indexOffset + length > trailerOffset) {
    throw formatError('ERR_LSMT_INDEX', {
      name,
      structure: 'LSMT trailer',
      expected: `an index inside [${LSMT_BLOCK_BYTES}, ${trailerOffset})`,
      found: `[${indexOffset}, ${indexOffset + length})`,
    });
  }
  return { offset: indexOffset, length };
}

function factsOf(header: LsmtBlock, trailer: LsmtBlock, columns: LsmtEntryColumns): LsmtFacts {
  let zeroedEntries = 0;
  let dataSectors = 0;
  for (let entry = 0; entry < columns.count; entry += 1) {
    if (columns.zeroed[entry] === 1) zeroedEntries += 1;
    else dataSectors += columns.sectors[entry];
  }
  return {
    kind: kindOf(header, columns.hasTags),
    uuid: trailer.uuid,
    parentUuid: trailer.parentUuid,
    userTag: trailer.userTag,
    virtualSizeBytes: trailer.virtualSizeBytes - (trailer.virtualSizeBytes % SECTOR_BYTES),
    entries: columns.count,
    zeroedEntries,
    dataSectors,
  };
}

function kindOf(header: LsmtBlock, hasTags: boolean): LsmtKind {
  if (header.isSparse) return 'sealed-sparse';
  if (!header.isSealed) return 'sealed';
  return hasTags ? 'merged' : 'committed';
}
