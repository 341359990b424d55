import { readFile, stat } from 'node:fs/promises';
import { messageOf, ReplaybdError } from './errors.ts';

/** The text of a configuration file. Throws ERR_CONFIG_READ, or ERR_CONFIG_SIZE beyond the limit. */
export async function readConfigFile(path: string, bytesMax: number): Promise<string> {
  try {
    const { size } = await stat(path);
    if (size <= bytesMax) return await readFile(path, 'utf8');
    throw new ReplaybdError(
      'ERR_CONFIG_SIZE',
      `${path}: expected at most ${bytesMax} bytes, found ${size}`,
    );
  } catch (error) {
    if (error instanceof ReplaybdError) throw error;
    throw new ReplaybdError('ERR_CONFIG_READ', `${path}: cannot be read: ${messageOf(error)}`, {
      cause: error,
    });
  }
}
