import { open, type FileHandle } from 'node:fs/promises';
import { posix } from 'node:path';
import { convertLimits } from '../../base/limits.ts';
import type { FilePart, LayoutFiles } from './layout-files.ts';
import { sourceError } from './source.ts';

/**
 * The members of an uncompressed tar by name, found without reading their content: ustar with
 * prefixes, pax paths and sizes, GNU long names, links to other members (POSIX.1 pax; GNU tar's
 * tar.h). Nothing is extracted, so names cannot lead anywhere.
 */
const BLOCK_BYTES = 512;

const field = {
  name: [0, 100],
  size: [124, 12],
  checksum: [148, 8],
  type: [156, 1],
  link: [157, 100],
  magic: [257, 6],
  prefix: [345, 155],
} as const;

type Member = { kind: 'file'; offset: number; sizeBytes: number } | { kind: 'link'; to: string };

/** What headers before a member's own say of it. */
interface Overrides {
  path?: string;
  link?: string;
  sizeBytes?: number;
}

/**
 * Reads a tar's headers. Throws ERR_CONVERT_ARCHIVE for what is no plain tar, is cut off, or exceeds
 * a limit.
 */
export async function archiveFiles(path: string): Promise<LayoutFiles> {
  const file = await open(path, 'r');
  try {
    const members = await new ArchiveReader(file, path, (await file.stat()).size).read();
    return { name: path, locate: async (name) => locate(path, members, name) };
  } finally {
    await file.close();
  }
}

/** Follows links, which tell a layer that several images share. */
function locate(path: string, members: ReadonlyMap<string, Member>, name: string): FilePart | null {
  let wanted = normal(name);
  for (let step = 0; step <= convertLimits.archiveLinksMax; step += 1) {
    const member = members.get(wanted);
    if (member === undefined) return null;
    if (member.kind === 'file') {
      return { path, offset: member.offset, sizeBytes: member.sizeBytes };
    }
    wanted = member.to;
  }
  throw badArchive(path, `${name}: expected at most ${convertLimits.archiveLinksMax} links to it`);
}

class ArchiveReader {
  readonly #file: FileHandle;
  readonly #path: string;
  readonly #sizeBytes: number;
  readonly #members = new Map<string, Member>();

  constructor(file: FileHandle, path: string, sizeBytes: number) {
    this.#file = file;
    this.#path = path;
    this.#sizeBytes = sizeBytes;
  }

  async read(): Promise<ReadonlyMap<string, Member>> {
    let overrides: Overrides = {};
    let offset = 0;
    for (let count = 0; offset < this.#sizeBytes; count += 1) {
      if (count === convertLimits.archiveEntriesMax) {
        throw this.#bad(`expected at most ${convertLimits.archiveEntriesMax} members, found more`);
      }
      const header = await this.#bytes(offset, BLOCK_BYTES);
      if (header.every((byte) => byte === 0)) return this.#members;
      this.#checkHeader(header, offset);
      const type = header.toString('latin1', field.type[0], field.type[0] + 1);
      const isExtension = 'xgLK'.includes(type);
      const sizeBytes = (isExtension ? undefined : overrides.sizeBytes) ?? this.#size(header);
      const contentOffset = offset + BLOCK_BYTES;
      const end = contentOffset + Math.ceil(sizeBytes / BLOCK_BYTES) * BLOCK_BYTES;
      if (contentOffset + sizeBytes > this.#sizeBytes) throw this.#cutOff(contentOffset, sizeBytes);
      if (isExtension) {
        const content = await this.#extension(contentOffset, sizeBytes);
        overrides = { ...overrides, ...parseExtension(type, content) };
      } else {
        this.#add(header, type, overrides, { offset: contentOffset, sizeBytes });
        overrides = {};
      }
      offset = end;
    }
    return this.#members;
  }

  #add(
    header: Buffer,
    type: string,
    overrides: Overrides,
    content: { offset: number; sizeBytes: number },
  ): void {
    const name = normal(overrides.path ?? headerName(header));
    if (type === '0' || type === '\0' || type === '7') {
      this.#members.set(name, { kind: 'file', ...content });
    } else if (type === '1' || type === '2') {
      const link = overrides.link ?? textOf(header, field.link);
      // A hard link names a member, a symbolic one a path from its own folder.
      const to = normal(type === '1' ? link : posix.join(posix.dirname(name), link));
      this.#members.set(name, { kind: 'link', to });
    }
  }

