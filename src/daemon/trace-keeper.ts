import { writeFileAtomic } from '../base/atomic-file.ts';
import { messageOf } from '../base/errors.ts';
import type { Blob } from '../blob/blob.ts';
import type { Stack } from '../image/stack.ts';
import { touchedOfPlan } from '../prefetch/planned-touches.ts';
import type { QualityMeter, QualitySnapshot } from '../prefetch/quality.ts';
import type { Replay } from '../prefetch/replay.ts';
import { recordsIn } from '../trace/overlaybd/any-trace.ts';
import type { Recording } from '../trace/recording.ts';
import { ReplayWindow } from '../trace/replay-window.ts';
import { readFacts, updateFacts } from '../trace/store-catalog.ts';
import type { ReplayRun, TraceFacts } from '../trace/store-facts.ts';
import { isGoodRecording, renewalReason, type RenewalReason } from '../trace/store-renewal.ts';
import { imageKey } from '../trace/store.ts';
import { emptyPlan, isTruncated, sectorsIn, type Trace } from '../trace/trace.ts';
import type { WaitLog } from '../trace/wait-log.ts';
import type { AttachmentOptions } from './attachment.ts';
import type { ChosenMode } from './choose-mode.ts';
import type { ImageDescription } from './image-description.ts';
import type { Runtime } from './runtime.ts';
import { SoughtReplay } from './sought-replay.ts';
import { repositoryOf } from './trace-search.ts';

/** A trace is recorded anew for so many times as long as the old one was, once the workload began. */
const RENEWAL_LENGTHS = 2;
const RENEWAL_US_MIN = 10_000_000;

/** A device as it is measured. */
export interface WatchedDevice {
  readonly quality: QualityMeter;
  readonly waits: Pick<WaitLog, 'waitedUs'>;
  /** Those of the image's layers, bottom first. */
  readonly blobs: readonly Pick<Blob, 'sizeBytes' | 'touchedIn'>[];
  readonly replay: () => Replay | null;
}

/** Begins a recording beside a replay. */
export type RecordAnew = (
  limits: Pick<AttachmentOptions, 'recordLimitMs' | 'recordUntilIdleMs'>,
  save: (bytes: Uint8Array, trace: Trace) => Promise<void>,
) => Recording;

/**
 * What one device has to do with the store's traces: it puts recordings there, remembers how replays went,
 * and has a stale trace recorded anew while it is replayed. What fails here is a warning.
 */
export class TraceKeeper {
  /** Why a trace is being recorded beside the replay; null when none is. */
  renewal: RenewalReason | null = null;
  sought: SoughtReplay | null = null;
  readonly #runtime: Runtime;
  readonly #image: ImageDescription;
  readonly #options: AttachmentOptions;
  readonly #chosen: ChosenMode;
  /** The image's; '' where layers have no digests that a trace could be kept by. */
  readonly #key: string;
  #facts: TraceFacts | null = null;
  #recording: Recording | null = null;
  #isRenewed = false;
  #isRecordingPoor = false;
  #device: WatchedDevice | null = null;
  /** Null when there is nothing to time any more. */
  #window: ReplayWindow | null = null;
  #windowDueMs = Infinity;
  /** How far into the window it is recorded; Infinity when that has other limits, or none. */
  #recordingUsMax = Infinity;
  #isMeasured = false;
  #remembering: Promise<void> | null = null;

  constructor(
    runtime: Runtime,
    image: ImageDescription,
    options: AttachmentOptions,
    chosen: ChosenMode,
  ) {
    this.#runtime = runtime;
    this.#image = image;
    this.#options = options;
    this.#chosen = chosen;
    const { identity } = image;
    const isNamed = identity.layers.every(({ digest }) => digest !== '');
    this.#key = isNamed ? imageKey(identity) : '';
  }

  /** The trace that is replayed: its records, or 0 without one, where it is from, what its plan lacks. */
  get replayed(): { records: number; source: string | null; truncated: boolean } {
    const { trace, source } = this.#chosen;
    const found = this.sought?.found;
    const records = found?.trace.records.count ?? (trace === null ? 0 : recordsIn(trace));
    const ours = found?.trace ?? (trace?.kind === 'replaybd' ? trace.trace : null);
    const truncated = ours !== null && isTruncated(ours.plan);
    return { records, source: found?.source ?? source, truncated };
  }

  /** Whether what the device records from its start is not kept: a trace was found that is better. */
  get dropsRecording(): boolean {
    return this.sought?.found?.source === 'registry' || this.#isRecordingPoor;
  }

