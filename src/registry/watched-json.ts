import { readFile, stat } from 'node:fs/promises';
import { codeOf, messageOf, ReplaybdError } from '../base/errors.ts';
import { parseJsonObject } from './collect.ts';

const FILE_BYTES_MAX = 4 * 1024 * 1024;

/** A small JSON file that is read again whenever it has changed. */
export class WatchedJson {
  readonly path: string;
  #stamp = '';
  #value: Record<string, unknown> | null = null;

  constructor(path: string) {
    this.path = path;
  }

  /** The object in the file; null when there is no file. ERR_CREDENTIAL_FILE when unusable. */
  async read(): Promise<Record<string, unknown> | null> {
    try {
      const facts = await stat(this.path, { bigint: true });
      const stamp = `${facts.ino} ${facts.mtimeNs} ${facts.size}`;
      if (stamp === this.#stamp) return this.#value;
      if (facts.size > FILE_BYTES_MAX) throw this.#unusable(`more than ${FILE_BYTES_MAX} bytes`);
      const value = parseJsonObject(await readFile(this.path));
      if (value === null) throw this.#unusable('something else');
      this.#value = value;
      this.#stamp = stamp;
      return value;
    } catch (error) {
      if (error instanceof ReplaybdError) throw error;
      if (codeOf(error) === 'ENOENT' || codeOf(error) === 'ENOTDIR') return null;
      throw this.#unusable(messageOf(error), error);
    }
  }

  #unusable(found: string, cause?: unknown): ReplaybdError {
    const message = `${this.path}: expected a JSON object, found ${found}.`;
    return new ReplaybdError('ERR_CREDENTIAL_FILE', message, { errno: 'EACCES', cause });
  }
}
