import { tarLimits } from '../../base/limits.ts';
import { shown, tarError, type TarEntry, type TarEntryType } from './entry.ts';
import { FIELD, isChecksumGood, numberField, textField, type Field } from './fields.ts';
import type { PaxFields } from './pax.ts';

export type HeaderFormat = 'v7' | 'ustar' | 'gnu' | 'star';

/** What one header block says, nothing decided yet. */
export interface TarHeader {
  format: HeaderFormat;
  /** The type flag, a character. */
  flag: string;
  /** Of the content that follows, as the header states it. */
  size: number;
  block: Buffer;
  position: number;
}

/** Names that GNU's own headers gave the next entry. */
export interface GnuNames {
  path?: string | undefined;
  linkTarget?: string | undefined;
}

const ENTRY_TYPES: Readonly<Record<string, TarEntryType>> = {
  '0': 'file',
  '\0': 'file',
  '7': 'file',
  S: 'file',
  '1': 'link',
  '2': 'symlink',
  '3': 'character',
  '4': 'block',
  '5': 'directory',
  '6': 'fifo',
};

const ID_MAX = 0xffff_ffff;
const DEVICE_MAJOR_MAX = 0xfff;
const DEVICE_MINOR_MAX = 0xf_ffff;
const PERMISSION_BITS = 0o7777;
const NANOSECONDS = 1_000_000_000n;

/** Errors: ERR_TAR_HEADER. */
export function parseHeader(block: Buffer, position: number): TarHeader {
  if (!isChecksumGood(block)) {
    throw tarError('ERR_TAR_HEADER', position, 'a tar header with a good checksum', 'none');
  }
  const size = numberField(block, FIELD.size);
  if (size === null || size < 0) throw headerError(position, 'a size', 'an unreadable one');
  const flag = String.fromCharCode(block[FIELD.type.at] ?? 0);
  return { format: formatOf(block), flag, size, block, position };
}

/**
 * Puts together what the header and those in front of it say, except of a sparse file's map: there
 * `sizeBytes` is what the tar stores. Errors: ERR_TAR_HEADER, ERR_TAR_TYPE.
 */
export function entryOf(header: TarHeader, pax: PaxFields, gnu: GnuNames): TarEntry {
  const { block, flag, position } = header;
  const path = gnu.path ?? pax.path ?? pathOf(header);
  // Old programs told a directory by its name alone.
  const isOldDirectory = flag === '\0' && path.endsWith('/');
  const type = isOldDirectory ? 'directory' : ENTRY_TYPES[flag];
  if (type === undefined) {
    const expected = 'a file, directory, link, device or FIFO';
    throw tarError('ERR_TAR_TYPE', position, expected, `type ${shown(flag)} (${shown(path)})`);
  }
  const stored = type === 'file' ? (pax.size ?? header.size) : 0;
  const entry: TarEntry = {
    path,
    type,
    linkTarget: gnu.linkTarget ?? pax.linkPath ?? textField(block, FIELD.linkName),
    mode: field(header, FIELD.mode, 'mode') & PERMISSION_BITS,
    uid: within(header, pax.uid ?? field(header, FIELD.uid, 'uid'), ID_MAX, 'uid'),
    gid: within(header, pax.gid ?? field(header, FIELD.gid, 'gid'), ID_MAX, 'gid'),
    mtimeNs: pax.mtimeNs ?? BigInt(field(header, FIELD.mtime, 'mtime')) * NANOSECONDS,
    sizeBytes: stored,
    storedBytes: stored,
    device:
      type === 'character' || type === 'block' ? deviceOf(header, pax) : { major: 0, minor: 0 },
    attributes: [...pax.attributes.values()],
    position,
  };
  for (const text of [entry.path, entry.linkTarget]) {
    if (text.length <= tarLimits.pathBytesMax) continue;
    throw headerError(position, `paths of at most ${tarLimits.pathBytesMax} bytes`, shown(text));
  }
  return entry;
}

function formatOf(block: Buffer): HeaderFormat {
  const magic = block.toString('latin1', FIELD.magic.at, FIELD.magic.at + FIELD.magic.bytes);
  if (magic === 'ustar  \0') return 'gnu';
  if (!magic.startsWith('ustar\0')) return 'v7';
  return textField(block, FIELD.starTrailer) === 'tar' ? 'star' : 'ustar';
}

function pathOf({ format, block }: TarHeader): string {
  const name = textField(block, FIELD.name);
  if (format !== 'ustar' && format !== 'star') return name;
  const prefix = textField(block, format === 'star' ? FIELD.starPrefix : FIELD.prefix);
  return prefix === '' ? name : `${prefix}/${name}`;
}

function deviceOf(header: TarHeader, pax: PaxFields): { major: number; minor: number } {
  const major = pax.deviceMajor ?? field(header, FIELD.deviceMajor, 'device number');
  const minor = pax.deviceMinor ?? field(header, FIELD.deviceMinor, 'device number');
  return {
    major: within(header, major, DEVICE_MAJOR_MAX, 'device number'),
    minor: within(header, minor, DEVICE_MINOR_MAX, 'device number'),
  };
}

function field(header: TarHeader, place: Field, what: string): number {
  const value = numberField(header.block, place);
  if (value === null) throw headerError(header.position, `a ${what}`, 'an unreadable one');
  return value;
}

function within(header: TarHeader, value: number, max: number, what: string): number {
  if (value >= 0 && value <= max) return value;
  throw headerError(header.position, `a ${what} from 0 to ${max}`, String(value));
}

function headerError(position: number, expected: string, found: string) {
  return tarError('ERR_TAR_HEADER', position, expected, found);
}
