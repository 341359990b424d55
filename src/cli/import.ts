import { Option, type Command } from 'commander';
import { importImage, type DiskFormat } from '../image/tools/import.ts';
import {
  addCodingOptions,
  addOutputOptions,
  codingOf,
  printLayer,
  writeLayerFor,
  type LayerFlags,
} from './layer-options.ts';

interface ImportFlags extends LayerFlags {
  format?: DiskFormat;
  message?: string;
  uuid?: string;
  compress?: boolean;
}

/** `replaybd import`. */
export function register(program: Command): void {
  const command = program
    .command('import')
    .description('make a bottom layer of a disk image')
    .argument('<image>', 'a raw image, or a qcow2 one (through qemu-img)')
    .argument('<layer>', 'the layer to write')
    .addOption(
      new Option('--format <name>', 'of the image (default: what it begins as)').choices([
        'raw',
        'qcow2',
      ]),
    )
    .option('-m, --message <text>', 'commit message, at most 256 bytes')
    .option('--uuid <uuid>', 'UUID of the layer (default: none)')
    .option('-z, --compress', 'compress the layer');
  addOutputOptions(addCodingOptions(command)).action(run);
}

async function run(image: string, path: string, flags: ImportFlags): Promise<void> {
  const { format, message: userTag = '', uuid = null } = flags;
  const zfile = flags.compress === true ? codingOf(flags) : null;
  const output = await writeLayerFor(flags, path, { zfile, tar: flags.tar ?? false }, (options) =>
    importImage(image, { ...options, format, userTag, uuid }),
  );
  printLayer(output, null, flags.json === true);
}
