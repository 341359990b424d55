import { open, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { codeOf } from '../../base/errors.ts';
import { sourceError } from './source.ts';

/** A range of a file on disk. */
export interface FilePart {
  path: string;
  offset: number;
  sizeBytes: number;
}

/** Files by relative name: a folder, or the members of a tar. */
export interface LayoutFiles {
  /** For messages. */
  readonly name: string;
  /** Null when there is none of that name. */
  locate(name: string): Promise<FilePart | null>;
}

/** The files of a folder. Names must be safe to join to its path. */
export function folderFiles(folder: string): LayoutFiles {
  return {
    name: folder,
    locate: async (name) => {
      const path = join(folder, name);
      try {
        const facts = await stat(path);
        return facts.isFile() ? { path, offset: 0, sizeBytes: facts.size } : null;
      } catch (error) {
        if (codeOf(error) === 'ENOENT' || codeOf(error) === 'ENOTDIR') return null;
        throw error;
      }
    },
  };
}

/** The bytes of a part; ERR_CONVERT_SOURCE when it is shorter than it was. */
export async function readPart(part: FilePart): Promise<Buffer> {
  const file = await open(part.path, 'r');
  try {
    const bytes = Buffer.alloc(part.sizeBytes);
    let done = 0;
    while (done < bytes.length) {
      const left = bytes.length - done;
      const { bytesRead } = await file.read(bytes, done, left, part.offset + done);
      if (bytesRead === 0) {
        throw sourceError(
          'ERR_CONVERT_SOURCE',
          `${part.path}: expected ${left} bytes at ${part.offset + done}, found the file's end.`,
        );
      }
      done += bytesRead;
    }
    return bytes;
  } finally {
    await file.close();
  }
}

/** A small file whole. Throws ERR_CONVERT_SOURCE when it is missing or longer than `bytesMax`. */
export async function readSmall(
  files: LayoutFiles,
  name: string,
  bytesMax: number,
): Promise<Buffer> {
  const part = await files.locate(name);
  if (part === null) {
    throw sourceError('ERR_CONVERT_SOURCE', `${files.name}: expected a file ${name}, found none.`);
  }
  if (part.sizeBytes > bytesMax) {
    throw sourceError(
      'ERR_CONVERT_SOURCE',
      `${files.name}: ${name}: expected at most ${bytesMax} bytes, found ${part.sizeBytes}.`,
    );
  }
  return readPart(part);
}
