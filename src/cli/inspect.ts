import type { Command } from 'commander';
import { inspectInput, type ImageReport, type LayerReport } from '../image/inspect.ts';
import { withInput } from './input.ts';
import { addRuntimeOptions, type RuntimeFlags } from './runtime-options.ts';
import { formatBytes } from './terminal.ts';

interface InspectFlags extends RuntimeFlags {
  json?: boolean;
}

/** `replaybd inspect`. */
export function register(program: Command): void {
  const command = program
    .command('inspect')
    .description('say what layers hold, and what they make together')
    .argument('<paths...>', 'a config.v1.json, or layer files, bottom first')
    .option('--json', 'print the report as JSON');
  addRuntimeOptions(command).action(run);
}

async function run(paths: string[], flags: InspectFlags): Promise<void> {
  const report = await withInput(paths, flags, async (input) => inspectInput(input));
  const text = flags.json === true ? JSON.stringify(report, null, 2) : describe(report);
  process.stdout.write(`${text}\n`);
}

function describe({ layers, merged, upper }: ImageReport): string {
  const lines = layers.flatMap((layer, number) => describeLayer(layer, number));
  if (upper !== null) {
    const size = formatBytes(upper.virtualSizeBytes);
    lines.push(
      `upper    ${upper.name}`,
      `         ${upper.kind}, disk ${size}, ${upper.entries} entries`,
    );
  }
  const served = merged.servedBytes.map(formatBytes).join(', ');
  lines.push(
    `merged   disk ${formatBytes(merged.virtualSizeBytes)}, ${merged.segments} segments`,
    `         served by layer: ${served}`,
    `         zeroed ${formatBytes(merged.zeroedBytes)}, holes ${formatBytes(merged.holeBytes)}`,
  );
  return lines.join('\n');
}

function describeLayer(layer: LayerReport, number: number): string[] {
  const { index } = layer;
  const checksums = layer.blockChecksums === true ? ', with checksums' : '';
  const blocks =
    layer.blockBytes === null ? '' : ` in blocks of ${formatBytes(layer.blockBytes)}${checksums}`;
  const lines = [
    `${layer.kind}, disk ${formatBytes(layer.virtualSizeBytes)}`,
    `uuid ${layer.uuid ?? 'none'}, parent ${layer.parentUuid ?? 'none'}`,
    `blob ${formatBytes(layer.blobBytes)}${layer.tarWrapper ? ' in a tar' : ''}, ` +
      `compression ${layer.compression}${blocks}, ratio ${layer.compressionRatio.toFixed(2)}`,
    `index ${index.entries} entries (${index.zeroedEntries} zeroed): ` +
      `${formatBytes(index.dataBytes)} of data, ${formatBytes(index.zeroedBytes)} zeroed`,
    `entries ${formatBytes(index.entryBytesMedian)} in the median, ` +
      `${formatBytes(index.entryBytesMax)} at most; ${formatBytes(layer.metadataBytes)} of metadata`,
  ];
  // A message comes from whoever made the layer: quoted, so that it cannot steer a terminal.
  if (layer.userTag !== '') lines.push(`message ${JSON.stringify(layer.userTag)}`);
  return [
    `layer ${String(number).padEnd(3)}${layer.name}`,
    ...lines.map((line) => `         ${line}`),
  ];
}
