import type { Command } from 'commander';
import { ReplaybdError } from '../base/errors.ts';
import { silentLogger } from '../base/log.ts';
import { overlaybdTraceLimits } from '../base/limits.ts';
import { describeImage } from '../daemon/image-description.ts';
import type { RegistryClient } from '../registry/client.ts';
import { parseReference } from '../registry/reference.ts';
import { decodeTrace } from '../trace/decode.ts';
import { formatSummary, summariseTrace } from '../trace/describe.ts';
import { formatOverlaybdSummary, summariseOverlaybdTrace } from '../trace/overlaybd/describe.ts';
import { decodeOverlaybdTrace, hasOverlaybdTraceMagic } from '../trace/overlaybd/format.ts';
import { registerCheck } from './trace-check.ts';
import { registerDiff } from './trace-diff.ts';
import { registerMerge } from './trace-merge.ts';
import { pullTrace, pushTrace } from '../trace/referrer.ts';
import { updateFacts } from '../trace/store-catalog.ts';
import { imageKey, readTraceFile } from '../trace/store.ts';
import { isWorkloadKey } from '../trace/workload.ts';
import { registerFiles } from './trace-files.ts';
import { registerOverlaybd } from './trace-overlaybd.ts';
import { registerStore, storeOf, type StoreFlags } from './trace-store.ts';
import { STANDARD_OUTPUT, tell, writeOutput } from './output.ts';
import { registerPack } from './trace-pack.ts';
import { registerSimulate } from './trace-simulate.ts';
import { registerRebase } from './trace-rebase.ts';
import {
  addWorkloadOptions,
  namesWorkload,
  workloadOf,
  type WorkloadFlags,
} from './workload-options.ts';
import { addRegistryOptions, addTraceFolderOption, withRegistry } from './registry-options.ts';

interface TraceOfFlags extends StoreFlags, WorkloadFlags {}

interface PushFlags extends TraceOfFlags {
  blob?: string;
}

interface PullFlags extends TraceOfFlags {
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
  addWorkloadOptions(addTraceFolderOption(addRegistryOptions(trace.command('push'))))
    .description('attach a trace to an image, as an OCI referrer')
    .argument('<image>', 'registry reference (http:// in front for one without TLS)')
    .argument('[file]', "a trace file; the local store's of image and workload without one")
    .option('--blob <file>', 'the hot blob of a packed trace, which the repository lacks')
    .action(push);
  addWorkloadOptions(addTraceFolderOption(addRegistryOptions(trace.command('pull'))))
    .description("fetch an image's latest trace into the local store")
    .argument('<image>', 'registry reference')
    .option('-o, --output <file>', 'into a file instead of the store')
    .action(pull);
  registerStore(trace);
  registerFiles(trace);
  registerRebase(trace);
  registerOverlaybd(trace);
  registerMerge(trace);
  registerDiff(trace);
  registerCheck(trace);
  registerSimulate(trace);
  registerPack(trace);
}

async function show(file: string, flags: { json?: boolean }): Promise<void> {
  const bytes = await readTraceFile(file, overlaybdTraceLimits.fileBytesMax);
  if (hasOverlaybdTraceMagic(bytes)) {
    const facts = summariseOverlaybdTrace(decodeOverlaybdTrace(bytes, file), bytes.length);
    tell(flags, facts, formatOverlaybdSummary(facts));
    return;
  }
  const summary = summariseTrace(decodeTrace(bytes, file), bytes.length);
  tell(flags, summary, formatSummary(summary));
}

async function verify(file: string, flags: { json?: boolean }): Promise<void> {
  try {
    const bytes = await readTraceFile(file, overlaybdTraceLimits.fileBytesMax);
    if (hasOverlaybdTraceMagic(bytes)) {
      const records = decodeOverlaybdTrace(bytes, file).count;
      const text = `${file}: sound, ${records} records of overlaybd\n`;
      tell(flags, { file, ok: true, records }, text);
      return;
    }
    const { records, plan } = decodeTrace(bytes, file);
    const facts = { file, ok: true, records: records.count, planRanges: plan.count };
    const text = `${file}: sound, ${facts.records} records, ${facts.planRanges} plan ranges\n`;
    tell(flags, facts, text);
  } catch (error) {
    if (flags.json !== true || !(error instanceof ReplaybdError)) throw error;
    const { code, message } = error;
    tell(flags, { file, ok: false, code, message }, '');
    process.exitCode = 1;
  }
}

async function push(image: string, file: string | undefined, flags: PushFlags): Promise<void> {
  const { digest } = await withRegistry(flags, async (client) => {
    const path = file ?? (await storedPath(client, image, flags));
    const bytes = await readTraceFile(path);
    decodeTrace(bytes, path);
    const hot = flags.blob === undefined ? {} : { hotBlobPath: flags.blob };
    return await pushTrace(client, image, bytes, hot);
  });
  process.stdout.write(`${digest}\n`);
}

/** Where the store has the trace of an image and a workload. */
async function storedPath(
  client: RegistryClient,
  image: string,
  flags: TraceOfFlags,
): Promise<string> {
  const nothing = () => undefined;
  const { identity } = await describeImage(image, client, {
    ...{ identify: true, onRepository: nothing, onResultFile: nothing, log: silentLogger },
  });
  return (await storeOf(flags)).path(imageKey(identity), keyOf(flags) ?? workloadOf({}).key);
}

/** The key of the workload that flags name, by its words or as it is; undefined without any. */
function keyOf(flags: WorkloadFlags): string | undefined {
  if (!namesWorkload(flags)) return undefined;
  const [word = '', ...others] = flags.workload ?? [];
  return others.length === 0 && isWorkloadKey(word) ? word : workloadOf(flags).key;
}

async function pull(image: string, flags: PullFlags): Promise<void> {
  const wanted = keyOf(flags);
  const pulled = await withRegistry(flags, (client) => pullTrace(client, image, wanted));
  if (pulled === null) {
    throw new ReplaybdError(
      'ERR_TRACE_NOT_FOUND',
      `${image}: expected a trace${wanted === undefined ? '' : ' of this workload'}, ` +
        'found none in the registry. Record one and push it.',
    );
  }
  const { trace, bytes } = pulled;
  let path = flags.output;
  if (path === undefined) {
    const store = await storeOf(flags);
    const [key, workload] = [imageKey(trace.image), trace.workload.key];
    path = await store.put(key, workload, bytes);
    const { host, repository } = parseReference(image);
    const facts = { image, repository: `${host}/${repository}`, origin: 'pulled' as const };
    await updateFacts(store, key, workload, (before) => ({ ...before, ...facts }));
  } else {
    await writeOutput(path, bytes);
  }
  if (path !== STANDARD_OUTPUT) process.stdout.write(`${path}\n`);
}
