import type { ExtendedAttribute } from '../../../native/extended-attributes.ts';
import { tarLimits } from '../../base/limits.ts';
import type { ByteRange } from '../../base/range.ts';
import { shown, tarError } from './entry.ts';
import { addRange, wholeNumber } from './sparse-map.ts';

/** What pax headers say of an entry; undefined where they say nothing. Texts have a character a byte. */
export interface PaxFields {
  path?: string | undefined;
  linkPath?: string | undefined;
  size?: number | undefined;
  uid?: number | undefined;
  gid?: number | undefined;
  mtimeNs?: bigint | undefined;
  deviceMajor?: number | undefined;
  deviceMinor?: number | undefined;
  /** By name, the last one of each. */
  attributes: Map<string, ExtendedAttribute>;
  sparse: PaxSparse;
}

/** The GNU.sparse keys, of formats 0.0, 0.1 and 1.0. */
export interface PaxSparse {
  major?: number | undefined;
  minor?: number | undefined;
  name?: string | undefined;
  /** Of the file with its holes: `realsize` in 1.0, `size` before. */
  sizeBytes?: number | undefined;
  /** Format 0.1. */
  map?: string | undefined;
  /** Format 0.0: pairs of keys, in order. */
  ranges: ByteRange[];
  offset?: number | undefined;
}

export type PaxKind = 'local' | 'global';

const SPACE = 0x20;
const EQUALS = 0x3d;
const NEWLINE = 0x0a;
const LENGTH_DIGITS_MAX = 8;

const XATTR_PREFIX = 'SCHILY.xattr.';
const LIBARCHIVE_XATTR_PREFIX = 'LIBARCHIVE.xattr.';
const CHARSETS = ['BINARY', 'ISO-IR 10646 2000 UTF-8'];

export function emptyPaxFields(): PaxFields {
  return { attributes: new Map(), sparse: { ranges: [] } };
}

/** What holds for all entries from here on, as a start for the next one's own fields. */
export function copyPaxFields(fields: PaxFields): PaxFields {
  const { attributes, sparse } = fields;
  return { ...fields, attributes: new Map(attributes), sparse: { ...sparse, ranges: [] } };
}

/**
 * Adds records ("<length> <key>=<value>\n", the length counting all of it) to `fields`; a later one
 * wins, an empty value takes back. Keys nobody needs are passed over.
 * Errors: ERR_TAR_PAX, ERR_TAR_SPARSE.
 */
export function readPaxRecords(
  records: Buffer,
  fields: PaxFields,
  kind: PaxKind,
  position: number,
): void {
  for (let at = 0; at < records.length;) {
    const space = records.indexOf(SPACE, at);
    const lengthText = records.toString('latin1', at, Math.min(space, at + LENGTH_DIGITS_MAX + 1));
    const end = at + Number(lengthText);
    const equals = records.indexOf(EQUALS, space);
    const isWhole = space > at && /^[1-9][0-9]*$/.test(lengthText) && end <= records.length;
    if (!isWhole || equals <= space + 1 || equals >= end || records[end - 1] !== NEWLINE) {
      const start = shown(records.toString('latin1', at, at + 32));
      throw paxError(position, '"<length> <key>=<value>\\n"', start);
    }
    const key = records.toString('latin1', space + 1, equals);
    setField(fields, key, records.subarray(equals + 1, end - 1), kind, position);
    at = end;
  }
}

function setField(
  fields: PaxFields,
  key: string,
  value: Buffer,
  kind: PaxKind,
  position: number,
): void {
  if (key.startsWith('GNU.sparse.')) {
    refuseGlobal(kind, key, position);
    setSparseField(fields.sparse, key.slice('GNU.sparse.'.length), value, position);
    return;
  }
  if (key.startsWith(XATTR_PREFIX)) {
    setAttribute(fields, key.slice(XATTR_PREFIX.length), Buffer.from(value), position);
    return;
  }
  if (key.startsWith(LIBARCHIVE_XATTR_PREFIX)) {
    const name = percentDecoded(key.slice(LIBARCHIVE_XATTR_PREFIX.length));
    // The same attribute in plain form is the better source; both are written together.
    if (fields.attributes.has(name)) return;
    setAttribute(fields, name, Buffer.from(value.toString('latin1'), 'base64'), position);
    return;
  }
  setStandardField(fields, key, value.toString('latin1'), kind, position);
}

