import type { Command } from 'commander';
import { mergeInput } from '../image/tools/merge.ts';
import { withInput } from './input.ts';
import {
  addCodingOptions,
  addOutputOptions,
  codingOf,
  printLayer,
  writeLayerFor,
  type LayerFlags,
} from './layer-options.ts';
import { addRuntimeOptions, type RuntimeFlags } from './runtime-options.ts';
import { uploadIfAsked } from './upload.ts';

interface MergeFlags extends LayerFlags, RuntimeFlags {
  compress: boolean;
  upload?: string;
}

/** `replaybd merge`. */
export function register(program: Command): void {
  const command = program
    .command('merge')
    .description('flatten layers, and the writable one on top of them, to one layer')
    .argument(
      '<files...>',
      'a config.v1.json or layer files, bottom first; then the layer to write',
    )
    .option('--compress', 'compress the layer (default)', true)
    .option('--no-compress', 'do not compress it');
  addOutputOptions(addCodingOptions(command)).option(
    '--upload <repository>',
    'push the result as a blob: an image reference, or https://host/v2/NAME/blobs/uploads',
  );
  addRuntimeOptions(command).action(run);
}

async function run(files: string[], flags: MergeFlags, command: Command): Promise<void> {
  const path = files.at(-1) ?? '';
  const inputs = files.slice(0, -1);
  if (inputs.length === 0) command.error('error: name what to merge, and the layer to write');
  const zfile = flags.compress ? { ...codingOf(flags), overwriteHeader: false } : null;
  const packing = { zfile, tar: flags.tar ?? false };
  const output = await withInput(inputs, flags, (input) =>
    writeLayerFor(flags, path, packing, (options) => mergeInput(input, options)),
  );
  printLayer(output, await uploadIfAsked(path, flags), flags.json === true);
}
