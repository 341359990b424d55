import { ReplaybdError } from '../base/errors.ts';
import { JsonObject } from '../base/json-object.ts';
import { traceStoreLimits } from '../base/limits.ts';
import { END_REASONS, sectorsIn, type EndReason, type Trace } from './trace.ts';
import { workloadText } from './workload.ts';

/** How a replay of a trace went, over the time that the trace speaks of. */
export interface ReplayRun {
  /** When it was measured; Unix time in milliseconds. */
  readonly atMs: number;
  /** Compressed bytes touched for the first time. */
  readonly touchedBytes: number;
  /** Share of those that are in the trace's plan; null when nothing was touched. */
  readonly planned: number | null;
  /** Compressed bytes touched for the first time that were not in the cache before. */
  readonly fetchedBytes: number;
  /** Share of those that came by prefetch, in time or late; null when nothing was fetched. */
  readonly coverage: number | null;
  /** As in the report of a device. */
  readonly timeliness: number | null;
  readonly overFetch: number | null;
}

const ORIGINS = ['recorded', 'pulled', 'unknown'] as const;

/** Which bytes of a trace file some facts are of: when they changed, so may have the facts. */
export interface TraceMark {
  readonly sizeBytes: number;
  /** The file's last four bytes, in hex. */
  readonly crc32c: string;
}

/** What a trace file does not hold, or not where it is found quickly. Lives beside it. */
export interface TraceFacts {
  readonly mark: TraceMark;
  /** As the image was named when the trace was last recorded, pulled or replayed; '' if unknown. */
  readonly image: string;
  /** `host/name` of the registry's repository; '' if unknown. */
  readonly repository: string;
  readonly manifestDigest: string | null;
  /** On one line; cut to a bounded length. */
  readonly workload: string;
  readonly records: number;
  /** Sectors of all records. */
  readonly sectors: number;
  readonly durationUs: number;
  readonly endReason: EndReason;
  /** When its recording began, and when it was last replayed (null: never here); in Unix milliseconds. */
  readonly recordedAtMs: number;
  readonly lastUsedAtMs: number | null;
  readonly origin: (typeof ORIGINS)[number];
  /** The last replays, the latest last. */
  readonly runs: readonly ReplayRun[];
}

const VERSION = 1;

/** What a trace says of itself. */
export function factsOfTrace(trace: Trace, mark: TraceMark): TraceFacts {
  const { image, workload, recording, records } = trace;
  return {
    mark,
    image: '',
    repository: '',
    manifestDigest: image.manifestDigest,
    workload: workloadText(workload).slice(0, traceStoreLimits.textLengthMax),
    records: records.count,
    sectors: sectorsIn(trace),
    durationUs: recording.durationUs,
    endReason: recording.endReason,
    recordedAtMs: recording.startedAtMs,
    lastUsedAtMs: null,
    origin: 'unknown',
    runs: [],
  };
}

/** The text of a facts file. */
export function formatFacts(facts: TraceFacts): string {
  const cut = (text: string): string => text.slice(0, traceStoreLimits.textLengthMax);
  const bounded = {
    ...facts,
    image: cut(facts.image),
    repository: cut(facts.repository),
    workload: cut(facts.workload),
    runs: facts.runs.slice(-traceStoreLimits.runsMax),
  };
  return `${JSON.stringify({ version: VERSION, ...bounded })}\n`;
}

/**
 * Reads a facts file; `name` is its path. Keys that it does not know are left out. Throws
 * ERR_CONFIG_JSON, ERR_CONFIG_TYPE or ERR_TRACE_FACTS.
 */
export function parseFacts(text: string, name: string): TraceFacts {
  const root = JsonObject.parse(text, name);
  const mark = root.object('mark');
  const runs = root.list('runs');
  const version = root.natural('version', 0);
  const endReason = root.word('endReason', END_REASONS);
  const digest = optional(root, 'manifestDigest', () => root.string('manifestDigest'));
  if (version !== VERSION || mark === null || endReason === '') throw unknownFacts(name);
  if (runs.length > traceStoreLimits.runsMax) throw unknownFacts(name);
  return {
    mark: { sizeBytes: mark.natural('sizeBytes', 0), crc32c: mark.string('crc32c') },
    image: shortText(root, 'image', name),
    repository: shortText(root, 'repository', name),
    manifestDigest: digest,
    workload: shortText(root, 'workload', name),
    records: root.natural('records', 0),
    sectors: root.natural('sectors', 0),
    durationUs: root.natural('durationUs', 0),
    endReason,
    recordedAtMs: time(root, 'recordedAtMs'),
    lastUsedAtMs: optional(root, 'lastUsedAtMs', () => time(root, 'lastUsedAtMs')),
    origin: root.word('origin', ORIGINS) || 'unknown',
    runs: runs.map((run) => ({
      atMs: time(run, 'atMs'),
      touchedBytes: run.natural('touchedBytes', 0),
      planned: run.share('planned'),
      fetchedBytes: run.natural('fetchedBytes', 0),
      coverage: run.share('coverage'),
      timeliness: run.share('timeliness'),
      overFetch: optional(run, 'overFetch', () => Math.max(0, run.number('overFetch'))),
    })),
  };
}

/** A time that a Date can hold. */
function time(object: JsonObject, key: string): number {
  return object.natural(key, 0, { max: 8_640_000_000_000_000 });
}

function shortText(object: JsonObject, key: string, name: string): string {
  const text = object.string(key);
  if (text.length > traceStoreLimits.textLengthMax) throw unknownFacts(name);
  return text;
}

/** Null stays null. */
function optional<T>(object: JsonObject, key: string, read: () => T): T | null {
  return object.isNull(key) ? null : read();
}

function unknownFacts(name: string): ReplaybdError {
  return new ReplaybdError(
    'ERR_TRACE_FACTS',
    `${name}: expected facts of a trace as version ${VERSION} has them, found others.`,
  );
}
