import { formatError, ReplaybdError } from '../../base/errors.ts';

/**
 * The bytes of an LSMT file: a 4096-byte block at each end that says what the file is, and 16-byte
 * index entries. Everything is little-endian; a sector is 512 bytes.
 */

/** A header or trailer; its struct fills the first 390 bytes, the rest is zero. */
export const LSMT_BLOCK_BYTES = 4096;
export const LSMT_ENTRY_BYTES = 16;
/** Where data begins in every LSMT file, in sectors. */
export const LSMT_DATA_SECTOR = LSMT_BLOCK_BYTES / 512;
/** The offset that marks an index entry as padding: 2^50 - 1. */
export const LSMT_PADDING_LBA = 2 ** 50 - 1;

const MAGIC = Buffer.from('4c534d5400010200657e63d29444084ca2d2c8ec4fcfae8a', 'hex');
const STRUCT_BYTES = 390;
const OFFSET_STRUCT_BYTES = 24;
const OFFSET_FLAGS = 28;
const OFFSET_INDEX = 32;
const OFFSET_INDEX_COUNT = 40;
const OFFSET_VIRTUAL_SIZE = 48;
const OFFSET_UUID = 56;
const OFFSET_PARENT_UUID = 93;
const OFFSET_VERSION = 132;
const OFFSET_USER_TAG = 134;
const UUID_CHARACTERS = 36;
const USER_TAG_BYTES_MAX = 256;
const VERSION = 1;
const SUB_VERSION = 1;

const FLAG_HEADER = 1 << 0;
const FLAG_DATA = 1 << 1;
const FLAG_SEALED = 1 << 2;
const FLAG_SPARSE = 1 << 4;

const NULL_UUID = '00000000-0000-0000-0000-000000000000';
const UUID_PATTERN = /^[0-9A-F]{8}(-[0-9A-F]{4}){3}-[0-9A-F]{12}$/;

/** What a header or trailer says. */
export interface LsmtBlock {
  /** A header; otherwise a trailer. */
  isHeader: boolean;
  /** The block belongs to a data file; otherwise to an index file. */
  isData: boolean;
  isSealed: boolean;
  /** The data file is a sparse writable layer: its mapping is the identity. */
  isSparse: boolean;
  /** Byte offset of the index in its file. */
  indexOffset: number;
  /** Index entries, padding included. */
  indexCount: number;
  virtualSizeBytes: number;
  /** Upper case; null for the all-zero UUID and for text that is no UUID. */
  uuid: string | null;
  parentUuid: string | null;
  /** The commit message. */
  userTag: string;
}

/** The error for a block of file `name` whose flags say that it is something else. */
export function flagsError(
  name: string,
  structure: string,
  expected: string,
  { isHeader, isData, isSealed }: LsmtBlock,
): ReplaybdError {
  const sealed = isSealed ? 'a sealed' : 'an unsealed';
  const found = `the ${isHeader ? 'header' : 'trailer'} of ${sealed} ${isData ? 'data' : 'index'} file`;
  return formatError('ERR_LSMT_FLAGS', { name, structure, expected, found });
}

/** Whether bytes begin with the magic of an LSMT header or trailer. */
export function hasLsmtMagic(bytes: Uint8Array): boolean {
  return MAGIC.equals(bytes.subarray(0, MAGIC.length));
}

/**
 * Parses a header or trailer block of the file `name`; `structure` names it in errors.
 * ERR_LSMT_MAGIC and ERR_LSMT_RANGE. Like the original, it accepts any version.
 */
