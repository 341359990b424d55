import { formatError, type ErrorCode, type ReplaybdError } from '../../base/errors.ts';
import { zfileLimits } from '../../base/limits.ts';
import type { ByteRange } from '../../base/range.ts';
import type { BlobReader } from '../blob-reader.ts';
import type { ZFileMap } from '../stack-map.ts';
import {
  algorithms,
  BLOCK_CRC_BYTES,
  isBlockSize,
  JUMP_ENTRY_BYTES,
  parseRecord,
  RECORD_BYTES,
  type ZFileAlgorithm,
  type ZFileRecord,
} from './format.ts';
import { loadJumpTable } from './jump-table.ts';

/** What a ZFile says of itself. */
export interface ZFileFacts {
  readonly algorithm: ZFileAlgorithm;
  readonly blockBytes: number;
  readonly blockCount: number;
  readonly originalBytes: number;
  /** Size of the ZFile. */
  readonly storedBytes: number;
  readonly hasBlockCrc: boolean;
  /** Header, trailer and jump table carry CRCs. */
  readonly hasDigest: boolean;
  /** The header alone describes the file. */
  readonly isHeaderOverwritten: boolean;
}

export interface OpenedZFile {
  readonly map: ZFileMap;
  readonly facts: ZFileFacts;
}

/**
 * Opens the ZFile in `payload`, a range of the reader's blob: three reads (header, trailer unless
 * the header was overwritten, jump table), every field checked. What the original accepts and is
 * nevertheless wrong (a trailer whose digest does not match, tables that leave the file) is
 * refused. Errors: ERR_ZFILE_* naming the blob and the structure.
 */
export async function openZFile(reader: BlobReader, payload: ByteRange): Promise<OpenedZFile> {
  const { name } = reader.blob;
  const refuse: Refuse = (code, structure, expected, found) =>
    formatError(code, { name, structure, expected, found }, REFETCH_HINT);
  if (payload.length < RECORD_BYTES) {
    throw refuse('ERR_ZFILE_SIZE', 'ZFile', `at least ${RECORD_BYTES} bytes`, `${payload.length}`);
  }
  const record = await readFacts(reader, payload, refuse);
  const algorithm = checkCoding(record, refuse);
  checkPlacement(record, payload.length, refuse);
  const crcBytes = record.hasBlockCrc ? BLOCK_CRC_BYTES : 0;
  const tableOffset = payload.offset + record.jumpTableOffset;
  const table = await readTable(
    reader,
    tableOffset,
    record.blockCount * JUMP_ENTRY_BYTES,
    (bytes) =>
      loadJumpTable(bytes, payload.offset + RECORD_BYTES, {
        min: crcBytes + 1,
        max: record.blockBytes + zfileLimits.expansionBytesMax + crcBytes,
      }),
  );
  if (record.hasDigest && table.crc !== record.jumpTableCrc) {
    const found = `0x${table.crc.toString(16)}`;
    const expected = `CRC 0x${record.jumpTableCrc.toString(16)}`;
    throw refuse('ERR_ZFILE_TABLE_CHECKSUM', 'ZFile jump table', expected, found);
  }
  if (table.firstBad !== null) {
    const { block, storedBytes } = table.firstBad;
    const expected = `a stored length that a ${record.blockBytes}-byte block can have`;
    const found = `${storedBytes} for block ${block}`;
    throw refuse('ERR_ZFILE_TABLE', 'ZFile jump table', expected, found);
  }
  if (table.end !== tableOffset) {
    const found = `${table.end - payload.offset}`;
    const expected = `blocks up to byte ${record.jumpTableOffset}`;
    throw refuse('ERR_ZFILE_TABLE', 'ZFile jump table', expected, found);
  }
  const { blockBytes, blockCount, hasBlockCrc, hasDigest, originalBytes } = record;
  const { groupBase, withinGroup } = table;
  return {
    map: { blockBytes, blockCount, hasBlockCrc, groupBase, withinGroup },
    facts: {
      algorithm,
      blockBytes,
      blockCount,
      originalBytes,
      storedBytes: payload.length,
      hasBlockCrc,
      hasDigest,
      isHeaderOverwritten: record.isHeader,
    },
  };
}

