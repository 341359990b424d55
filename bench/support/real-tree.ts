import { copyFileSync, mkdirSync, statSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { walkFiles } from './real-data.ts';

/** What images hold: programs, libraries, text; modules where a machine has little else. */
const SOURCES = ['/usr/lib', '/usr/bin', '/usr/share', '/opt', 'node_modules'];

/**
 * Fills one folder after the other with `bytesEach` of this machine's files, whole, each at its own
 * path. Resolves to the number of files. Throws when the machine has fewer bytes.
 */
export function copyFiles(folders: readonly string[], bytesEach: number): number {
  let count = 0;
  let filled = 0;
  let left = bytesEach;
  for (const source of SOURCES) {
    for (const path of walkFiles(source)) {
      const { size } = statSync(path);
      if (size > left * 1.5) continue;
      const target = join(folders[filled], path);
      mkdirSync(dirname(target), { recursive: true });
      copyFileSync(path, target);
      count += 1;
      left -= size;
      if (left > 0) continue;
      filled += 1;
      left = bytesEach;
      if (filled === folders.length) return count;
    }
  }
  throw new Error(`this machine has files for ${filled} of ${folders.length} layers only`);
}