  /** Begins to look for a trace where there is none here; null when nothing is to be looked for. */
  seek(blobs: readonly Blob[], opening: Promise<Stack>): Replay | null {
    if (!this.#chosen.isSought) return null;
    const opened = { blobs, opening };
    this.sought = new SoughtReplay(this.#runtime, this.#image, this.#options, opened);
    return this.sought.replay;
  }

  /** Finds out whether the store's trace is stale; to be waited for before `watch`. Never rejects. */
  async prepare(): Promise<void> {
    const { mode, workload } = this.#options;
    const { traces, clock, renewal } = this.#runtime;
    if (this.#chosen.source !== 'store' || this.#key === '') return;
    try {
      this.#facts = await readFacts(traces, this.#key, workload.key);
      if (mode !== 'auto' || this.#facts === null) return;
      const reason = renewalReason(this.#facts, renewal, clock.wallMs());
      if (reason === null || (await traces.isPinned(this.#key, workload.key))) return;
      this.renewal = reason;
    } catch (error) {
      this.#warn(error);
    }
  }

  /** The device is open: measures its replay, and records anew if that is due. */
  watch(device: WatchedDevice, recordAnew: RecordAnew): void {
    const { trace, source } = this.#chosen;
    this.#device = device;
    if (source === 'store' && trace?.kind === 'replaybd') {
      this.#window = new ReplayWindow(trace.trace);
    }
    if (this.renewal === null || this.#facts === null) return;
    const { renewing, log } = this.#runtime;
    if (renewing.has(this.#name)) {
      this.renewal = null;
      return;
    }
    renewing.add(this.#name);
    const { recordLimitMs, recordUntilIdleMs } = this.#options;
    if (recordLimitMs === undefined) {
      this.#recordingUsMax = Math.max(RENEWAL_US_MIN, RENEWAL_LENGTHS * this.#facts.durationUs);
    }
    this.#recording = recordAnew(
      {
        ...(recordLimitMs === undefined ? {} : { recordLimitMs }),
        ...(recordUntilIdleMs === undefined ? {} : { recordUntilIdleMs }),
      },
      (bytes, renewed) => this.#replace(bytes, renewed),
    );
    log.info({ trace: this.#chosen.tracePath, reason: this.renewal }, 'the trace is recorded anew');
  }

  /** A read is about to be accounted: before the first one that is no part of it, the run is measured. */
  beforeRead(timeUs: number): void {
    this.#look(timeUs);
  }

  /** A read, as Recording.access takes it. */
  access(timeUs: number, offset: number, length: number): void {
    this.#recording?.access(timeUs, offset, length);
  }

  /** `nowUs` by the clock of the reads. */
  tick(nowUs: number): void {
    this.#recording?.tick();
    this.#look(nowUs);
  }

  /** See Recording.dueMs. */
  get dueMs(): number {
    return Math.min(this.#recording?.dueMs ?? Infinity, this.#windowDueMs);
  }

  /** Keeps what a device recorded from its start, unless a trace was found meanwhile. */
  async save(path: string, bytes: Uint8Array, trace: Trace): Promise<void> {
    const { mode } = this.#options;
    const isCheckpoint = trace.recording.endReason === 'checkpoint';
    const found = this.sought?.found;
    if (this.sought !== null && found !== null && isCheckpoint) return;
    if (this.dropsRecording) return;
    if (found?.source === 'older' && !isGoodRecording(trace, sectorsIn(found.trace))) {
      this.#isRecordingPoor = true;
      return;
    }
    if (mode === 'auto' && (await this.#isPinned(path))) return;
    await this.put(path, bytes, trace);
  }

  /** Keeps what somebody asked to be recorded. */
  async put(path: string, bytes: Uint8Array, trace: Trace): Promise<void> {
    await writeFileAtomic(path, bytes);
    if (trace.recording.endReason === 'checkpoint' || this.#key === '') return;
    const { key } = trace.workload;
    if (path !== this.#runtime.traces.path(this.#key, key)) return;
    await this.#update(key, (facts) => ({ ...facts, origin: 'recorded' }));
  }

  /** The device is closed: ends the recording, and remembers how the replay went. Never rejects. */
  async close(): Promise<void> {
    const recording = this.#recording;
    if (recording !== null) {
      await recording.stop('detach').catch((error: unknown) => this.#warn(error));
      this.#runtime.renewing.delete(this.#name);
    }
    await this.#remembering;
    if (this.#isMeasured || this.#isRenewed) return;
    if (this.#chosen.source === 'store') await this.#remember(this.#run());
    // What was read before the trace was found says nothing of the trace.
    else if (this.sought?.found?.source === 'registry') await this.#remember(null);
  }

  /** A recording takes the old trace's place, if it is as good as one. */
  async #replace(bytes: Uint8Array, trace: Trace): Promise<void> {
    const path = this.#storePath;
    try {
      const before = this.#facts?.sectors ?? 0;
      if (!isGoodRecording(trace, before)) {
        const sectors = sectorsIn(trace);
        this.#runtime.log.info({ trace: path, sectors, before }, 'recorded too little: not kept');
        return;
      }
      if (await this.#isPinned(path)) return;
      await this.put(path, bytes, trace);
      this.#isRenewed = true;
    } catch (error) {
      this.#warn(error);
    }
  }

  /** Measures the run, and ends the recording beside it, when it is time. */
  #look(timeUs: number): void {
    if (this.#window === null || this.#device === null) return;
    const { quality, waits } = this.#device;
    const { touchedBytes } = quality;
    const look = { timeUs, touchedBytes, waitedUs: waits.waitedUs(timeUs) };
    const elapsedUs = this.#window.elapsedUs(look);
    if (elapsedUs === null) return;
    if (!this.#isMeasured && elapsedUs >= this.#window.lengthUs) {
      this.#isMeasured = true;
      this.#remembering = this.#remember(this.#run());
    }
    if (elapsedUs >= this.#recordingUsMax) {
      this.#recordingUsMax = Infinity;
      this.#recording?.stop('time-limit').catch((error: unknown) => this.#warn(error));
    }
    const measuredUs = this.#isMeasured ? Infinity : this.#window.lengthUs;
    const restUs = Math.min(measuredUs, this.#recordingUsMax) - elapsedUs;
    this.#windowDueMs = this.#runtime.clock.nowMs() + restUs / 1000;
    if (restUs === Infinity) this.#window = null;
  }

  /** What went wrong on the way, or was not allowed, is no fault of the trace's: null. */
  #run(): ReplayRun | null {
    if (this.#device === null) return null;
    const { quality, blobs, replay } = this.#device;
    const end = replay()?.end;
    if (end === undefined || end === 'failed' || end === 'budget') return null;
    const { trace } = this.#chosen;
    const plan = trace?.kind === 'replaybd' ? trace.trace.plan : emptyPlan;
    const plannedBytes = touchedOfPlan(plan, blobs);
    return runOf(quality.snapshot(), plannedBytes, Math.floor(this.#runtime.clock.wallMs()));
  }

  async #remember(run: ReplayRun | null): Promise<void> {
    const nowMs = Math.floor(this.#runtime.clock.wallMs());
    await this.#update(this.#options.workload.key, (facts) => ({
      ...facts,
      lastUsedAtMs: nowMs,
      runs: run === null ? facts.runs : [...facts.runs, run],
    }));
  }

  async #update(workload: string, change: (facts: TraceFacts) => TraceFacts): Promise<void> {
    const { name } = this.#image;
    try {
      const repository = repositoryOf(this.#image);
      await updateFacts(this.#runtime.traces, this.#key, workload, (facts) => {
        const { manifestDigest } = this.#image.identity;
        const known = { image: name, repository: repository || facts.repository };
        return change({
          ...facts,
          ...known,
          manifestDigest: manifestDigest ?? facts.manifestDigest,
        });
      });
    } catch (error) {
      this.#warn(error);
    }
  }

  async #isPinned(path: string): Promise<boolean> {
    const { traces, log } = this.#runtime;
    if (this.#key === '' || path !== this.#storePath) return false;
    const isPinned = await traces.isPinned(this.#key, this.#options.workload.key);
    if (isPinned) log.info({ trace: path }, 'the trace is pinned: not replaced');
    return isPinned;
  }

  get #storePath(): string {
    return this.#runtime.traces.path(this.#key, this.#options.workload.key);
  }

  get #name(): string {
    return `${this.#key}/${this.#options.workload.key}`;
  }

  #warn(error: unknown): void {
    const { tracePath } = this.#chosen;
    this.#runtime.log.warn({ trace: tracePath }, `the store's trace: ${messageOf(error)}`);
  }
}

function runOf(quality: QualitySnapshot, plannedBytes: number, atMs: number): ReplayRun {
  const { cached, prefetched, late, demand } = quality.touchedBytes;
  const fetchedBytes = prefetched + late + demand;
  const touchedBytes = cached + fetchedBytes;
  const coverage = fetchedBytes === 0 ? null : (prefetched + late) / fetchedBytes;
  const planned = touchedBytes === 0 ? null : Math.min(1, plannedBytes / touchedBytes);
  const { timeliness, overFetch } = quality;
  return { atMs, touchedBytes, planned, fetchedBytes, coverage, timeliness, overFetch };
}
