import { Option, type Command } from 'commander';
import { commitSealed, commitUpper } from '../image/tools/commit.ts';
import type { LayerPacking } from '../image/layer-writer.ts';
import { addUploadOption, uploadIfAsked } from './upload.ts';
import {
  addCodingOptions,
  addOutputOptions,
  codingOf,
  printLayer,
  writeLayerFor,
  type LayerFlags,
} from './layer-options.ts';
import type { RegistryFlags } from './registry-options.ts';
import { sealAndSay } from './seal.ts';

interface CommitFlags extends LayerFlags, RegistryFlags {
  message?: string;
  uuid?: string;
  parentUuid?: string;
  compress?: boolean;
  seal?: boolean;
  commitSealed?: boolean;
  dropZeroes?: boolean;
  upload?: string;
}

/** `replaybd commit`. */
export function register(program: Command): void {
  const command = program
    .command('commit')
    .description('make a read-only layer of a writable one')
    .argument(
      '<files...>',
      'DATA INDEX OUTPUT; with --commit-sealed SEALED OUTPUT; with --seal DATA INDEX',
    )
    .option('-m, --message <text>', 'commit message, at most 256 bytes')
    .option('--uuid <uuid>', 'UUID of the layer (default: none)')
    .option('-p, --parent-uuid <uuid>', "UUID of the layer below (default: the source's)")
    .option('-z, --compress', 'compress the layer');
  addCodingOptions(command);
  addOutputOptions(command)
    .addOption(
      new Option('--seal', 'seal DATA in place instead: its index goes behind its data').conflicts([
        'commitSealed',
        'upload',
        'tar',
        'compress',
        'dropZeroes',
      ]),
    )
    .option('--commit-sealed', 'commit a sealed layer')
    .option('--drop-zeroes', "store no blocks of zeros (the bytes are not the original's then)");
  addUploadOption(command).action(run);
}

async function run(files: string[], flags: CommitFlags, command: Command): Promise<void> {
  const wanted = flags.seal === true || flags.commitSealed === true ? 2 : 3;
  if (files.length !== wanted) {
    command.error(`error: expected ${wanted} files, found ${files.length}`);
  }
  if (flags.seal === true) {
    const [data = '', index = ''] = files;
    await sealAndSay(data, index, flags);
    return;
  }
  const path = files[files.length - 1] ?? '';
  // What is streamed to a registry cannot be rewritten at its start: the original's bytes.
  const overwriteHeader = flags.upload === undefined || flags.tar === true;
  const packing: LayerPacking = {
    zfile: flags.compress === true ? { ...codingOf(flags), overwriteHeader } : null,
    tar: flags.tar ?? false,
  };
  const { message: userTag = '', uuid = null, parentUuid, dropZeroes = false } = flags;
  const output = await writeLayerFor(flags, path, packing, (options) => {
    const all = { ...options, userTag, uuid, parentUuid, dropZeroes };
    const [data = '', index = ''] = files;
    return flags.commitSealed === true ? commitSealed(data, all) : commitUpper(data, index, all);
  });
  printLayer(output, await uploadIfAsked(path, flags), flags.json === true);
}
