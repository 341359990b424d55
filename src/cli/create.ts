import type { Command } from 'commander';
import { createLayer } from '../image/tools/create.ts';
import { wholeNumber } from './arguments.ts';
import { interruptible } from './terminal.ts';

interface CreateFlags {
  parentUuid?: string;
  sparse?: boolean;
  mkfs?: boolean;
  json?: boolean;
}

const GIB = 2 ** 30;
const VIRTUAL_SIZE_GIB_MAX = 16 * 1024;

/** `replaybd create`. */
export function register(program: Command): void {
  program
    .command('create')
    .description('create an empty writable layer')
    .argument('<data>', 'the file for its data')
    .argument('<index>', "the file for its index; a sparse layer's stays empty")
    .argument('<GiB>', 'size of the disk', wholeNumber(1, VIRTUAL_SIZE_GIB_MAX))
    .option('-u, --parent-uuid <uuid>', 'UUID of the layer below (default: none)')
    .option('-s, --sparse', 'one sparse file, in which data lies as on the disk')
    .option('--mkfs', 'make an empty ext4 file system on the disk')
    .option('--json', 'print the result as JSON')
    .action(run);
}

async function run(data: string, index: string, gib: number, flags: CreateFlags): Promise<void> {
  const { parentUuid = null, mkfs = false } = flags;
  const kind = flags.sparse === true ? 'sparse' : 'append';
  const virtualSizeBytes = gib * GIB;
  await interruptible((signal) =>
    createLayer({ data, index, kind, virtualSizeBytes, parentUuid, mkfs, signal }),
  );
  const result = { data, index, kind, virtualSizeBytes };
  const text =
    flags.json === true ? JSON.stringify(result) : 'replaybd create has created files SUCCESSFULLY';
  process.stdout.write(`${text}\n`);
}