function setStandardField(
  fields: PaxFields,
  key: string,
  text: string,
  kind: PaxKind,
  position: number,
): void {
  const number = () => (text === '' ? undefined : decimal(key, text, position));
  switch (key) {
    case 'path':
    case 'linkpath': {
      refuseGlobal(kind, key, position);
      if (text.includes('\0')) throw paxError(position, `a ${key} without NUL`, shown(text));
      const value = text === '' ? undefined : text;
      if (key === 'path') fields.path = value;
      else fields.linkPath = value;
      return;
    }
    case 'size':
      refuseGlobal(kind, key, position);
      fields.size = number();
      return;
    case 'uid':
      fields.uid = number();
      return;
    case 'gid':
      fields.gid = number();
      return;
    case 'SCHILY.devmajor':
      fields.deviceMajor = number();
      return;
    case 'SCHILY.devminor':
      fields.deviceMinor = number();
      return;
    case 'mtime':
      fields.mtimeNs = text === '' ? undefined : timeNs(text, position);
      return;
    case 'hdrcharset':
      // Names are bytes to us, so these two say the same.
      if (text === '' || CHARSETS.includes(text)) return;
      throw paxError(position, `a charset of ${CHARSETS.join(' or ')}`, shown(text));
    default:
      return;
  }
}

function setSparseField(sparse: PaxSparse, key: string, value: Buffer, position: number): void {
  const text = value.toString('latin1');
  switch (key) {
    case 'major':
      sparse.major = wholeNumber(text, position);
      return;
    case 'minor':
      sparse.minor = wholeNumber(text, position);
      return;
    case 'name':
      if (text.includes('\0')) throw paxError(position, 'a name without NUL', shown(text));
      sparse.name = text;
      return;
    case 'size':
    case 'realsize':
      sparse.sizeBytes = wholeNumber(text, position);
      return;
    case 'map':
      sparse.map = text;
      return;
    case 'offset':
      sparse.offset = wholeNumber(text, position);
      return;
    case 'numbytes': {
      const length = wholeNumber(text, position);
      if (sparse.offset === undefined) {
        throw paxError(position, 'GNU.sparse.offset before GNU.sparse.numbytes', 'none');
      }
      addRange(sparse.ranges, { offset: sparse.offset, length }, position);
      sparse.offset = undefined;
      return;
    }
    default:
      return;
  }
}

function setAttribute(fields: PaxFields, name: string, value: Buffer, position: number): void {
  if (name === '' || name.includes('\0') || name.length > tarLimits.attributeNameBytesMax) {
    throw paxError(position, 'the name of an extended attribute', shown(name));
  }
  fields.attributes.set(name, { name: Buffer.from(name, 'latin1'), value });
  if (fields.attributes.size > tarLimits.attributesMax) {
    throw paxError(position, `at most ${tarLimits.attributesMax} extended attributes`, 'more');
  }
}

/** Such a key would say the same of every entry that follows. */
function refuseGlobal(kind: PaxKind, key: string, position: number): void {
  if (kind === 'global') throw paxError(position, 'no such key in a global header', key);
}

function decimal(key: string, text: string, position: number): number {
  const value = Number(text);
  if (/^[0-9]{1,16}$/.test(text) && Number.isSafeInteger(value)) return value;
  throw paxError(position, `a decimal ${key}`, shown(text));
}

/** Seconds with a fraction of any length, of which nine digits count; towards the past. */
function timeNs(text: string, position: number): bigint {
  const [, sign, whole = '0', fraction = ''] =
    /^(-?)([0-9]{1,18})(?:\.([0-9]*))?$/.exec(text) ?? [];
  if (sign === undefined) throw paxError(position, 'an mtime of seconds', shown(text));
  const nanoseconds = BigInt(whole) * 1_000_000_000n + BigInt(fraction.slice(0, 9).padEnd(9, '0'));
  const isInexact = /[1-9]/.test(fraction.slice(9));
  if (sign === '') return nanoseconds;
  return -nanoseconds - (isInexact ? 1n : 0n);
}

function percentDecoded(text: string): string {
  return text.replace(/%([0-9a-fA-F]{2})/g, (_, hex: string) =>
    String.fromCharCode(Number.parseInt(hex, 16)),
  );
}

function paxError(position: number, expected: string, found: string) {
  return tarError('ERR_TAR_PAX', position, `pax header: ${expected}`, found);
}
