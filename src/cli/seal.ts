import type { Command } from 'commander';
import { sealLayer } from '../image/tools/seal.ts';

interface SealFlags {
  json?: boolean;
}

/** `replaybd seal`. */
export function register(program: Command): void {
  program
    .command('seal')
    .description('make a writable layer read-only in place: DATA is a layer afterwards')
    .argument('<data>', 'its data file')
    .argument('<index>', 'its index file, which is not needed any more afterwards')
    .option('--json', 'print the result as JSON')
    .action((data: string, index: string, flags: SealFlags) => sealAndSay(data, index, flags));
}

/** Seals, and says what came of it; `replaybd commit --seal` does the same. */
export async function sealAndSay(data: string, index: string, flags: SealFlags): Promise<void> {
  const sealed = await sealLayer({ data, index });
  const text =
    flags.json === true
      ? JSON.stringify(sealed)
      : `${sealed.path}: sealed, ${sealed.entries} entries`;
  process.stdout.write(`${text}\n`);
}
