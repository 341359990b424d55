import type { Command } from 'commander';
import { writeFileAtomic } from '../base/atomic-file.ts';
import { ReplaybdError } from '../base/errors.ts';
import { overlaybdTraceLimits } from '../base/limits.ts';
import { decodeTrace } from '../trace/decode.ts';
import { formatSummary, summariseTrace } from '../trace/describe.ts';
import { formatOverlaybdSummary, summariseOverlaybdTrace } from '../trace/overlaybd/describe.ts';
import { decodeOverlaybdTrace, hasOverlaybdTraceMagic } from '../trace/overlaybd/format.ts';
import { listTraces, pullTrace, pushTrace, WORKLOAD_ANNOTATION } from '../trace/referrer.ts';
import { imageKey, readTraceFile, TraceStore } from '../trace/store.ts';
import { registerCheck } from './trace-check.ts';
import { registerDiff } from './trace-diff.ts';
import { registerMerge } from './trace-merge.ts';
import { registerFiles } from './trace-files.ts';
import { registerOverlaybd } from './trace-overlaybd.ts';
import { registerSimulate } from './trace-simulate.ts';
import { registerRebase } from './trace-rebase.ts';
import {
  addRegistryOptions,
  addTraceFolderOption,
  serviceConfigOf,
  withRegistry,
  type RegistryFlags,
} from './registry-options.ts';

interface StoreFlags extends RegistryFlags {
  traceDir?: string;
}

interface PullFlags extends StoreFlags {
  workload?: string;
  output?: string;
}

/** `replaybd trace`: look into trace files, and move them between disks and registries. */
export function register(program: Command): void {
  const trace = program.command('trace').description('inspect and distribute traces');
  trace
    .command('show')
    .description('print what a trace holds')
    .argument('<file>')
    .option('--json', 'as JSON')
    .action(show);
  trace
    .command('verify')
    .description('check a trace file; exits 1 when it is not sound')
    .argument('<file>')
    .option('--json', 'as JSON')
    .action(verify);
  addRegistryOptions(trace.command('push'))
    .description('attach a trace to an image, as an OCI referrer')
    .argument('<image>', 'registry reference (http:// in front for one without TLS)')
    .argument('<file>')
    .action(push);
  addTraceFolderOption(addRegistryOptions(trace.command('pull')))
    .description("fetch an image's latest trace into the local store")
    .argument('<image>', 'registry reference')
    .option('--workload <key>', 'of this workload')
    .option('-o, --output <file>', 'into a file instead of the store')
    .action(pull);
  addTraceFolderOption(addRegistryOptions(trace.command('ls')))
    .description('list the traces of an image in its registry, or of the local store')
    .argument('[image]', 'registry reference')
    .action(list);
  registerFiles(trace);
  registerRebase(trace);
  registerOverlaybd(trace);
  registerMerge(trace);
  registerDiff(trace);
  registerCheck(trace);
  registerSimulate(trace);
}

async function show(file: string, flags: { json?: boolean }): Promise<void> {
  const bytes = await readTraceFile(file, overlaybdTraceLimits.fileBytesMax);
  if (hasOverlaybdTraceMagic(bytes)) {
    const facts = summariseOverlaybdTrace(decodeOverlaybdTrace(bytes, file), bytes.length);
    process.stdout.write(flags.json === true ? json(facts) : formatOverlaybdSummary(facts));
    return;
  }
  const summary = summariseTrace(decodeTrace(bytes, file), bytes.length);
  process.stdout.write(flags.json === true ? json(summary) : formatSummary(summary));
}

async function verify(file: string, flags: { json?: boolean }): Promise<void> {
  const bytes = await readTraceFile(file, overlaybdTraceLimits.fileBytesMax);
  if (hasOverlaybdTraceMagic(bytes)) {
    const facts = { file, ok: true, records: decodeOverlaybdTrace(bytes, file).count };
    const text = `${file}: sound, ${facts.records} records of overlaybd\n`;
    process.stdout.write(flags.json === true ? json(facts) : text);
    return;
  }
  const { records, plan } = decodeTrace(bytes, file);
  const facts = { file, ok: true, records: records.count, planRanges: plan.count };
  const text = `${file}: sound, ${facts.records} records, ${facts.planRanges} plan ranges\n`;
  process.stdout.write(flags.json === true ? json(facts) : text);
}

async function push(image: string, file: string, flags: RegistryFlags): Promise<void> {
  const bytes = await readTraceFile(file);
  decodeTrace(bytes, file);
  const { digest } = await withRegistry(flags, (client) => pushTrace(client, image, bytes));
  process.stdout.write(`${digest}\n`);
}

async function pull(image: string, flags: PullFlags): Promise<void> {
  const pulled = await withRegistry(flags, (client) => pullTrace(client, image, flags.workload));
  if (pulled === null) {
    throw new ReplaybdError(
      'ERR_TRACE_NOT_FOUND',
      `${image}: expected a trace${flags.workload === undefined ? '' : ' of this workload'}, ` +
        'found none in the registry. Record one and push it.',
    );
  }
  const { trace, bytes } = pulled;
  let path = flags.output;
  if (path === undefined) {
    const store = await storeOf(flags);
    path = await store.put(imageKey(trace.image), trace.workload.key, bytes);
  } else {
    await writeFileAtomic(path, bytes);
  }
  process.stdout.write(`${path}\n`);
}

async function list(image: string | undefined, flags: StoreFlags): Promise<void> {
  if (image !== undefined) {
    for (const found of await withRegistry(flags, (client) => listTraces(client, image))) {
      const workload = found.annotations?.[WORKLOAD_ANNOTATION] ?? 'unknown workload';
      process.stdout.write(`${found.digest}  ${workload}\n`);
    }
    return;
  }
  for (const stored of await (await storeOf(flags)).list()) {
    const modified = new Date(stored.modifiedAtMs).toISOString();
    process.stdout.write(`${modified}  ${String(stored.sizeBytes).padStart(8)}  ${stored.path}\n`);
  }
}

/** The store that `attach` would use with the same flags. */
async function storeOf(flags: StoreFlags): Promise<TraceStore> {
  const folder = flags.traceDir ?? (await serviceConfigOf(flags))?.replaybd.traceDir;
  return new TraceStore(folder ?? undefined);
}

function json(value: unknown): string {
  return `${JSON.stringify(value, null, 2)}\n`;
}
