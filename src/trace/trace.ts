import { createHash } from 'node:crypto';
import { traceLimits } from '../base/limits.ts';

/** Why a recording ended. 'checkpoint': it had not, when these bytes were written. */
export const END_REASONS = [
  'detach',
  'time-limit',
  'idle',
  'request',
  'record-limit',
  'checkpoint',
] as const;
export type EndReason = (typeof END_REASONS)[number];

/** One lower, bottom first, as the image's manifest names it. */
export interface TraceLayer {
  /** `sha256:` and 64 hex digits, of the blob. */
  readonly digest: string;
  /** Of the blob. */
  readonly sizeBytes: number;
  /** Digest of the uncompressed layer, null where it is not known. */
  readonly diffId: string | null;
}

export interface TraceImage {
  /** Null for an image that has no manifest, e.g. a configuration file of local layers. */
  readonly manifestDigest: string | null;
  readonly virtualSizeBytes: number;
  readonly layers: readonly TraceLayer[];
}

/** What ran. Readers treat the key as opaque; `workloadKey` is how this project makes it. */
export interface TraceWorkload {
  /** 64 hex digits. */
  readonly key: string;
  readonly entrypoint: readonly string[];
  readonly args: readonly string[];
  /** `NAME=value`, only those that were chosen to tell workloads apart. */
  readonly env: readonly string[];
}

export interface TraceRecording {
  /** Unix time in milliseconds. */
  readonly startedAtMs: number;
  readonly durationUs: number;
  readonly endReason: EndReason;
  readonly deviceSizeBytes: number;
}

/** First accesses as columns, in order of time. */
export interface TraceRecords {
  readonly count: number;
  /** Since the recording began; never decreases. */
  readonly timeUs: Float64Array;
  /**
   * Of the time up to the record, how much at least one read waited for bytes that were not local.
   * Never grows faster than `timeUs`; zeros where nothing waited or where it is not known.
   */
  readonly waitUs: Float64Array;
  readonly lba: Float64Array;
  readonly sectors: Uint32Array;
  /** Index into the image's layers. */
  readonly layer: Uint16Array;
  /** In how many of the merged runs it occurs: 1 to `runs`. */
  readonly weight: Uint16Array;
}

/**
 * Blob ranges in the order they are due, metadata first. Each begins on a granule and ends on one
 * or at the end of its blob; no granule occurs twice.
 */
export interface TracePlan {
  readonly count: number;
  /** Index into the image's layers. */
  readonly blob: Uint16Array;
  readonly offset: Float64Array;
  readonly length: Float64Array;
  /** Never decreases; 0 for metadata. */
  readonly dueUs: Float64Array;
}

/**
 * A blob that holds the plan's bytes of some layers, in the order of the plan, without gaps: the hot
 * blob. It belongs to the plan it was made of.
 */
export interface TracePacked {
  /** `sha256:` and 64 hex digits. */
  readonly digest: string;
  /** Of the blob: as many as the plan has of these layers. */
  readonly sizeBytes: number;
  /** Indexes into the image's layers, rising. */
  readonly layers: readonly number[];
}

/** The first accesses of one or several runs of one workload on one image. */
export interface Trace {
  readonly image: TraceImage;
  readonly workload: TraceWorkload;
  readonly recording: TraceRecording;
  /** Runs merged into this trace. */
  readonly runs: number;
  readonly records: TraceRecords;
  readonly plan: TracePlan;
  /** Absent where nobody packed the plan. */
  readonly packed?: TracePacked;
}

export const emptyPlan: TracePlan = {
  count: 0,
  blob: new Uint16Array(0),
  offset: new Float64Array(0),
  length: new Float64Array(0),
  dueUs: new Float64Array(0),
};

/**
 * Whether a plan has as many ranges as it may have: whoever built it left out what is due later. (One
 * that needs exactly so many is not told apart.)
 */
export function isTruncated({ count }: TracePlan): boolean {
  return count >= traceLimits.planRangesMax;
}

/** Names a workload: the same command line and chosen environment give the same key. */
export function workloadKey(workload: Omit<TraceWorkload, 'key'>): string {
  const { entrypoint, args, env } = workload;
  const text = JSON.stringify([entrypoint, args, [...env].sort()]);
  return createHash('sha256').update(text).digest('hex');
}

/** A workload with its key. */
export function describeWorkload(
  entrypoint: readonly string[],
  args: readonly string[],
  env: readonly string[] = [],
): TraceWorkload {
  return { key: workloadKey({ entrypoint, args, env }), entrypoint, args, env };
}

/**
 * When a run that has everything local makes a record's access, in microseconds: a record's time on the
 * warm axis. It never decreases from record to record.
 */
export function warmTimeUs(records: TraceRecords, index: number): number {
  return records.timeUs[index] - records.waitUs[index];
}

/** Microseconds that a run waited before its last record. */
export function waitedUs({ count, waitUs }: TraceRecords): number {
  return count === 0 ? 0 : waitUs[count - 1];
}

/** The first `count` records. */
export function takeRecords(records: TraceRecords, count: number): TraceRecords {
  return {
    count,
    timeUs: records.timeUs.subarray(0, count),
    waitUs: records.waitUs.subarray(0, count),
    lba: records.lba.subarray(0, count),
    sectors: records.sectors.subarray(0, count),
    layer: records.layer.subarray(0, count),
    weight: records.weight.subarray(0, count),
  };
}

/** Sectors of all records of a trace. */
export function sectorsIn({ records }: Pick<Trace, 'records'>): number {
  let sectors = 0;
  for (let i = 0; i < records.count; i += 1) sectors += records.sectors[i];
  return sectors;
}
