import type { Command } from 'commander';
import { compressToZFile, extractZFile, verifyZFile } from '../image/tools/zfile.ts';
import { ORIGINAL_READS_BYTES_MAX } from '../image/zfile/writer.ts';
import {
  addCodingOptions,
  addOutputOptions,
  codingOf,
  warnOfLongBlock,
  type LayerFlags,
} from './layer-options.ts';
import { formatBytes, interruptible, ProgressLine } from './terminal.ts';

interface ZFileFlags extends LayerFlags {
  extract?: boolean;
  verify?: boolean;
}

/** `replaybd zfile`. */
export function register(program: Command): void {
  const command = program
    .command('zfile')
    .description('compress a file to a ZFile, or take one apart')
    .argument('<files...>', 'SOURCE TARGET; TARGET alone compresses standard input')
    .option('-x, --extract', 'decompress SOURCE to TARGET')
    .option('--verify', 'check every block of the one file that is named; write nothing');
  addOutputOptions(addCodingOptions(command)).action(run);
}

async function run(files: string[], flags: ZFileFlags, command: Command): Promise<void> {
  const isExtract = flags.extract === true;
  const isVerify = flags.verify === true;
  if (isExtract && isVerify) command.error('error: --extract and --verify exclude each other');
  const isWrong = isVerify
    ? files.length !== 1
    : files.length > 2 || (isExtract && files.length !== 2);
  if (isWrong)
    command.error(`error: expected ${usage(isExtract, isVerify)}, found ${files.length}`);
  const progress = new ProgressLine();
  const onProgress = (bytes: number) => progress.show(formatBytes(bytes));
  const replace = flags.force ?? false;
  await interruptible(async (signal) => {
    const options = { replace, isDurable: flags.sync, onProgress, signal };
    const [first = '', target = first] = files;
    if (isVerify) return { verified: first, ...(await verifyZFile(first, options)) };
    if (isExtract) return { target, ...(await extractZFile(first, target, options)) };
    const source = files.length === 1 ? process.stdin : first;
    const all = { ...options, coding: codingOf(flags), tar: flags.tar ?? false };
    const written = await compressToZFile(source, target, all);
    if (written.storedBlockBytesMax > ORIGINAL_READS_BYTES_MAX) warnOfLongBlock(target);
    return written;
  })
    .finally(() => progress.clear())
    .then((result) => print(result, flags.json === true));
}

function usage(isExtract: boolean, isVerify: boolean): string {
  if (isVerify) return 'one file';
  return isExtract ? 'SOURCE and TARGET' : 'SOURCE and TARGET, or TARGET';
}

interface Result {
  originalBytes: number;
  storedBytes: number;
  blockCount: number;
}

function print(result: Result, asJson: boolean): void {
  const { originalBytes, storedBytes, blockCount } = result;
  const text = asJson
    ? JSON.stringify(result)
    : `${formatBytes(originalBytes)} in ${blockCount} blocks, ${formatBytes(storedBytes)} stored`;
  process.stdout.write(`${text}\n`);
}
