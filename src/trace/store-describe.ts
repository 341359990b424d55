import { printable } from '../base/printable.ts';
import { lastCoverage, lastPlanned } from './store-renewal.ts';
import type { CatalogEntry } from './store-catalog.ts';
import type { ReplayRun } from './store-facts.ts';
import { shortKey } from './store-select.ts';

/** A trace of the store for programs; null where it is not known. */
export interface StoredTraceFacts {
  readonly key: string;
  readonly image: string | null;
  readonly repository: string | null;
  readonly manifestDigest: string | null;
  readonly imageKey: string;
  readonly workload: string | null;
  readonly workloadKey: string;
  readonly path: string;
  readonly sizeBytes: number;
  readonly records: number | null;
  readonly endReason: string | null;
  readonly origin: string | null;
  readonly recordedAt: string | null;
  readonly ageMs: number | null;
  readonly lastUsedAt: string | null;
  /** Of the last replay that touched, or fetched, enough to say something. */
  readonly lastPlanned: number | null;
  readonly lastCoverage: number | null;
  readonly runs: readonly ReplayRun[];
  readonly pinned: boolean;
}

/** What `trace ls --json` prints of a trace. */
export function describeStored(entry: CatalogEntry, nowMs: number): StoredTraceFacts {
  const { facts, image, workload, path, sizeBytes, isPinned } = entry;
  const names = { key: shortKey(entry), imageKey: image, workloadKey: workload };
  const file = { path, sizeBytes, pinned: isPinned };
  const time = (ms: number | null): string | null => (ms === null ? null : isoTime(ms));
  return {
    ...names,
    ...file,
    image: facts?.image || null,
    repository: facts?.repository || null,
    manifestDigest: facts?.manifestDigest ?? null,
    workload: facts?.workload ?? null,
    records: facts?.records ?? null,
    endReason: facts?.endReason ?? null,
    origin: facts?.origin ?? null,
    recordedAt: time(facts?.recordedAtMs ?? null),
    ageMs: facts === null ? null : Math.max(0, nowMs - facts.recordedAtMs),
    lastUsedAt: time(facts?.lastUsedAtMs ?? null),
    lastPlanned: facts === null ? null : lastPlanned(facts.runs),
    lastCoverage: facts === null ? null : lastCoverage(facts.runs),
    runs: facts?.runs ?? [],
  };
}

/** Traces of the store for people, a block of two lines each. */
export function formatStored(stored: readonly StoredTraceFacts[], nowMs: number): string {
  return stored.map((one) => formatOne(one, nowMs)).join('');
}

function formatOne(one: StoredTraceFacts, nowMs: number): string {
  const { lastPlanned: planned, lastCoverage: coverage, lastUsedAt, ageMs } = one;
  const used =
    lastUsedAt === null ? 'never replayed' : `used ${ago(nowMs - Date.parse(lastUsedAt))}`;
  const facts = [
    one.records === null ? 'not a trace that can be read' : `${one.records} records`,
    `${one.sizeBytes} bytes`,
    ...(ageMs === null ? [] : [`recorded ${ago(ageMs)}`]),
    used,
    ...(planned === null ? [] : [`${(planned * 100).toFixed(1)} % planned`]),
    ...(coverage === null ? [] : [`coverage ${(coverage * 100).toFixed(1)} %`]),
    ...(one.endReason === 'checkpoint' ? ['broken off'] : []),
    ...(one.pinned ? ['pinned'] : []),
  ];
  const image = one.image ?? one.manifestDigest ?? 'unknown image';
  const workload = one.workload === null || one.workload === '' ? 'no words' : one.workload;
  return `${one.key}  ${printable(image)}  ${printable(workload)}\n    ${facts.join(', ')}\n`;
}

/** A time that a file told, however far. */
function isoTime(ms: number): string | null {
  const date = new Date(ms);
  return Number.isNaN(date.getTime()) ? null : date.toISOString();
}

function ago(ms: number): string {
  const seconds = Math.max(0, Math.round(ms / 1000));
  if (seconds < 120) return `${seconds} s ago`;
  if (seconds < 7200) return `${Math.round(seconds / 60)} min ago`;
  if (seconds < 172_800) return `${Math.round(seconds / 3600)} h ago`;
  return `${Math.round(seconds / 86_400)} days ago`;
}
