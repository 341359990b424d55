import type { ExtendedAttribute } from '../../../native/extended-attributes.ts';
import { ReplaybdError, type ErrorCode } from '../../base/errors.ts';

export type TarEntryType =
  'file' | 'directory' | 'symlink' | 'link' | 'character' | 'block' | 'fifo';

/** One member of a tar, all its headers put together. */
export interface TarEntry {
  /** As written, a character a byte: in any encoding, and not checked for what it would reach. */
  path: string;
  type: TarEntryType;
  /** Of a symbolic or hard link, a character a byte. */
  linkTarget: string;
  /** Permission bits, set-user-ID and the like included, without the type. */
  mode: number;
  uid: number;
  gid: number;
  mtimeNs: bigint;
  /** Of the file, holes included. */
  sizeBytes: number;
  /** Content that the tar holds; less than `sizeBytes` for a sparse file. */
  storedBytes: number;
  device: { major: number; minor: number };
  /** Names are complete: `user.x`. */
  attributes: ExtendedAttribute[];
  /** Where its header is in the tar, in bytes; for messages. */
  position: number;
}

/** What a tar's entries are handed to, in order. All calls come from TarReader.push. */
export interface TarVisitor {
  entry(entry: TarEntry): void;
  /** A piece of the current file's content, at `offset` of the file. Valid during the call. Pieces
   * come in order; what lies between them is zeros. */
  content(offset: number, bytes: Buffer): void;
  /** The current entry, of any type, is complete. */
  endEntry(): void;
}

/** An error about the bytes of a tar at `position`. */
export function tarError(
  code: ErrorCode,
  position: number,
  expected: string,
  found: string,
): ReplaybdError {
  return new ReplaybdError(
    code,
    `tar at byte ${position}: expected ${expected}, found ${found}. Nothing of it was applied.`,
  );
}

/** Text for a message: printable, and not endless. */
export function shown(text: string): string {
  const TEXT_MAX = 200;
  const cut = text.length > TEXT_MAX ? `${text.slice(0, TEXT_MAX)}...` : text;
  return JSON.stringify(Buffer.from(cut, 'latin1').toString());
}
