import type { Command } from 'commander';
import { SECTOR_BYTES, traceLabLimits } from '../base/limits.ts';
import { printable } from '../base/printable.ts';
import { stackDisk } from '../daemon/stack-disk.ts';
import { decodeTrace } from '../trace/decode.ts';
import type { Stretch } from '../trace/diff-lists.ts';
import { diffTraces, type DiffCounts, type FileDiff, type TraceDiff } from '../trace/diff.ts';
import { fileFinder } from '../trace/file-finder.ts';
import { buildFileMap } from '../trace/file-map.ts';
import { readTraceFile } from '../trace/store.ts';
import type { Trace } from '../trace/trace.ts';
import { wholeNumber } from './arguments.ts';
import { addRuntimeOptions, type RuntimeFlags } from './runtime-options.ts';
import { formatBytes, formatTable } from './terminal.ts';
import { withImage } from './trace-image.ts';
import { tell } from './output.ts';

interface DiffFlags extends RuntimeFlags {
  top: number;
  image?: string;
  json?: boolean;
}

const TOP_DEFAULT = 10;
const KINDS = ['kept', 'moved', 'lost', 'new'] as const;
/** A digest's beginning, which tells the layers of two images apart. */
const DIGEST_LENGTH = 'sha256:'.length + 12;

/** `replaybd trace diff`. */
export function registerDiff(trace: Command): void {
  const command = trace
    .command('diff')
    .description('compare two traces: what stayed, moved, went and came, by layer')
    .argument('<first>', 'a trace file')
    .argument('<second>', 'a trace file, of the same image or another')
    .option(
      '--top <N>',
      'entries of each list',
      wholeNumber(0, traceLabLimits.listMax),
      TOP_DEFAULT,
    )
    .option(
      '--image <image>',
      'by file too: config.v1.json or a registry reference of either image',
    )
    .option('--json', 'as JSON');
  addRuntimeOptions(command).action(diff);
}

async function diff(first: string, second: string, flags: DiffFlags): Promise<void> {
  const [from, to] = [await read(first), await read(second)];
  const { image } = flags;
  const listMax = flags.top;
  const found =
    image === undefined
      ? diffTraces(from, to, { listMax })
      : await withImage(flags, image, from.workload, async (target, signal) => {
          const map = await buildFileMap(stackDisk(target.stack, image), { signal });
          return diffTraces(from, to, { listMax, filesOf: fileFinder(map, target) });
        });
  tell(flags, found, format(found));
}

async function read(file: string): Promise<Trace> {
  return decodeTrace(await readTraceFile(file), file);
}

function format(diff: TraceDiff): string {
  const { similarity, sectorShare, orderCorrelation } = diff;
  const head =
    `similarity ${similarity.toFixed(3)}: ${(sectorShare * 100).toFixed(1)} % of the bytes in ` +
    `common, correlation of their order ${orderCorrelation.toFixed(3)}\n\n`;
  const layers = diff.layers.map((layer) => {
    const { digest, inFirst, inSecond } = layer;
    const place = inFirst && inSecond ? 'both' : inFirst ? 'first' : 'second';
    return [digest.slice(0, DIGEST_LENGTH), place, ...bytesOf(layer)];
  });
  const table = formatTable([
    ['LAYER', 'IN', ...KINDS.map((kind) => kind.toUpperCase())],
    ...layers,
    ['all', '', ...bytesOf(diff)],
    ['parts', '', ...KINDS.map((kind) => String(diff[kind].parts))],
  ]);
  return (
    head +
    table +
    (['lost', 'new', 'moved'] as const).map((kind) => list(diff, kind)).join('') +
    (diff.files === null ? '' : fileList(diff.files))
  );
}

function fileList(files: readonly FileDiff[]): string {
  const rows = files.map(({ path, keptBytes, movedBytes, lostBytes, newBytes }) => [
    ...[keptBytes, movedBytes, lostBytes, newBytes].map(formatBytes),
    printable(path),
  ]);
  const heading = [...KINDS.map((kind) => kind.toUpperCase()), 'FILE'];
  return `\nfiles that differ most\n${formatTable([heading, ...rows])}`;
}

function bytesOf(counts: DiffCounts): string[] {
  return KINDS.map((kind) => formatBytes(counts[kind].bytes));
}

function list(diff: TraceDiff, kind: keyof TraceDiff['largest']): string {
  const stretches = diff.largest[kind];
  if (stretches.length === 0) return '';
  const rows = stretches.map(({ digest, lba, sectors, firstUs, secondUs }: Stretch) => [
    formatBytes(sectors * SECTOR_BYTES),
    digest.slice(0, DIGEST_LENGTH),
    String(lba),
    seconds(firstUs),
    seconds(secondUs),
  ]);
  const heading = [['SIZE', 'LAYER', 'LBA', 'FIRST AT', 'SECOND AT']];
  return `\nlargest ${kind}\n${formatTable([...heading, ...rows])}`;
}

function seconds(timeUs: number | null): string {
  return timeUs === null ? '-' : `${(timeUs / 1e6).toFixed(3)} s`;
}
