import { Option, type Command } from 'commander';
import { ReplaybdError } from '../base/errors.ts';
import { accelerationFiles } from '../daemon/acceleration-files.ts';
import { traceOfForeign } from '../daemon/foreign-trace.ts';
import { withTraceImage } from '../daemon/trace-image.ts';
import { pushAccelerated } from '../image/build/acceleration-image.ts';
import { digestOf } from '../registry/digest.ts';
import { decodeTrace } from '../trace/decode.ts';
import { encodeTraceWithinLimit } from '../trace/encode.ts';
import { packAccelerationLayer } from '../trace/overlaybd/acceleration-layer.ts';
import { readAnyTrace, type AnyTrace } from '../trace/overlaybd/any-trace.ts';
import { exportOverlaybdTrace } from '../trace/overlaybd/export.ts';
import { encodeOverlaybdTrace } from '../trace/overlaybd/format.ts';
import { readTraceFile } from '../trace/store.ts';
import { describeWorkload } from '../trace/trace.ts';
import { addRuntimeOptions, type RuntimeFlags } from './runtime-options.ts';
import { addLinkOptions, simulatedStart, startOf, type LinkFlags } from './simulated-link.ts';
import { complain } from './terminal.ts';
import { tellTruncated } from './truncated-plan.ts';
import { withImage, withRuntime } from './trace-image.ts';
import { tell, writeOutput } from './output.ts';
import { addWorkloadOptions, workloadOf, type WorkloadFlags } from './workload-options.ts';

interface ConvertFlags extends RuntimeFlags {
  image: string;
  output: string;
  json?: boolean;
}

interface ImportFlags extends ConvertFlags, WorkloadFlags {
  overlaybd?: boolean;
  paths?: boolean;
}

interface ExportFlags extends Omit<ConvertFlags, 'image'>, LinkFlags {
  image?: string;
  svg?: boolean;
  png?: boolean;
  csv?: boolean;
  axis: 'lba' | 'layers';
}

interface PackFlags extends RuntimeFlags {
  output?: string;
  push?: string;
  json?: boolean;
}

const IMAGE = 'config.v1.json or a registry reference: whose layers the trace is about';

/** One of the formats of `trace export`, which exclude each other. */
function format(flag: string, description: string): Option {
  const others = ['overlaybd', 'svg', 'png', 'csv'].filter((name) => `--${name}` !== flag);
  return new Option(flag, description).conflicts(others);
}

/** `replaybd trace import`, `trace export` and `trace pack-layer`. */
export function registerOverlaybd(trace: Command): void {
  const importing = trace
    .command('import')
    .description("make a trace of overlaybd's own trace, or of a list of paths in the image")
    .argument('<file>', "overlaybd's trace, or lines of paths; told apart by their first bytes")
    .option('--overlaybd', "refuse anything but overlaybd's trace")
    .option('--paths', 'refuse anything but a list of paths; a path that ends with / is a tree')
    .requiredOption('--image <image>', IMAGE)
    .requiredOption('-o, --output <file>', 'the trace to write')
    .option('--json', 'print what was taken over as JSON');
  addWorkloadOptions(addRuntimeOptions(importing)).action(importTrace);
  const exporting = trace
    .command('export')
    .description("make overlaybd's own trace, a picture or a table of a trace")
    .argument('<trace>', 'a trace file')
    .addOption(format('--overlaybd', "overlaybd's 24-byte records, the default; needs --image"))
    .addOption(format('--svg', 'a picture, time by place on the disk'))
    .addOption(format('--png', 'the same in pixels'))
    .addOption(format('--csv', 'the records, a line each'))
    .addOption(
      new Option(
        '--axis <order>',
        'of a picture: by address on the disk, or layers one above another',
      )
        .choices(['lba', 'layers'])
        .default('lba'),
    )
    .option('--image <image>', IMAGE)
    .requiredOption('-o, --output <file>', 'the file to write')
    .option('--json', 'print what was written as JSON');
  addRuntimeOptions(addLinkOptions(exporting)).action(exportTrace);
  const packing = trace
    .command('pack-layer')
    .description("put a trace on top of an image, as overlaybd's acceleration layer")
    .argument('<image>', 'registry reference, or with --output alone a config.v1.json')
    .argument('<file>', "a trace, overlaybd's trace, or a list of paths")
    .option(
      '--push <reference>',
      "push the image with the layer: another tag of the image's repository",
    )
    .option('-o, --output <file>', "write the layer's tar to a file")
    .option('--json', 'print the digests as JSON');
  addRuntimeOptions(packing).action(packLayer);
}

