import type { TouchedBytes } from '../blob/blob.ts';
import type { UpperKind } from '../image/lsmt/upper-map.ts';
import type { PackedMode } from '../prefetch/packed-rule.ts';
import type { QualitySnapshot } from '../prefetch/quality.ts';
import type { PackedCounters, ReplayCounters, ReplayEnd } from '../prefetch/replay.ts';
import type { RenewalReason } from '../trace/store-renewal.ts';
import type { TraceWorkload } from '../trace/trace.ts';
import type { UpperReport } from './live-upper.ts';

export type AttachMode = 'off' | 'record' | 'replay' | 'auto';

export interface AttachmentOptions {
  /** Device id: unique in the process. */
  id: string;
  /** A config.v1.json or an image reference. */
  target: string;
  mode: AttachMode;
  workload: TraceWorkload;
  /** A trace file to write or to replay, instead of the store's. */
  tracePath?: string;
  /** Bytes a replay may ask for. */
  budgetBytes?: number;
  /** Whether a replay reads hot blobs. Default 'auto'. */
  packed?: PackedMode;
  /** Threads beside the main one that will read the device. */
  readerThreads?: number;
  recordLimitMs?: number;
  recordUntilIdleMs?: number;
  /** Told of every first touch, in bytes by source; for pictures of a run. */
  onTouch?: (timeUs: number, offset: number, touched: TouchedBytes) => void;
  /** Keep a writable layer in this folder; created when it is not there. */
  upperFolder?: string;
  /** Of a writable layer that is created; of one that is there, it has to agree. */
  upperKind?: UpperKind;
  /** Told when code that looks after the device fails by itself; it is then left alone. */
  onFault?: (error: unknown) => void;
  /** False: the caller tells how it went, where the image's configuration wants it (`resultFile`). */
  writesResult?: boolean;
  signal?: AbortSignal;
}

/** `packed` is null when no hot blob is read. */
export interface ReplayReport extends ReplayCounters {
  readonly end: ReplayEnd | null;
  readonly packed: PackedCounters | null;
}

/** What came of a device's time, for people and programs. */
export interface AttachmentReport {
  readonly device: string;
  readonly image: string;
  readonly mode: 'off' | 'record' | 'replay';
  readonly virtualSizeBytes: number;
  readonly layers: number;
  /** From the call of `open` until the device could serve reads. */
  readonly readyMs: number;
  readonly quality: QualitySnapshot;
  readonly replay: ReplayReport | null;
  /**
   * The trace that is being recorded or replayed; where a replayed one is from; whether its plan is known
   * to lack ranges.
   */
  readonly trace: {
    path: string;
    records: number;
    source: string | null;
    truncated: boolean;
  } | null;
  /** Why the trace is recorded anew beside its replay; null when it is not. */
  readonly renewal: RenewalReason | null;
  /** Null for a read-only device. */
  readonly upper: UpperReport | null;
}
