import { crc32cRaw } from '../../base/crc32c.ts';
import { formatError } from '../../base/errors.ts';
import { zfileLimits } from '../../base/limits.ts';

/**
 * A ZFile (overlaybd's seekable compressed container), little-endian throughout:
 *
 *   [ header 512 ][ block 0 [crc 4] ] ... [ block n-1 [crc 4] ][ jump table: n x u32 ]
 *   [ trailer 512 ]
 *
 * Header and trailer have the same layout. The trailer always describes the jump table; the header
 * does when it was overwritten at the end of writing.
 */
export const RECORD_BYTES = 512;
export const JUMP_ENTRY_BYTES = 4;
export const BLOCK_CRC_BYTES = 4;
/** The register's start value for a block's CRC-32C, without inversions. */
export const BLOCK_CRC_SEED = 100_007;

/** 'ZFile\0\1\0tuji.yyf@Alibaba': both magic fields. */
const MAGIC = Buffer.from('ZFile\0\u0001\0tuji.yyf@Alibaba', 'latin1');
/** Bytes of the record that have a meaning. */
const STRUCT_BYTES = 96;
const DIGEST_OFFSET = 28;
const FLAGS_OFFSET = 32;

const flagBits = {
  header: 1 << 0,
  data: 1 << 1,
  sealed: 1 << 2,
  overwritten: 1 << 3,
  digest: 1 << 4,
  compressedTable: 1 << 5,
} as const;

export const algorithms = { lz4: 1, zstd: 2 } as const;
export type ZFileAlgorithm = keyof typeof algorithms;

/** A header or a trailer. */
export interface ZFileRecord {
  isHeader: boolean;
  isData: boolean;
  isSealed: boolean;
  /** A header that was rewritten with the final facts: the trailer is not needed. */
  isOverwritten: boolean;
  /** The record's digest and the jump table's CRC mean something; old writers left garbage. */
  hasDigest: boolean;
  /** Declared by the format; no known writer sets it. */
  hasCompressedTable: boolean;
  jumpTableOffset: number;
  blockCount: number;
  originalBytes: number;
  jumpTableCrc: number;
  blockBytes: number;
  /** 1 LZ4, 2 zstd; others are not supported. */
  algorithm: number;
  dictionaryBytes: number;
  hasBlockCrc: boolean;
}

/** Whether blocks may have this size: a power of two from 4 to 64 KiB. */
export function isBlockSize(bytes: number): boolean {
  const { blockBytesMin, blockBytesMax } = zfileLimits;
  return bytes >= blockBytesMin && bytes <= blockBytesMax && Number.isInteger(Math.log2(bytes));
}

/** Whether bytes begin as a ZFile does. */
export function hasZFileMagic(bytes: Uint8Array): boolean {
  return bytes.length >= MAGIC.length && MAGIC.equals(bytes.subarray(0, MAGIC.length));
}

/**
 * Parses one record. Bits and bytes without a meaning are ignored, since writers before 2022 left
 * them uninitialised. Errors: ERR_ZFILE_MAGIC, ERR_ZFILE_DIGEST, ERR_ZFILE_RECORD.
 */
export function parseRecord(bytes: Uint8Array, name: string, structure: string): ZFileRecord {
  if (bytes.length < RECORD_BYTES || !hasZFileMagic(bytes)) {
    const found = Buffer.from(bytes.subarray(0, 8)).toString('hex');
    throw formatError('ERR_ZFILE_MAGIC', {
      name,
      structure,
      expected: `magic ${MAGIC.toString('hex', 0, 8)}`,
      found: found === '' ? 'nothing' : found,
    });
  }
  const view = new DataView(bytes.buffer, bytes.byteOffset, RECORD_BYTES);
  const flags = view.getUint32(FLAGS_OFFSET, true);
  const hasDigest = (flags & flagBits.digest) !== 0;
  if (hasDigest) checkDigest(bytes, view.getUint32(DIGEST_OFFSET, true), name, structure);
  return {
    isHeader: (flags & flagBits.header) !== 0,
    isData: (flags & flagBits.data) !== 0,
    isSealed: (flags & flagBits.sealed) !== 0,
    isOverwritten: (flags & flagBits.overwritten) !== 0,
    hasDigest,
    hasCompressedTable: (flags & flagBits.compressedTable) !== 0,
    jumpTableOffset: readSize(view, 40),
    blockCount: readSize(view, 48),
    originalBytes: readSize(view, 56),
    jumpTableCrc: view.getUint32(64, true),
    blockBytes: view.getUint32(72, true),
    algorithm: view.getUint8(76),
    dictionaryBytes: view.getUint32(84, true),
    hasBlockCrc: view.getUint8(88) !== 0,
  };
}

/** The 512 bytes of a record, as the original's writers lay them out. */
export function serialiseRecord(record: ZFileRecord): Buffer {
  const bytes = Buffer.alloc(RECORD_BYTES);
  MAGIC.copy(bytes);
  bytes.writeUInt32LE(STRUCT_BYTES, MAGIC.length);
  bytes.writeUInt32LE(flagsOf(record), FLAGS_OFFSET);
  bytes.writeBigUInt64LE(BigInt(record.jumpTableOffset), 40);
  bytes.writeBigUInt64LE(BigInt(record.blockCount), 48);
  bytes.writeBigUInt64LE(BigInt(record.originalBytes), 56);
  bytes.writeUInt32LE(record.jumpTableCrc, 64);
  bytes.writeUInt32LE(record.blockBytes, 72);
  bytes.writeUInt8(record.algorithm, 76);
  bytes.writeUInt32LE(record.dictionaryBytes, 84);
  bytes.writeUInt8(record.hasBlockCrc ? 1 : 0, 88);
  if (record.hasDigest) bytes.writeUInt32LE(digestOf(bytes), DIGEST_OFFSET);
  return bytes;
}

function flagsOf(record: ZFileRecord): number {
  return (
    (record.isHeader ? flagBits.header : 0) |
    (record.isData ? flagBits.data : 0) |
    (record.isSealed ? flagBits.sealed : 0) |
    (record.isOverwritten ? flagBits.overwritten : 0) |
    (record.hasDigest ? flagBits.digest : 0) |
    (record.hasCompressedTable ? flagBits.compressedTable : 0)
  );
}

/** A u64 as a number; what no number holds exactly becomes infinite, and so fails every bound. */
function readSize(view: DataView, offset: number): number {
  const value = view.getBigUint64(offset, true);
  return value <= BigInt(Number.MAX_SAFE_INTEGER) ? Number(value) : Infinity;
}

/** Covers all 512 bytes, the digest itself counted as zero. */
function digestOf(record: Uint8Array): number {
  const copy = Buffer.from(record.subarray(0, RECORD_BYTES));
  copy.writeUInt32LE(0, DIGEST_OFFSET);
  return crc32cRaw(0, copy);
}

function checkDigest(bytes: Uint8Array, stated: number, name: string, structure: string): void {
  const computed = digestOf(bytes);
  if (computed === stated) return;
  throw formatError('ERR_ZFILE_DIGEST', {
    name,
    structure,
    expected: `digest 0x${stated.toString(16)}`,
    found: `0x${computed.toString(16)}`,
  });
}
