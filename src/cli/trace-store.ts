import type { Command } from 'commander';
import { collectGarbage, type GcOptions } from '../trace/store-gc.ts';
import { describeStored, formatStored } from '../trace/store-describe.ts';
import { printable } from '../base/printable.ts';
import { listCatalog } from '../trace/store-catalog.ts';
import { isOfImage, selectTraces, selectTracesOfImage, shortKey } from '../trace/store-select.ts';
import {
  CREATED_ANNOTATION,
  deleteTrace,
  listTraces,
  WORKLOAD_ANNOTATION,
  WORKLOAD_TEXT_ANNOTATION,
} from '../trace/referrer.ts';
import { ReplaybdError } from '../base/errors.ts';
import { TraceStore } from '../trace/store.ts';
import { byteSize, duration, wholeNumber } from './arguments.ts';
import {
  addRegistryOptions,
  addTraceFolderOption,
  serviceConfigOf,
  withRegistry,
  type RegistryFlags,
} from './registry-options.ts';
import { formatBytes, interruptible } from './terminal.ts';
import { tell } from './output.ts';

export interface StoreFlags extends RegistryFlags {
  traceDir?: string;
  json?: boolean;
}

interface ListFlags extends StoreFlags {
  local?: boolean;
}

interface RemoveFlags extends StoreFlags {
  image?: string;
  remote?: string;
  force?: boolean;
}

interface GcFlags extends StoreFlags {
  maxAge?: number;
  maxBytes?: number;
  keepRuns?: number;
  dryRun?: boolean;
}

const KEY = 'as `trace ls` shows it, or the path of the file';

/** `replaybd trace ls`, `rm`, `gc`, `pin` and `unpin`: what is in the store, and what stays there. */
export function registerStore(trace: Command): void {
  const store = (name: string): Command =>
    addTraceFolderOption(addRegistryOptions(trace.command(name))).option('--json', 'as JSON');
  store('ls')
    .description('list the traces of an image in its registry, or of the local store')
    .argument('[image]', 'registry reference')
    .option('--local', "of the local store, also with an image: only that image's")
    .action(list);
  store('rm')
    .description('remove traces from the local store, or from an image in its registry')
    .argument('[key...]', `${KEY}; with --remote, digests`)
    .option('--image <image>', 'all traces of an image, as it was named')
    .option('--remote <image>', "detach the image's traces of these digests in its registry")
    .option('--force', 'also what is pinned')
    .action(remove);
  store('gc')
    .description('remove what crashes left in the local store, and traces beyond the bounds given')
    .option('--max-age <time>', 'not recorded or replayed for so long: 30d, 12h', duration)
    .option('--max-bytes <bytes>', 'so many bytes of traces stay: 500MB, 2GiB', byteSize)
    .option(
      '--keep-runs <n>',
      'of each repository and workload the latest recordings stay whatever the bounds say',
      wholeNumber(0),
    )
    .option('--dry-run', 'only say what would go')
    .action(collect);
  store('pin')
    .description('keep traces: they are neither collected nor replaced by themselves')
    .argument('<key...>', KEY)
    .action((keys: string[], flags: StoreFlags) => setPinned(keys, flags, true));
  store('unpin')
    .description('end that')
    .argument('<key...>', KEY)
    .action((keys: string[], flags: StoreFlags) => setPinned(keys, flags, false));
}

/** The store that `attach` would use with the same flags. */
export async function storeOf(flags: StoreFlags): Promise<TraceStore> {
  const folder = flags.traceDir ?? (await serviceConfigOf(flags))?.replaybd.traceDir;
  return new TraceStore(folder ?? undefined);
}

async function list(image: string | undefined, flags: ListFlags): Promise<void> {
  if (image !== undefined && flags.local !== true) return await listRemote(image, flags);
  const nowMs = Date.now();
  const entries = await listCatalog(await storeOf(flags));
  const wanted = entries.filter((entry) => image === undefined || isOfImage(entry, image));
  const described = wanted.map((entry) => describeStored(entry, nowMs));
  tell(flags, described, formatStored(described, nowMs));
}

