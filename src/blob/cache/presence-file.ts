import { crc32c } from '../../base/crc32c.ts';
import { formatError } from '../../base/errors.ts';
import { GRANULE_BYTES } from '../../base/limits.ts';
import { granuleCountOf } from './granule-bits.ts';

/**
 * Which granules of a blob's data file may be trusted. Little-endian, written whole each time:
 *
 *   0   8  magic "RBDCACHE"            56  4  flags: 1 = the blob was closed in order
 *   8   4  version                     60  4  CRC-32C of the file with this field zero
 *   12  4  granule size in bytes       64 16  boot id of the machine that wrote it
 *   16  8  blob size in bytes          80  .  the bitmap, one bit a granule, whole 32-bit words
 *   24 32  the blob's sha256
 */
export interface PresenceRecord {
  /** `sha256:` and 64 hex digits. */
  digest: string;
  sizeBytes: number;
  clean: boolean;
  /** As /proc/sys/kernel/random/boot_id prints it. */
  bootId: string;
  words: Uint32Array;
}

const MAGIC = 'RBDCACHE';
const VERSION = 1;
const HEADER_BYTES = 80;
const CRC_OFFSET = 60;
const FLAG_CLEAN = 1;

export function presenceFileBytes(sizeBytes: number): number {
  return HEADER_BYTES + wordCountOf(sizeBytes) * 4;
}

export function encodePresence(record: PresenceRecord): Buffer {
  const file = Buffer.alloc(presenceFileBytes(record.sizeBytes));
  file.write(MAGIC, 0, 'latin1');
  file.writeUInt32LE(VERSION, 8);
  file.writeUInt32LE(GRANULE_BYTES, 12);
  file.writeBigUInt64LE(BigInt(record.sizeBytes), 16);
  file.write(record.digest.slice('sha256:'.length), 24, 'hex');
  file.writeUInt32LE(record.clean ? FLAG_CLEAN : 0, 56);
  file.write(record.bootId.replaceAll('-', ''), 64, 16, 'hex');
  record.words.forEach((word, index) => file.writeUInt32LE(word, HEADER_BYTES + index * 4));
  file.writeUInt32LE(crc32c(file), CRC_OFFSET);
  return file;
}

/** Throws ERR_CACHE_PRESENCE for anything this version did not write whole. */
export function decodePresence(bytes: Uint8Array, name: string): PresenceRecord {
  const file = Buffer.from(bytes);
  const expect = (structure: string, expected: string | number, found: string | number): void => {
    if (expected === found) return;
    throw formatError('ERR_CACHE_PRESENCE', {
      name,
      structure: `cache presence ${structure}`,
      expected: String(expected),
      found: String(found),
    });
  };
  if (file.length < HEADER_BYTES) expect('size', `at least ${HEADER_BYTES}`, file.length);
  expect('magic', MAGIC, file.toString('latin1', 0, 8));
  expect('version', VERSION, file.readUInt32LE(8));
  expect('granule size', GRANULE_BYTES, file.readUInt32LE(12));
  const sizeBytes = Number(file.readBigUInt64LE(16));
  expect('size', presenceFileBytes(sizeBytes), file.length);
  const crcStored = file.readUInt32LE(CRC_OFFSET);
  file.writeUInt32LE(0, CRC_OFFSET);
  expect('checksum', crcStored, crc32c(file));
  const words = new Uint32Array(wordCountOf(sizeBytes));
  for (let index = 0; index < words.length; index += 1) {
    words[index] = file.readUInt32LE(HEADER_BYTES + index * 4);
  }
  const lastBits = granuleCountOf(sizeBytes) % 32;
  const beyond =
    sizeBytes === 0 ? words[0] : lastBits === 0 ? 0 : words[words.length - 1] >>> lastBits;
  expect('bits past the end', 0, beyond);
  return {
    digest: `sha256:${file.toString('hex', 24, 56)}`,
    sizeBytes,
    clean: (file.readUInt32LE(56) & FLAG_CLEAN) !== 0,
    bootId: formatBootId(file.toString('hex', 64, 80)),
    words,
  };
}

function wordCountOf(sizeBytes: number): number {
  return Math.max(1, Math.ceil(granuleCountOf(sizeBytes) / 32));
}

function formatBootId(hex: string): string {
  return hex.replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, '$1-$2-$3-$4-$5');
}
