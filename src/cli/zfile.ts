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
    .argument('<files...>', 'SOURCE TARGET; without SOURCE, or for "-", it is standard input')
    .option('-x, --extract', 'decompress SOURCE to TARGET')
    .option('--verify', 'check every block of the one file that is named; write nothing');
  addOutputOptions(addCodingOptions(command)).action(run);
}

async function run(files: string[], flags: ZFileFlags, command: Command): Promise<void> {
  const isExtract = flags.extract === true;
  const isVerify = flags.verify === true;
  if (isExtract && isVerify) command.error('error: --extract and --verify exclude each other');
  const most = isVerify ? 1 : 2;
  if (files.length > most) command.error(`error: expected ${most} files, found ${files.length}`);
  const sourcePath = isVerify || files.length === 2 ? files[0] : '-';
  const source = sourcePath === '-' ? process.stdin : sourcePath;
  const target = files.at(-1) ?? '';
  const progress = new ProgressLine();
  const onProgress = (bytes: number) => progress.show(formatBytes(bytes));
  const replace = flags.force ?? false;
  const result = await interruptible(async (signal) => {
    const options = { replace, isDurable: flags.sync, onProgress, signal };
    if (isVerify) return { verified: sourcePath, ...(await verifyZFile(source, options)) };
    if (isExtract) return { target, ...(await extractZFile(source, target, options)) };
    const all = { ...options, coding: codingOf(flags), tar: flags.tar ?? false };
    const written = await compressToZFile(source, target, all);
    if (written.storedBlockBytesMax > ORIGINAL_READS_BYTES_MAX) warnOfLongBlock(target);
    return written;
  }).finally(() => progress.clear());
  print(result, flags.json === true);
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
