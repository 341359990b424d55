import type { Clock } from '../base/clock.ts';
import { messageOf } from '../base/errors.ts';
import { traceLimits } from '../base/limits.ts';
import type { Logger } from '../base/log.ts';
import { encodeTraceWithinLimit } from './encode.ts';
import { Recorder, type PieceResolver } from './recorder.ts';
import {
  isTruncated,
  type EndReason,
  type Trace,
  type TraceImage,
  type TracePlan,
  type TraceRecords,
  type TraceWorkload,
} from './trace.ts';

export interface RecordingOptions {
  readonly image: TraceImage;
  readonly workload: TraceWorkload;
  readonly deviceSizeBytes: number;
  readonly locate: PieceResolver;
  /** Usually `(records) => buildPlan(...)`. */
  readonly plan: (records: TraceRecords) => TracePlan;
  /** Puts the file of a trace where it belongs, atomically; called one at a time. */
  readonly save: (bytes: Uint8Array, trace: Trace) => Promise<void>;
  readonly clock: Clock;
  readonly log: Logger;
  /** The tap's clock when the recording begins; access times count from here. */
  readonly startUs: number;
  /** How long reads have waited for bytes that were not local before a time, both by the tap's clock. */
  readonly waitedUs?: (timeUs: number) => number;
  readonly timeLimitMs?: number;
  /** Ends the recording when nothing was touched for the first time for so long. */
  readonly untilIdleMs?: number;
  /** Default 2,000. */
  readonly checkpointMs?: number;
}

const CHECKPOINT_MS = 2000;
/** A checkpoint may take at most one part in so many of the time. */
const CHECKPOINT_SHARE = 20;

/**
 * One recording of one device. Whoever drains the tap calls `access` for each entry and `tick`
 * after each drain; the recording ends itself by its limits, or when it is told to.
 */
export class Recording {
  readonly recorder: Recorder;
  /** Resolves with the last trace once it is saved; rejects when that failed. */
  readonly finished: Promise<Trace>;
  readonly #options: RecordingOptions;
  readonly #startedAtMs: number;
  readonly #startMs: number;
  readonly #settle: PromiseWithResolvers<Trace> = Promise.withResolvers<Trace>();
  readonly #waitedAtStartUs: number;
  #endReason: EndReason | null = null;
  #lastNewMs: number;
  #nextCheckpointMs: number;
  #isTruncated = false;
  #savedSectors = 0;
  #seenSectors = 0;
  #saving: Promise<void> | null = null;

  constructor(options: RecordingOptions) {
    this.#options = options;
    this.recorder = new Recorder({ locate: options.locate });
    this.#waitedAtStartUs = options.waitedUs?.(options.startUs) ?? 0;
    this.finished = this.#settle.promise;
    // A caller that only stops the recording must not be killed by a failed save.
    this.finished.catch(() => undefined);
    this.#startedAtMs = Math.floor(options.clock.wallMs());
    this.#startMs = options.clock.nowMs();
    this.#lastNewMs = this.#startMs;
    this.#nextCheckpointMs = this.#startMs + this.#checkpointMs;
  }

  get ended(): boolean {
    return this.#endReason !== null;
  }

  /** Whether what was saved last has a plan that lacks ranges, or none though there was one. */
  get truncated(): boolean {
    return this.#isTruncated;
  }

