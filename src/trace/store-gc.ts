import { link, rename, rmdir, stat, unlink } from 'node:fs/promises';
import { join } from 'node:path';
import { codeOf } from '../base/errors.ts';
import { traceStoreLimits } from '../base/limits.ts';
import { listCatalog, type CatalogEntry } from './store-catalog.ts';
import { namesIn, nullIfAbsent, type TraceStore } from './store.ts';

const IMAGE_FOLDER = /\/[0-9a-f]{64}$/;

/** What a store may keep; without a bound only what crashes left goes. */
export interface GcOptions {
  /** Traces that were neither recorded nor replayed for so long go. */
  readonly maxAgeMs?: number;
  /** Bytes of traces that stay: those that were not used for longest go first. */
  readonly maxBytes?: number;
  /** Of each repository and workload, so many of the latest recordings stay whatever the bounds say. */
  readonly keepRuns?: number;
  readonly dryRun?: boolean;
}

export interface GcReport {
  readonly removed: readonly CatalogEntry[];
  readonly removedBytes: number;
  readonly keptTraces: number;
  readonly keptBytes: number;
  /** Temporary files, facts and pins without a trace, and folders that hold nothing. */
  readonly leftovers: readonly string[];
}

/** When a trace was last of use, in Unix milliseconds. */
export function lastOfUse({ facts, modifiedAtMs }: CatalogEntry): number {
  if (facts === null) return modifiedAtMs;
  // A trace pulled today of a recording of last year is new here.
  return Math.max(facts.recordedAtMs, facts.lastUsedAtMs ?? 0, modifiedAtMs);
}

/** What goes of some traces, first what was not used for longest. Pinned ones never do. */
export function chooseGarbage(
  entries: readonly CatalogEntry[],
  options: GcOptions,
  nowMs: number,
): CatalogEntry[] {
  const { maxAgeMs = Infinity, maxBytes = Infinity, keepRuns = 0 } = options;
  const kept = latestOfEach(entries, keepRuns);
  const oldestFirst = entries
    .filter((entry) => !entry.isPinned && !kept.has(entry))
    .sort((a, b) => lastOfUse(a) - lastOfUse(b));
  let bytes = entries.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0);
  return oldestFirst.filter((entry) => {
    const goes = nowMs - lastOfUse(entry) > maxAgeMs || bytes > maxBytes;
    if (goes) bytes -= entry.sizeBytes;
    return goes;
  });
}

/** Removes what a store need not keep. With `dryRun` it only says what would go. */
export async function collectGarbage(
  store: TraceStore,
  options: GcOptions,
  nowMs: number,
  signal?: AbortSignal,
): Promise<GcReport> {
  const entries = await listCatalog(store);
  const garbage = chooseGarbage(entries, options, nowMs);
  const removed: CatalogEntry[] = [];
  for (const entry of garbage) {
    signal?.throwIfAborted();
    if (options.dryRun === true || (await removeUnchanged(store, entry))) removed.push(entry);
  }
  const leftovers = await findLeftovers(store, nowMs);
  if (options.dryRun !== true) {
    for (const path of leftovers) await removeLeftover(path);
  }
  const total = entries.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0);
  const removedBytes = removed.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0);
  return {
    ...{ removed, removedBytes, leftovers },
    ...{ keptTraces: entries.length - removed.length, keptBytes: total - removedBytes },
  };
}

/**
 * A trace that was replaced or pinned since it was listed stays. So that it does whenever that happens,
 * the file is first put aside, where nobody can change it or pin it any more, and looked at again there.
 */
async function removeUnchanged(store: TraceStore, entry: CatalogEntry): Promise<boolean> {
  const { image, workload, path } = entry;
  if (!(await isUnchanged(store, entry, path))) return false;
  const aside = `${path}.${process.pid}.gc.tmp`;
  if ((await nullIfAbsent(rename(path, aside))) === null) return false;
  if (!(await isUnchanged(store, entry, aside))) {
    await putBack(aside, path);
    return false;
  }
  await nullIfAbsent(unlink(aside));
  const isReplaced = (await nullIfAbsent(stat(path))) !== null;
  if (!isReplaced) await nullIfAbsent(unlink(store.factsPath(image, workload)));
  return true;
}

async function isUnchanged(store: TraceStore, entry: CatalogEntry, path: string): Promise<boolean> {
  const facts = await nullIfAbsent(stat(path));
  if (facts?.mtimeMs !== entry.modifiedAtMs) return false;
  return !(await store.isPinned(entry.image, entry.workload));
}

/** Not over one that was put there meanwhile, which is newer. */
async function putBack(aside: string, path: string): Promise<void> {
  try {
    await link(aside, path);
  } catch (error) {
    // A file system without links.
    if (codeOf(error) !== 'EEXIST') return await rename(aside, path);
  }
  await nullIfAbsent(unlink(aside));
}

function latestOfEach(entries: readonly CatalogEntry[], count: number): Set<CatalogEntry> {
  const groups = new Map<string, CatalogEntry[]>();
  for (const entry of entries) {
    const { facts, image, workload } = entry;
    const repository = facts?.repository ?? '';
    // Without a repository nothing tells which images are versions of one.
    const key = `${repository === '' ? image : repository} ${workload}`;
    groups.set(key, [...(groups.get(key) ?? []), entry]);
  }
  const recordedAt = ({ facts, modifiedAtMs }: CatalogEntry) => facts?.recordedAtMs ?? modifiedAtMs;
  return new Set(
    [...groups.values()].flatMap((group) =>
      group.sort((a, b) => recordedAt(b) - recordedAt(a)).slice(0, count),
    ),
  );
}

async function findLeftovers(store: TraceStore, nowMs: number): Promise<string[]> {
  const found: string[] = [];
  for (const folder of await namesIn(store.folder)) {
    if (!IMAGE_FOLDER.test(`/${folder}`)) continue;
    const path = join(store.folder, folder);
    const names = await namesIn(path);
    if (names.length === 0 && (await isOld(path, nowMs))) found.push(path);
    const present = new Set(names);
    for (const name of names) {
      const [, workload, kind] = /^([0-9a-f]{64})\.(json|pin|.+\.tmp)$/.exec(name) ?? [];
      if (workload === undefined) continue;
      const isBeside = kind === 'json' || kind === 'pin';
      if (isBeside && present.has(`${workload}.trace`)) continue;
      if (await isOld(join(path, name), nowMs)) found.push(join(path, name));
      if (found.length >= traceStoreLimits.leftoversMax) return found;
    }
  }
  return found;
}

/** Somebody may be about to put a trace there, or to rename what it has written. */
async function isOld(path: string, nowMs: number): Promise<boolean> {
  const facts = await nullIfAbsent(stat(path));
  return facts !== null && nowMs - facts.mtimeMs >= traceStoreLimits.leftoverMsMin;
}

async function removeLeftover(path: string): Promise<void> {
  await nullIfAbsent(IMAGE_FOLDER.test(path) ? rmdir(path).catch(() => undefined) : unlink(path));
}