async function listRemote(image: string, flags: StoreFlags): Promise<void> {
  const found = await withRegistry(flags, (client) => listTraces(client, image));
  const traces = found.map(({ digest, annotations = {} }) => ({
    digest,
    workloadKey: annotations[WORKLOAD_ANNOTATION] ?? null,
    workload: annotations[WORKLOAD_TEXT_ANNOTATION] ?? null,
    recordedAt: annotations[CREATED_ANNOTATION] ?? null,
  }));
  const lines = traces.map(({ digest, workloadKey, workload, recordedAt }) => {
    const words = [workloadKey ?? 'unknown workload', recordedAt, workload];
    return `${digest}  ${printable(
      words
        .filter((word) => word !== null)
        .join('  ')
        .trim(),
    )}\n`;
  });
  tell(flags, traces, lines.join(''));
}

async function remove(keys: string[], flags: RemoveFlags, command: Command): Promise<void> {
  const { image, remote, force = false } = flags;
  if (remote !== undefined) {
    if (keys.length === 0) command.error('error: --remote takes the digests of traces');
    await withRegistry(flags, async (client) => {
      for (const digest of keys) await deleteTrace(client, remote, digest);
    });
    tell(flags, { removed: keys }, keys.map((digest) => `${digest} removed\n`).join(''));
    return;
  }
  if ((keys.length === 0) === (image === undefined)) {
    command.error('error: say which traces: their keys, or --image');
  }
  const store = await storeOf(flags);
  const chosen =
    image === undefined ? await selectTraces(store, keys) : await selectTracesOfImage(store, image);
  const pinned = chosen.find(({ isPinned }) => isPinned && !force);
  if (pinned !== undefined) {
    throw new ReplaybdError(
      'ERR_TRACE_PINNED',
      `${shortKey(pinned)}: is pinned, nothing was removed. Unpin it, or give --force.`,
      { errno: 'EBUSY' },
    );
  }
  for (const entry of chosen) await store.remove(entry.image, entry.workload);
  const removed = chosen.map(shortKey);
  tell(flags, { removed }, removed.map((key) => `${key} removed\n`).join(''));
}

async function collect(flags: GcFlags): Promise<void> {
  const { maxAge, maxBytes, keepRuns, dryRun = false } = flags;
  const options: GcOptions = {
    dryRun,
    ...(maxAge === undefined ? {} : { maxAgeMs: maxAge }),
    ...(maxBytes === undefined ? {} : { maxBytes }),
    ...(keepRuns === undefined ? {} : { keepRuns }),
  };
  const nowMs = Date.now();
  const store = await storeOf(flags);
  const report = await interruptible((signal) => collectGarbage(store, options, nowMs, signal));
  const removed = report.removed.map((entry) => describeStored(entry, nowMs));
  const would = dryRun ? 'would be removed' : 'removed';
  const text =
    removed.map(({ key }) => `${key} ${would}\n`).join('') +
    `${removed.length} traces of ${formatBytes(report.removedBytes)} and ` +
    `${report.leftovers.length} leftovers ${would}; ` +
    `${report.keptTraces} traces of ${formatBytes(report.keptBytes)} stay\n`;
  tell(flags, { ...report, removed, dryRun }, text);
}

async function setPinned(keys: string[], flags: StoreFlags, isPinned: boolean): Promise<void> {
  const store = await storeOf(flags);
  const chosen = await selectTraces(store, keys);
  for (const { image, workload } of chosen) {
    if (isPinned) await store.pin(image, workload);
    else await store.unpin(image, workload);
  }
  const named = chosen.map(shortKey);
  const [word, facts] = isPinned
    ? ['pinned', { pinned: named }]
    : ['unpinned', { unpinned: named }];
  tell(flags, facts, named.map((key) => `${key} ${word}\n`).join(''));
}
