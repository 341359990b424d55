import { existsSync } from 'node:fs';
import { dirname } from 'node:path';
import { fileURLToPath } from 'node:url';

/** The folder of package.json: this file runs from src/ as well as from dist/src/. */
export const packageRoot: string = findPackageRoot(dirname(fileURLToPath(import.meta.url)));

function findPackageRoot(folder: string): string {
  if (existsSync(`${folder}/package.json`)) return folder;
  const parent = dirname(folder);
  if (parent === folder) throw new Error('replaybd: package.json not found above this file');
  return findPackageRoot(parent);
}

/** URL of a module beside `importMetaUrl`, with the suffix this process runs (.ts or .js). */
export function siblingModule(name: string, importMetaUrl: string): URL {
  return new URL(`./${name}${importMetaUrl.endsWith('.ts') ? '.ts' : '.js'}`, importMetaUrl);
}
