import { formatError } from '../base/errors.ts';
import type { ByteRange } from '../base/range.ts';
import type { PatchableSink } from './byte-sink.ts';
import { checksumOf, isChecksumGood } from './tar/fields.ts';

/**
 * The tar around a layer as registries store it:
 *
 *   [ pax header 512 ][ "<n> size=<payload>\n" 512 ][ member header 512 ]
 *   [ payload ][ padding to 512 ][ 1024 zeros ]
 *
 * A layer may also sit in a tar without the pax part; then the payload begins at byte 512.
 */
const BLOCK_BYTES = 512;
/** Where the payload begins in what TarWrapperSink writes. */
export const TAR_PAYLOAD_OFFSET = 3 * BLOCK_BYTES;
const END_BYTES = 2 * BLOCK_BYTES;
/** First bytes of a blob that `peelTar` wants to see. */
export const TAR_PROBE_BYTES = 4096;

const field = {
  name: 0,
  mode: 100,
  uid: 108,
  gid: 116,
  size: 124,
  mtime: 136,
  checksum: 148,
  type: 156,
  magic: 257,
  version: 263,
  userName: 265,
  groupName: 297,
} as const;
const SIZE_BYTES = 12;

/**
 * Where the payload of a tar-wrapped layer is; null when the blob is no tar (POSIX ustar with a
 * good checksum; GNU's variant is not taken, as in the original). `first` holds the blob's first
 * bytes, TAR_PROBE_BYTES of them if it has as many. Errors: ERR_TAR_PAX, ERR_TAR_HEADER,
 * ERR_TAR_SIZE.
 */
export function peelTar(first: Uint8Array, blobBytes: number, name: string): ByteRange | null {
  const bytes = Buffer.from(first.buffer, first.byteOffset, first.length);
  if (!isTarHeader(bytes, 0)) return null;
  let headerOffset = 0;
  let paxSize = 0;
  if (typeOf(bytes, 0) === 'x') {
    const paxBytes = octal(bytes, field.size, SIZE_BYTES);
    headerOffset = BLOCK_BYTES + roundUp(paxBytes ?? 0);
    if (paxBytes === null || headerOffset + BLOCK_BYTES > bytes.length) {
      throw formatError('ERR_TAR_PAX', {
        name,
        structure: 'pax header',
        expected: `extended records within the first ${TAR_PROBE_BYTES} bytes`,
        found: `${paxBytes ?? 'an unreadable size'}`,
      });
    }
    paxSize = paxRecordSize(bytes.subarray(BLOCK_BYTES, BLOCK_BYTES + paxBytes), name);
  }
  const memberSize = isTarHeader(bytes, headerOffset) ? memberSizeOf(bytes, headerOffset) : null;
  if (memberSize === null) {
    throw formatError('ERR_TAR_HEADER', {
      name,
      structure: `tar header at byte ${headerOffset}`,
      expected: 'a regular file with a good checksum and an octal size',
      found: `type '${typeOf(bytes, headerOffset)}'`,
    });
  }
  const offset = headerOffset + BLOCK_BYTES;
  const length = paxSize > 0 ? paxSize : memberSize;
  if (offset + length > blobBytes) {
    throw formatError('ERR_TAR_SIZE', {
      name,
      structure: 'tar wrapper',
      expected: `a payload that ends by byte ${blobBytes}`,
      found: `${length} bytes at byte ${offset}`,
    });
  }
  return { offset, length };
}

function isTarHeader(bytes: Buffer, offset: number): boolean {
  if (offset + BLOCK_BYTES > bytes.length) return false;
  const magic = bytes.toString('latin1', offset + field.magic, offset + field.magic + 5);
  const version = bytes.toString('latin1', offset + field.version, offset + field.version + 2);
  if (magic !== 'ustar' || version !== '00') return false;
  return isChecksumGood(bytes.subarray(offset, offset + BLOCK_BYTES));
}

/** The size a regular file's header states; null for anything else. */
function memberSizeOf(bytes: Buffer, offset: number): number | null {
  const type = typeOf(bytes, offset);
  return type === '0' || type === '\0' ? octal(bytes, offset + field.size, SIZE_BYTES) : null;
}

function typeOf(bytes: Buffer, offset: number): string {
  return String.fromCharCode(bytes[offset + field.type]);
}

/** Octal digits among spaces and NULs; null for anything else. */
function octal(bytes: Buffer, offset: number, length: number): number | null {
  const text = bytes.toString('latin1', offset, offset + length).replace(/^[ \0]+|[ \0]+$/g, '');
  return /^[0-7]*$/.test(text) ? Number(`0o0${text}`) : null;
}

