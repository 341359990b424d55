import { open, type FileHandle } from 'node:fs/promises';
import { posix } from 'node:path';
import { codeOf, messageOf } from '../../base/errors.ts';
import { convertLimits } from '../../base/limits.ts';
import type { TarEntry } from '../tar/entry.ts';
import { TAR_BLOCK_BYTES } from '../tar/fields.ts';
import { TarReader } from '../tar/reader.ts';
import type { FilePart, LayoutFiles } from './layout-files.ts';
import { sourceError } from './source.ts';

/** Headers are found this many bytes at a time; what of it is content was read for nothing. */
const READ_BYTES = 16 * TAR_BLOCK_BYTES;

type Member = { kind: 'file'; offset: number; sizeBytes: number } | { kind: 'link'; to: string };

/**
 * The members of an uncompressed tar by name, found without reading most of their content. Nothing is
 * extracted, so names cannot lead anywhere. Throws ERR_CONVERT_ARCHIVE for what is no plain tar, is
 * cut off, or exceeds a limit.
 */
export async function archiveFiles(path: string): Promise<LayoutFiles> {
  const file = await open(path, 'r');
  try {
    const members = await readMembers(file, path);
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

async function readMembers(file: FileHandle, path: string): Promise<ReadonlyMap<string, Member>> {
  const { size } = await file.stat();
  const members = new Map<string, Member>();
  const reader = new TarReader({
    entry: (entry) => addMember(members, entry, path),
    content: () => undefined,
    endEntry: () => undefined,
  });
  const chunk = Buffer.alloc(READ_BYTES);
  let offset = 0;
  try {
    while (offset < size) {
      const { bytesRead } = await file.read(chunk, 0, READ_BYTES, offset);
      reader.push(chunk.subarray(0, bytesRead));
      offset += bytesRead + reader.skipContent();
    }
    reader.end();
  } catch (error) {
    if (codeOf(error)?.startsWith('ERR_TAR_') !== true) throw error;
    const hint = 'A compressed archive has to be decompressed first, another made anew';
    throw badArchive(path, `${messageOf(error)} ${hint}`);
  }
  if (offset > size)
    throw badArchive(path, `expected ${offset} bytes, found ${size}. Make it anew`);
  return members;
}

function addMember(members: Map<string, Member>, entry: TarEntry, path: string): void {
  if (members.size === convertLimits.archiveEntriesMax) {
    const { archiveEntriesMax } = convertLimits;
    throw badArchive(path, `expected at most ${archiveEntriesMax} members, found more`);
  }
  const name = normal(textOf(entry.path));
  if (entry.type === 'file' && entry.storedBytes === entry.sizeBytes) {
    const offset = entry.position + TAR_BLOCK_BYTES;
    members.set(name, { kind: 'file', offset, sizeBytes: entry.sizeBytes });
  } else if (entry.type === 'link' || entry.type === 'symlink') {
    const link = textOf(entry.linkTarget);
    // A hard link names a member, a symbolic one a path from its own folder.
    const to = entry.type === 'link' ? link : posix.join(posix.dirname(name), link);
    members.set(name, { kind: 'link', to: normal(to) });
  }
}

/** A tar's text, a character a byte, as UTF-8. */
function textOf(bytes: string): string {
  return Buffer.from(bytes, 'latin1').toString();
}

function normal(name: string): string {
  return posix.normalize(`/${name}`).slice(1);
}

function badArchive(path: string, problem: string) {
  return sourceError('ERR_CONVERT_ARCHIVE', `${path}: docker archive: ${problem}.`);
}