  /** A read of the device, by the tap's clock. Ignored once the recording has ended. */
  access(timeUs: number, offset: number, length: number): void {
    if (this.#endReason !== null) return;
    const { startUs, waitedUs } = this.#options;
    const waitUs = waitedUs === undefined ? 0 : waitedUs(timeUs) - this.#waitedAtStartUs;
    this.recorder.access(Math.max(0, timeUs - startUs), offset, length, waitUs);
  }

  /**
   * By the clock, when `tick` has something to do again if nothing is accessed until then. Infinity
   * when it has not.
   */
  get dueMs(): number {
    if (this.#endReason !== null) return Infinity;
    const { timeLimitMs, untilIdleMs = Infinity } = this.#options;
    const { recordedSectors } = this.recorder.counts;
    const isSaved = recordedSectors === this.#savedSectors;
    return Math.min(
      this.#startMs + this.#timeLimitMs(timeLimitMs),
      this.#lastNewMs + untilIdleMs,
      isSaved ? Infinity : this.#nextCheckpointMs,
    );
  }

  /**
   * Looks at the limits, and saves a checkpoint when one is due. To be called every few 10 ms; while
   * nothing is accessed, not before `dueMs`.
   */
  tick(): void {
    if (this.#endReason !== null) return;
    const nowMs = this.#options.clock.nowMs();
    const { recordedSectors, zeroSectors } = this.recorder.counts;
    if (recordedSectors + zeroSectors !== this.#seenSectors) {
      this.#seenSectors = recordedSectors + zeroSectors;
      this.#lastNewMs = nowMs;
    }
    const { timeLimitMs, untilIdleMs } = this.#options;
    if (this.recorder.full) this.#end('record-limit');
    else if (nowMs - this.#startMs >= this.#timeLimitMs(timeLimitMs)) this.#end('time-limit');
    else if (untilIdleMs !== undefined && nowMs - this.#lastNewMs >= untilIdleMs) this.#end('idle');
    else if (nowMs >= this.#nextCheckpointMs) this.#checkpoint(nowMs);
  }

  /**
   * Ends the recording and saves it. The first reason counts. Resolves when it is saved; throws
   * what saving threw.
   */
  async stop(reason: EndReason): Promise<Trace> {
    if (this.#endReason === null) {
      this.#endReason = reason;
      await this.#saving;
      try {
        const trace = this.#trace(reason);
        await this.#options.save(this.#encode(trace), trace);
        this.#settle.resolve(trace);
      } catch (error) {
        this.#options.log.error({ error: messageOf(error) }, 'a trace could not be saved');
        this.#settle.reject(error);
      }
    }
    return await this.finished;
  }

  /** Stops by itself; `finished` tells whether saving worked. */
  #end(reason: EndReason): void {
    this.stop(reason).catch(() => undefined);
  }

  get #checkpointMs(): number {
    return this.#options.checkpointMs ?? CHECKPOINT_MS;
  }

  #timeLimitMs(wanted: number | undefined): number {
    return Math.min(wanted ?? Infinity, traceLimits.durationUsMax / 1000);
  }

  #checkpoint(nowMs: number): void {
    this.#nextCheckpointMs = nowMs + this.#checkpointMs;
    const { recordedSectors } = this.recorder.counts;
    if (this.#saving !== null || recordedSectors === this.#savedSectors) return;
    this.#savedSectors = recordedSectors;
    this.#saving = this.#saveCheckpoint().finally(() => {
      this.#saving = null;
    });
  }

  async #saveCheckpoint(): Promise<void> {
    const { clock, log, save } = this.#options;
    const startMs = clock.nowMs();
    try {
      const trace = this.#trace('checkpoint');
      const bytes = this.#encode(trace);
      const restMs = (clock.nowMs() - startMs) * CHECKPOINT_SHARE;
      this.#nextCheckpointMs = Math.max(this.#nextCheckpointMs, startMs + restMs);
      await save(bytes, trace);
    } catch (error) {
      log.warn({ error: messageOf(error) }, 'a checkpoint of the trace could not be saved');
    }
  }

  /** Says so, once, when the file does not have all that a replay needs. */
  #encode(trace: Trace): Uint8Array {
    let lacks = isTruncated(trace.plan) ? `plan has no more than ${trace.plan.count} ranges` : null;
    const bytes = encodeTraceWithinLimit(trace, ({ records }) => {
      const cut = records.count < trace.records.count ? ', and its latest records' : '';
      lacks = `file is too large: its plan${cut} had to be left out`;
    });
    if (lacks !== null && !this.#isTruncated) {
      this.#options.log.warn(
        { records: trace.records.count },
        `a trace is truncated: the ${lacks}`,
      );
    }
    this.#isTruncated = lacks !== null;
    return bytes;
  }

  #trace(endReason: EndReason): Trace {
    const { image, workload, deviceSizeBytes, clock } = this.#options;
    const records = this.recorder.records();
    const lastUs = records.count === 0 ? 0 : records.timeUs[records.count - 1];
    const elapsedUs = Math.floor((clock.nowMs() - this.#startMs) * 1000);
    const durationUs = Math.min(Math.max(elapsedUs, lastUs), traceLimits.durationUsMax);
    return {
      image,
      workload,
      recording: { startedAtMs: this.#startedAtMs, durationUs, endReason, deviceSizeBytes },
      runs: 1,
      records,
      plan: this.#options.plan(records),
    };
  }
}
