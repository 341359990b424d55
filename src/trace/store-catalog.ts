import { open } from 'node:fs/promises';
import { writeFileAtomic } from '../base/atomic-file.ts';
import { readConfigFile } from '../base/config-file.ts';
import { traceStoreLimits } from '../base/limits.ts';
import { decodeTrace } from './decode.ts';
import { CRC_BYTES } from './layout.ts';
import {
  factsOfTrace,
  formatFacts,
  parseFacts,
  type TraceFacts,
  type TraceMark,
} from './store-facts.ts';
import { nullIfAbsent, readTraceFile, type StoredTrace, type TraceStore } from './store.ts';

/** A trace of the store with what is known of it. */
export interface CatalogEntry extends StoredTrace {
  readonly isPinned: boolean;
  /** Null for a file that is no trace this program reads. */
  readonly facts: TraceFacts | null;
}

/** Every trace of the store, or of one image of it, in order of path. Nothing is written. */
export async function listCatalog(store: TraceStore, image?: string): Promise<CatalogEntry[]> {
  const entries: CatalogEntry[] = [];
  for (const stored of await store.list(image)) entries.push(await catalogEntry(store, stored));
  return entries;
}

/** What is known of one trace that `store.list` gave. */
export async function catalogEntry(store: TraceStore, stored: StoredTrace): Promise<CatalogEntry> {
  const { image, workload } = stored;
  const isPinned = await store.isPinned(image, workload);
  const facts = await readFacts(store, image, workload).catch(() => null);
  return { ...stored, isPinned, facts };
}

/**
 * The facts of a trace: those beside it where they are sound and of these bytes, else those that the
 * trace itself tells; of an earlier trace of the same name, what is no matter of its bytes is kept.
 * Null without a trace. Throws what `decodeTrace` and the file system throw.
 */
export async function readFacts(
  store: TraceStore,
  image: string,
  workload: string,
): Promise<TraceFacts | null> {
  const path = store.path(image, workload);
  const mark = await nullIfAbsent(markOf(path));
  if (mark === null) return null;
  const kept = await readBeside(store.factsPath(image, workload));
  if (kept !== null && isSameMark(kept.mark, mark)) return kept;
  const bytes = await nullIfAbsent(readTraceFile(path));
  if (bytes === null) return null;
  const told = factsOfTrace(decodeTrace(bytes, path), markOfBytes(bytes));
  if (kept === null) return told;
  const { repository, lastUsedAtMs } = kept;
  return { ...told, image: kept.image, repository, lastUsedAtMs };
}

/**
 * Changes the facts of a trace; what is there when it is done, null without a trace. One after the
 * other in this process; of two processes at once the later counts.
 */
export async function updateFacts(
  store: TraceStore,
  image: string,
  workload: string,
  change: (facts: TraceFacts) => TraceFacts,
): Promise<TraceFacts | null> {
  return await store.inTurn(async () => {
    const facts = await readFacts(store, image, workload);
    if (facts === null) return null;
    const changed = change(facts);
    const path = store.factsPath(image, workload);
    await writeFileAtomic(path, Buffer.from(formatFacts(changed)));
    return changed;
  });
}

/** Null when they are not there or not sound: they can be told again. */
async function readBeside(path: string): Promise<TraceFacts | null> {
  try {
    return parseFacts(await readConfigFile(path, traceStoreLimits.factsBytesMax), path);
  } catch {
    return null;
  }
}

/** A trace file ends with its checksum, so that its last bytes tell it from any other. */
async function markOf(path: string): Promise<TraceMark> {
  const file = await open(path, 'r');
  try {
    const { size } = await file.stat();
    const tail = new Uint8Array(Math.min(CRC_BYTES, size));
    await file.read(tail, 0, tail.length, size - tail.length);
    return { sizeBytes: size, crc32c: Buffer.from(tail).toString('hex') };
  } finally {
    await file.close();
  }
}

function markOfBytes(bytes: Uint8Array): TraceMark {
  const crc32c = Buffer.from(bytes.subarray(-CRC_BYTES)).toString('hex');
  return { sizeBytes: bytes.length, crc32c };
}

function isSameMark(a: TraceMark, b: TraceMark): boolean {
  return a.sizeBytes === b.sizeBytes && a.crc32c === b.crc32c;
}