  #checkHeader(header: Buffer, offset: number): void {
    const [start, length] = field.checksum;
    let sum = 0;
    for (const [at, byte] of header.entries()) {
      sum += at >= start && at < start + length ? 0x20 : byte;
    }
    if (sum === octal(textOf(header, field.checksum))) return;
    const isCompressed = offset === 0 && !textOf(header, field.magic).startsWith('ustar');
    throw this.#bad(
      `expected a tar header at byte ${offset}, found another or a damaged one. ` +
        (isCompressed ? 'A compressed archive has to be decompressed first' : 'Make it anew'),
    );
  }

  #size(header: Buffer): number {
    const [start, length] = field.size;
    const isBinary = ((header[start] ?? 0) & 0x80) !== 0;
    const size = isBinary
      ? Number(header.readBigUInt64BE(start + length - 8))
      : octal(textOf(header, field.size));
    if (size !== null && Number.isSafeInteger(size)) return size;
    throw this.#bad('expected the size of a member in its header, found something else');
  }

  async #extension(offset: number, sizeBytes: number): Promise<Buffer> {
    const { archiveHeaderBytesMax } = convertLimits;
    if (sizeBytes <= archiveHeaderBytesMax) return this.#bytes(offset, sizeBytes);
    throw this.#bad(
      `expected headers of at most ${archiveHeaderBytesMax} bytes, found longer ones`,
    );
  }

  async #bytes(offset: number, length: number): Promise<Buffer> {
    const { buffer, bytesRead } = await this.#file.read(Buffer.alloc(length), 0, length, offset);
    if (bytesRead === length) return buffer;
    throw this.#cutOff(offset, length);
  }

  #cutOff(offset: number, length: number) {
    return this.#bad(`expected ${length} bytes at ${offset}, found the file's end`);
  }

  #bad(problem: string) {
    return badArchive(this.#path, problem);
  }
}

function headerName(header: Buffer): string {
  const name = textOf(header, field.name);
  // Only POSIX archives have a prefix; GNU ones keep times there.
  const isPosix = header.toString('latin1', field.magic[0], field.magic[0] + 6) === 'ustar\0';
  const prefix = isPosix ? textOf(header, field.prefix) : '';
  return prefix === '' ? name : `${prefix}/${name}`;
}

function parseExtension(type: string, content: Buffer): Overrides {
  if (type === 'L') return { path: untilNul(content) };
  if (type === 'K') return { link: untilNul(content) };
  return type === 'x' ? parsePax(content) : {};
}

/** Records `<length> <key>=<value>\n`; the first that is none ends them. */
function parsePax(content: Buffer): Overrides {
  const overrides: Overrides = {};
  for (let at = 0; at < content.length;) {
    const space = content.indexOf(0x20, at);
    if (space === -1) break;
    const length = Number(content.toString('latin1', at, space));
    if (!Number.isSafeInteger(length) || length <= space - at || at + length > content.length)
      break;
    const record = content.toString('utf8', space + 1, at + length - 1);
    const [, key, value = ''] = /^([^=]*)=(.*)$/s.exec(record) ?? [];
    if (key === 'path') overrides.path = value;
    if (key === 'linkpath') overrides.link = value;
    if (key === 'size' && /^\d{1,15}$/.test(value)) overrides.sizeBytes = Number(value);
    at += length;
  }
  return overrides;
}

function normal(name: string): string {
  return posix.normalize(`/${name}`).slice(1);
}

function textOf(header: Buffer, [start, length]: readonly [number, number]): string {
  return untilNul(header.subarray(start, start + length));
}

function untilNul(bytes: Buffer): string {
  const end = bytes.indexOf(0);
  return bytes.toString('utf8', 0, end === -1 ? bytes.length : end);
}

function octal(text: string): number | null {
  const digits = text.trim();
  return /^[0-7]{1,15}$/.test(digits) ? Number.parseInt(digits, 8) : null;
}

function badArchive(path: string, problem: string) {
  return sourceError('ERR_CONVERT_ARCHIVE', `${path}: docker archive: ${problem}.`);
}