export function parseLsmtBlock(bytes: Uint8Array, name: string, structure: string): LsmtBlock {
  if (bytes.length < STRUCT_BYTES || !hasLsmtMagic(bytes)) {
    throw formatError('ERR_LSMT_MAGIC', {
      name,
      structure,
      expected: `the LSMT magic ${MAGIC.toString('hex')}`,
      found: Buffer.from(bytes.subarray(0, MAGIC.length)).toString('hex') || 'no bytes',
    });
  }
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const readSize = (offset: number, field: string) => {
    const value = view.getBigUint64(offset, true);
    if (value <= BigInt(Number.MAX_SAFE_INTEGER)) return Number(value);
    throw formatError('ERR_LSMT_RANGE', {
      name,
      structure,
      expected: `${field} below 2^53`,
      found: String(value),
    });
  };
  const flags = view.getUint32(OFFSET_FLAGS, true);
  return {
    isHeader: (flags & FLAG_HEADER) !== 0,
    isData: (flags & FLAG_DATA) !== 0,
    isSealed: (flags & FLAG_SEALED) !== 0,
    isSparse: (flags & FLAG_SPARSE) !== 0,
    indexOffset: readSize(OFFSET_INDEX, 'index_offset'),
    indexCount: readSize(OFFSET_INDEX_COUNT, 'index_size'),
    virtualSizeBytes: readSize(OFFSET_VIRTUAL_SIZE, 'virtual_size'),
    uuid: parseUuid(bytes, OFFSET_UUID),
    parentUuid: parseUuid(bytes, OFFSET_PARENT_UUID),
    userTag: parseUserTag(bytes),
  };
}

/** The 4096 bytes of a header or trailer. ERR_LSMT_UUID and ERR_LSMT_TAG for unusable texts. */
export function serializeLsmtBlock(block: LsmtBlock): Uint8Array {
  const bytes = Buffer.alloc(LSMT_BLOCK_BYTES);
  bytes.set(MAGIC);
  bytes.writeUInt32LE(STRUCT_BYTES, OFFSET_STRUCT_BYTES);
  const flags =
    (block.isHeader ? FLAG_HEADER : 0) |
    (block.isData ? FLAG_DATA : 0) |
    (block.isSealed ? FLAG_SEALED : 0) |
    (block.isSparse ? FLAG_SPARSE : 0);
  bytes.writeUInt32LE(flags, OFFSET_FLAGS);
  bytes.writeBigUInt64LE(BigInt(block.indexOffset), OFFSET_INDEX);
  bytes.writeBigUInt64LE(BigInt(block.indexCount), OFFSET_INDEX_COUNT);
  bytes.writeBigUInt64LE(BigInt(block.virtualSizeBytes), OFFSET_VIRTUAL_SIZE);
  bytes.write(uuidText(block.uuid), OFFSET_UUID, 'latin1');
  bytes.write(uuidText(block.parentUuid), OFFSET_PARENT_UUID, 'latin1');
  bytes[OFFSET_VERSION] = VERSION;
  bytes[OFFSET_VERSION + 1] = SUB_VERSION;
  const userTag = Buffer.from(block.userTag, 'utf8');
  if (userTag.length > USER_TAG_BYTES_MAX) {
    throw new ReplaybdError(
      'ERR_LSMT_TAG',
      `layer message: expected at most ${USER_TAG_BYTES_MAX} bytes, found ${userTag.length}. ` +
        'Give a shorter one.',
    );
  }
  bytes.set(userTag, OFFSET_USER_TAG);
  return bytes;
}

function parseUuid(bytes: Uint8Array, offset: number): string | null {
  const text = Buffer.from(bytes.subarray(offset, offset + UUID_CHARACTERS))
    .toString('latin1')
    .toUpperCase();
  return text !== NULL_UUID && UUID_PATTERN.test(text) ? text : null;
}

function parseUserTag(bytes: Uint8Array): string {
  const field = Buffer.from(bytes.subarray(OFFSET_USER_TAG, OFFSET_USER_TAG + USER_TAG_BYTES_MAX));
  const end = field.indexOf(0);
  return field.toString('utf8', 0, end < 0 ? field.length : end);
}

function uuidText(uuid: string | null): string {
  const text = uuid === null ? NULL_UUID : uuid.toUpperCase();
  if (!UUID_PATTERN.test(text)) {
    throw new ReplaybdError(
      'ERR_LSMT_UUID',
      `layer UUID: expected 8-4-4-4-12 hexadecimal digits, found "${text}"`,
    );
  }
  return text;
}