type Refuse = (
  code: ErrorCode,
  structure: string,
  expected: string,
  found: string,
) => ReplaybdError;

const REFETCH_HINT = 'The file is damaged or incomplete: compare its sha256 with its digest.';

/** The record that describes the jump table. */
async function readFacts(
  reader: BlobReader,
  payload: ByteRange,
  refuse: Refuse,
): Promise<ZFileRecord> {
  const { name } = reader.blob;
  const header = parseRecord(await reader.read(payload.offset, RECORD_BYTES), name, 'ZFile header');
  if (!header.isHeader || !header.isData) {
    throw refuse('ERR_ZFILE_RECORD', 'ZFile header', 'the flags of a data file header', 'others');
  }
  if (header.isOverwritten) return header;
  if (payload.length < 2 * RECORD_BYTES) {
    throw refuse('ERR_ZFILE_SIZE', 'ZFile', 'a header and a trailer', `${payload.length} bytes`);
  }
  const trailerOffset = payload.offset + payload.length - RECORD_BYTES;
  const trailer = parseRecord(
    await reader.read(trailerOffset, RECORD_BYTES),
    name,
    'ZFile trailer',
  );
  if (trailer.isHeader || !trailer.isData || !trailer.isSealed) {
    throw refuse('ERR_ZFILE_RECORD', 'ZFile trailer', 'the flags of a sealed trailer', 'others');
  }
  return trailer;
}

/** What the blocks are: codec, block size, no dictionary. */
function checkCoding(record: ZFileRecord, refuse: Refuse): ZFileAlgorithm {
  const { blockBytes, dictionaryBytes } = record;
  const { blockBytesMin, blockBytesMax } = zfileLimits;
  if (record.hasCompressedTable) {
    throw refuse('ERR_ZFILE_UNSUPPORTED', 'ZFile', 'a plain jump table', 'a compressed one');
  }
  if (dictionaryBytes !== 0) {
    throw refuse('ERR_ZFILE_UNSUPPORTED', 'ZFile', 'no dictionary', `${dictionaryBytes} bytes`);
  }
  if (!isBlockSize(blockBytes)) {
    const expected = `a power of two from ${blockBytesMin} to ${blockBytesMax} as block size`;
    throw refuse('ERR_ZFILE_RECORD', 'ZFile', expected, `${blockBytes}`);
  }
  if (record.algorithm === algorithms.lz4) return 'lz4';
  if (record.algorithm === algorithms.zstd) return 'zstd';
  const expected = 'algorithm 1 (LZ4) or 2 (zstd)';
  throw refuse('ERR_ZFILE_UNSUPPORTED', 'ZFile', expected, `${record.algorithm}`);
}

/** Where the jump table is: as many entries as the size needs, inside the file. */
function checkPlacement(record: ZFileRecord, storedBytes: number, refuse: Refuse): void {
  const { blockCount, blockBytes, jumpTableOffset, originalBytes } = record;
  if (blockCount > zfileLimits.blocksMax || blockCount !== Math.ceil(originalBytes / blockBytes)) {
    const expected = `the blocks of ${blockBytes} bytes that ${originalBytes} bytes make`;
    throw refuse('ERR_ZFILE_RECORD', 'ZFile', expected, `${blockCount}`);
  }
  const tableEnd = jumpTableOffset + blockCount * JUMP_ENTRY_BYTES;
  const tableEndMax = record.isHeader ? storedBytes : storedBytes - RECORD_BYTES;
  if (jumpTableOffset < RECORD_BYTES || tableEnd > tableEndMax) {
    const expected = `bytes ${RECORD_BYTES} to ${tableEndMax}`;
    throw refuse(
      'ERR_ZFILE_RECORD',
      'ZFile jump table',
      expected,
      `${jumpTableOffset} to ${tableEnd}`,
    );
  }
}

/** What `load` makes of the bytes at their last, undisturbed reading. */
async function readTable<T>(
  reader: BlobReader,
  offset: number,
  length: number,
  load: (bytes: Uint8Array) => T,
): Promise<T> {
  if (length === 0) return load(new Uint8Array(0));
  const results: T[] = [];
  await reader.visit(offset, length, (bytes) => {
    results[0] = load(bytes);
  });
  return results[0];
}