async function importTrace(file: string, flags: ImportFlags): Promise<void> {
  const source = await readForeign(file, flags);
  const workload = workloadOf(flags);
  const { trace, facts } = await withImage(flags, flags.image, workload, (target, signal) =>
    traceOfForeign(source, target, flags.image, signal),
  );
  await writeOutput(flags.output, encodeTraceWithinLimit(trace));
  tellTruncated(flags.output, trace.plan);
  const { output } = flags;
  const told = { output, ...facts, records: trace.records.count, planRanges: trace.plan.count };
  if (flags.json !== true) {
    for (const path of facts.missing) complain(`${path}: not in the image`);
    for (const { path, reason } of facts.failed) complain(`${path}: ${reason}`);
  }
  const taken =
    facts.kind === 'paths'
      ? `${facts.files} files (${facts.missing.length} paths missing, ${facts.failed.length} failed)`
      : `${facts.reads} reads (${facts.foreignReads} of no layer of the image)`;
  const text = `${output}: ${told.records} records, ${told.planRanges} plan ranges of ${taken}\n`;
  tell(flags, told, text);
}

async function exportTrace(file: string, flags: ExportFlags, command: Command): Promise<void> {
  if (flags.svg === true || flags.png === true || flags.csv === true) {
    await exportPicture(file, flags, command);
    return;
  }
  const { image, output } = flags;
  if (flags.bandwidth !== undefined || flags.rtt !== undefined || isGiven(command, 'policy')) {
    command.error('error: a simulated start is told by --svg, --png and --csv alone');
  }
  if (isGiven(command, 'axis')) command.error('error: --axis is for --svg and --png');
  if (image === undefined) command.error("error: overlaybd's trace needs --image <image>");
  const source = decodeTrace(await readTraceFile(file), file);
  const exported = await withImage(flags, image, source.workload, async (target) =>
    exportOverlaybdTrace(source, target.image, target.stack),
  );
  await writeOutput(flags.output, encodeOverlaybdTrace(exported.trace));
  const { foreignBytes } = exported;
  const records = exported.trace.count;
  const text = `${output}: ${records} records, ${foreignBytes} bytes of other layers left out\n`;
  tell(flags, { output, records, foreignBytes }, text);
}

/** For documents and other programs. */
async function exportPicture(file: string, flags: ExportFlags, command: Command): Promise<void> {
  if (flags.csv === true && isGiven(command, 'axis')) {
    command.error('error: --axis is for --svg and --png');
  }
  const options = startOf(flags, command);
  const { drawPicture } = await import('../../tui/pictures/picture.ts');
  const format = flags.svg === true ? 'svg' : flags.png === true ? 'png' : 'csv';
  const { records, content } = await drawPicture(file, format, {
    order: flags.axis,
    simulate: (trace) => simulatedStart(trace, options),
  });
  const { output } = flags;
  await writeOutput(output, content);
  const bytes = content.length;
  tell(flags, { output, records, bytes }, `${output}: ${records} records, ${bytes} bytes\n`);
}

async function packLayer(
  image: string,
  file: string,
  flags: PackFlags,
  command: Command,
): Promise<void> {
  const { push, output } = flags;
  if (push === undefined && output === undefined) {
    command.error('error: say where the layer goes: --push REF, --output FILE or both');
  }
  const source = await readAnyTrace(file);
  const workload = describeWorkload([], []);
  const done = await withRuntime(flags, async (runtime, signal) => {
    const files = await withTraceImage(
      runtime,
      image,
      workload,
      (target) => accelerationFiles(source, target, image, signal),
      signal,
    );
    const layer = packAccelerationLayer(files);
    if (output !== undefined) await writeOutput(output, layer);
    const manifest =
      push === undefined ? null : await pushAccelerated(runtime.client, image, push, layer);
    const facts = { layer: digestOf(layer), layerBytes: layer.length, manifest };
    return { output: output ?? null, ...facts };
  });
  const pushed = done.manifest === null ? '' : `image ${done.manifest}\n`;
  tell(flags, done, `layer ${done.layer} ${done.layerBytes} bytes\n${pushed}`);
}

async function readForeign(
  file: string,
  flags: ImportFlags,
): Promise<Exclude<AnyTrace, { kind: 'replaybd' }>> {
  const found = await readAnyTrace(file);
  const isWanted =
    (flags.overlaybd !== true || found.kind === 'overlaybd') &&
    (flags.paths !== true || found.kind === 'paths');
  if (isWanted && found.kind !== 'replaybd') return found;
  const expected =
    flags.overlaybd === true ? "overlaybd's trace" : "overlaybd's trace or a list of paths";
  const kinds = { replaybd: 'a trace of replaybd', overlaybd: "overlaybd's trace", paths: 'text' };
  throw new ReplaybdError(
    'ERR_TRACE_MAGIC',
    `${file}: expected ${flags.paths === true ? 'a list of paths' : expected}, ` +
      `found ${kinds[found.kind]}.`,
  );
}

function isGiven(command: Command, option: string): boolean {
  return command.getOptionValueSource(option) === 'cli';
}