/** The `size` of pax records, each "<its own length> <key>=<value>\n"; 0 when there is none. */
function paxRecordSize(records: Buffer, name: string): number {
  let size = 0;
  for (let at = 0; at < records.length;) {
    const space = records.indexOf(0x20, at);
    const lengthText = records.toString('latin1', at, Math.max(space, at));
    const end = at + Number(lengthText);
    const record = records.toString('latin1', space + 1, end);
    const isWhole = /^[1-9][0-9]{0,4}$/.test(lengthText) && end <= records.length;
    const parts = /^([^=]+)=([^]*)\n$/.exec(record);
    const isBadSize = parts?.[1] === 'size' && !/^[0-9]{1,15}$/.test(parts[2]);
    if (!isWhole || parts === null || isBadSize) {
      throw formatError('ERR_TAR_PAX', {
        name,
        structure: `pax record at byte ${BLOCK_BYTES + at}`,
        expected: '"<length> <key>=<value>\\n" that fits, with a decimal size',
        found: JSON.stringify(records.toString('latin1', at, Math.min(at + 32, records.length))),
      });
    }
    if (parts[1] === 'size') size = Number(parts[2]);
    at = end;
  }
  return size;
}

function roundUp(length: number): number {
  return Math.ceil(length / BLOCK_BYTES) * BLOCK_BYTES;
}

/**
 * Wraps what is written to it as the original wraps a layer, byte for byte. Room for the headers is
 * zeros until `finish`, so a file that was not finished is no tar.
 */
export class TarWrapperSink implements PatchableSink {
  readonly #sink: PatchableSink;
  #payloadBytes = 0;
  #hasBegun = false;

  constructor(sink: PatchableSink) {
    this.#sink = sink;
  }

  async write(bytes: Uint8Array): Promise<void> {
    await this.#begin();
    await this.#sink.write(bytes);
    this.#payloadBytes += bytes.length;
  }

  async patch(offset: number, bytes: Uint8Array): Promise<void> {
    await this.#sink.patch(TAR_PAYLOAD_OFFSET + offset, bytes);
  }

  /** Ends the tar; the size of all of it. */
  async finish(): Promise<number> {
    await this.#begin();
    const padding = roundUp(this.#payloadBytes) - this.#payloadBytes;
    await this.#sink.write(new Uint8Array(padding + END_BYTES));
    await this.#sink.patch(0, tarHeaders(this.#payloadBytes));
    return TAR_PAYLOAD_OFFSET + this.#payloadBytes + padding + END_BYTES;
  }

  async #begin(): Promise<void> {
    if (this.#hasBegun) return;
    this.#hasBegun = true;
    await this.#sink.write(new Uint8Array(TAR_PAYLOAD_OFFSET));
  }
}

/** The 1,536 bytes in front of a payload. */
function tarHeaders(payloadBytes: number): Buffer {
  const bytes = Buffer.alloc(TAR_PAYLOAD_OFFSET);
  const record = paxRecord('size', payloadBytes);
  bytes.write(record, BLOCK_BYTES, 'latin1');

  const pax = bytes.subarray(0, BLOCK_BYTES);
  pax.write('overlaybd.pax', field.name, 'latin1');
  pax.write(wideOctal(record.length), field.size, 'latin1');
  seal(pax, 'x');

  const member = bytes.subarray(2 * BLOCK_BYTES);
  member.write('overlaybd.commit', field.name, 'latin1');
  // A regular file, rw-r--r--: what the original finds under the usual umask.
  member.write(narrowOctal(0o100644), field.mode, 'latin1');
  member.write(narrowOctal(0), field.uid, 'latin1');
  member.write(narrowOctal(0), field.gid, 'latin1');
  member.write(wideOctal(0), field.size, 'latin1');
  member.write(wideOctal(0), field.mtime, 'latin1');
  member.write('root', field.userName, 'latin1');
  member.write('root', field.groupName, 'latin1');
  seal(member, '0');
  return bytes;
}

function seal(header: Buffer, type: 'x' | '0'): void {
  header.write(type, field.type, 'latin1');
  header.write('ustar\0', field.magic, 'latin1');
  header.write('00', field.version, 'latin1');
  header.write(narrowOctal(checksumOf(header)), field.checksum, 'latin1');
}

/** "<length> <key>=<value>\n", where the length counts itself. */
function paxRecord(key: string, value: number): string {
  const rest = ` ${key}=${value}\n`;
  let length = rest.length + 1;
  while (`${length}${rest}`.length !== length) length += 1;
  return `${length}${rest}`;
}

/** The original pads its 8-byte fields with spaces: "     0 \0". */
function narrowOctal(value: number): string {
  return `${value.toString(8).padStart(6)} \0`;
}

/** The original pads its 12-byte fields with spaces: "          0 ". */
function wideOctal(value: number): string {
  return `${value.toString(8).padStart(11)} `;
}
