import { messageOf, ReplaybdError } from '../base/errors.ts';
import type { Blob } from '../blob/blob.ts';
import type { FetchEvent } from '../blob/fetch/fetch-stats.ts';
import { RemoteBlob } from '../blob/fetch/remote-blob.ts';
import type { BlockDevice } from '../device/block-device.ts';
import { StackDevice } from '../device/device.ts';
import type { MissObserver } from '../device/miss-reader.ts';
import { createTapMap, TapDrain } from '../device/tap.ts';
import type { Stack, StackPiece } from '../image/stack.ts';
import { QualityMeter, touchStack } from '../prefetch/quality.ts';
import type { Replay } from '../prefetch/replay.ts';
import type { Recording } from '../trace/recording.ts';
import { imageKey } from '../trace/store.ts';
import { WaitLog } from '../trace/wait-log.ts';
import type { EndReason, Trace } from '../trace/trace.ts';
import { workloadOfWords } from '../trace/workload.ts';
import type { AttachmentOptions, AttachmentReport } from './attachment-types.ts';
import { AttachSpans } from './attach-spans.ts';
import { chooseMode, readGivenTrace, type ChosenMode } from './choose-mode.ts';
import type { ForkParameters, RecordParameters, SnapshotParameters } from './control-parameters.ts';
import { deviceFacts } from './device-facts.ts';
import { forkDevice, type ForkFacts } from './fork.ts';
import { replayForeign } from './foreign-trace.ts';
import { GuardedDevice } from './guarded-device.ts';
import type { ImageDescription } from './image-description.ts';
import { LiveUpper, type SnapshotFacts } from './live-upper.ts';
import { openImageUpper, type OpenedUpper } from './open-upper.ts';
import {
  abandonReads,
  closeAll,
  describeAttached,
  openBlobs,
  replayChosen,
  writeResult,
} from './open-image.ts';
import {
  recordDevice,
  requireIdentity,
  type RecordOptions,
  type SaveTrace,
} from './record-device.ts';
import { RecordTraceFile } from './record-trace-file.ts';
import { askedDigests, openStackOf } from './packed-replay.ts';
import type { Runtime } from './runtime.ts';
import { TouchFeed } from './touch-feed.ts';
import type { Turn } from './ticker.ts';
import { TraceKeeper } from './trace-keeper.ts';

export type { AttachMode, AttachmentOptions, AttachmentReport } from './attachment-types.ts';

/**
 * An image opened as a device, with its recording or its replay. The order matters: a replay's first
 * requests leave before the layers are opened, so that opening finds their metadata on its way.
 */
export class Attachment {
  /** As front ends get it. */
  readonly device: GuardedDevice;
  /** The lowers as they were opened; snapshots put further layers above them. */
  readonly stack: Stack;
  /** Null for a read-only device. */
  readonly upper: LiveUpper | null;
  readonly image: ImageDescription;
  readonly quality: QualityMeter;
  readonly touches = new TouchFeed();
  readonly #mode: 'off' | 'record' | 'replay';
  readonly #replay: Replay | null;
  readonly #keeper: TraceKeeper;
  readonly #runtime: Runtime;
  readonly #blobs: readonly Blob[];
  readonly #drain: TapDrain;
  readonly #spans: AttachSpans;
  readonly #waits = new WaitLog();
  readonly #turn: Turn;
  readonly #stopListening: () => void;
  readonly readyMs: number;
  #recording: Recording | null = null;
  /** The one from the device's start, which a trace that is found may make needless. */
  #firstRecording: Recording | null = null;
  #tracePath: string;
  #recordFile: RecordTraceFile | null;
  /** The tap's clock at the access that is being accounted. */
  #accessUs = 0;
  #closing: Promise<AttachmentReport> | null = null;

  private constructor(runtime: Runtime, options: AttachmentOptions, opened: OpenedImage) {
    const { image, blobs, stack, tap, replay } = opened;
    this.#runtime = runtime;
    this.#blobs = blobs;
    this.image = image;
    this.stack = stack;
    this.#mode = opened.mode;
    this.#replay = replay;
    this.#keeper = opened.keeper;
    this.#tracePath = opened.tracePath;
    this.#recordFile = opened.recordFile;
    this.#drain = opened.drain;
    this.#spans = opened.spans;
    this.#turn = opened.turn;
    this.quality = this.#meter(options);
    const common = {
      id: options.id,
      stack,
      clock: runtime.clock,
      log: runtime.log,
      observer: this.#missObserver(),
    };
    const { upper, drain } = opened;
    this.upper = upper === null ? null : new LiveUpper({ ...common, ...upper, tap, drain });
    const superseded = new SharedArrayBuffer(4);
    const device: BlockDevice =
      this.upper?.device ??
      new StackDevice({ ...common, shared: { stack: stack.map, tap, superseded } });
    this.device = new GuardedDevice(device);
    if (this.mode === 'record') {
      const save: SaveTrace = (...recorded) => this.#keeper.save(this.#tracePath, ...recorded);
      this.#recording = this.#record(options, 0, save);
      this.#firstRecording = this.#recording;
    }
    this.#keeper.watch(
      { quality: this.quality, waits: this.#waits, blobs, replay: () => this.replay },
      (limits, save) => this.#record({ ...options, ...limits, checkpointMs: Infinity }, 0, save),
    );
    this.#drain.setEnabled(true);
    this.#turn.start(
      () => this.#drainTap(),
      (error) => options.onFault?.(error),
    );
    const digests = askedDigests(blobs, opened.trace);
    const count = (event: FetchEvent): void => {
      if (!digests.has(event.digest)) return;
      this.quality.onFetch(event.lane, event.askedBytes, event.bytes);
      this.#spans.onFetch(event);
    };
    for (const event of opened.fetched) count(event);
    this.#stopListening = runtime.onFetch(count);
    this.readyMs = opened.drain.nowUs() / 1000;
    const facts = deviceFacts(runtime.clock, opened);
    runtime.metrics.add(options.id, this.quality, facts);
    runtime.metrics.setReady(options.id, this.readyMs / 1000);
    const live = this.upper;
    if (live !== null) runtime.writeMetrics.add(options.id, () => live.counts);
    if (replay !== null) void replay.finished.then(() => this.#setReadAhead('auto'));
    const { virtualSizeBytes } = this.device;
    const found = { mode: this.mode, layers: blobs.length, size_bytes: virtualSizeBytes };
    this.#spans.ready({ device: options.id, image: options.target, ...found }, replay);
  }

  /** Opens an image. Errors: those of the configuration, the registry and the formats. */
  static async open(runtime: Runtime, options: AttachmentOptions): Promise<Attachment> {
    const turn = runtime.ticker.reserve();
    const tap = createTapMap(1 + (options.readerThreads ?? 0), { bell: turn.bell });
    const drain = new TapDrain(tap);
    const nowUs = (): number => drain.nowUs();
    const spans = new AttachSpans(runtime.spans, { clock: runtime.clock, nowUs });
    let resultFile = '';
    const blobs: Blob[] = [];
    let replay: Replay | null = null;
    let upper: OpenedUpper | null = null;
    let isStackOpen = false;
    const fetched: FetchEvent[] = [];
    const stopListening = runtime.onFetch((event) => void fetched.push(event));
    const { signal } = options;
    // Ctrl-C ends an opening that hangs.
    const interrupt = (): void => abandonReads(blobs);
    signal?.addEventListener('abort', interrupt);
    try {
      const given = readGivenTrace(runtime, options);
      const onResultFile = (path: string): void => {
        if (options.writesResult !== false) resultFile = path;
      };
      const describe = async () => await describeAttached(runtime, options, onResultFile);
      const image = await spans.within('manifest', describe);
      const describedMs = nowUs() / 1000;
      const choose = async () => await chooseMode(runtime, image, options, given);
      const chosen = await spans.within('trace read', choose, ({ mode }) => ({ mode }));
      const { trace } = chosen;
      const keeper = new TraceKeeper(runtime, image, options, chosen);
      blobs.push(...(await openBlobs(runtime, image, signal)));
      signal?.throwIfAborted();
      replay = replayChosen(runtime, chosen, { image, blobs, options, describedMs });
      const opening = spans.within('open layers', () => openStackOf(runtime, blobs));
      replay ??= keeper.seek(blobs, opening);
      const [stack] = await Promise.all([opening, keeper.prepare()]);
      isStackOpen = true;
      if (trace !== null && trace.kind !== 'replaybd') {
        replay = replayForeign(runtime, trace, { image, stack, blobs, options });
      }
      upper = await openImageUpper(image, stack, options.upperKind, runtime.log);
      const recordFile = chosen.isRecordTrace
        ? await RecordTraceFile.open(chosen.tracePath, runtime.log)
        : null;
      const opened = {
        ...chosen,
        ...{ image, blobs, stack, upper, tap, turn, drain, spans, replay },
        ...{ recordFile, fetched, keeper },
      };
      const attachment = new Attachment(runtime, options, opened);
      await writeResult(runtime.log, resultFile, 'success');
      return attachment;
    } catch (error) {
      spans.failed(error, { device: options.id, image: options.target });
      replay?.cancel();
      turn.end();
      await upper?.layer.close();
      if (isStackOpen) runtime.stacks.release(blobs);
      await closeAll(blobs);
      await writeResult(runtime.log, resultFile, `failed:${messageOf(error)}`);
      signal?.throwIfAborted();
      throw error;
    } finally {
      signal?.removeEventListener('abort', interrupt);
      stopListening();
    }
  }

  /** Counters as they stand. */
  report(): AttachmentReport {
    this.#drainTap();
    return {
      device: this.device.id,
      image: this.image.name,
      mode: this.mode,
      virtualSizeBytes: this.device.virtualSizeBytes,
      layers: this.#blobs.length,
      readyMs: this.readyMs,
      quality: this.quality.snapshot(),
      replay: replayReport(this.replay),
      trace: this.#traceReport(),
      renewal: this.#keeper.renewal,
      upper: this.upper?.report() ?? null,
    };
  }

  /** A device whose trace was found after it was opened replays from then on. */
  get mode(): 'off' | 'record' | 'replay' {
    return this.#keeper.sought?.found ? 'replay' : this.#mode;
  }

  /** Null without a trace. */
  get replay(): Replay | null {
    const { sought } = this.#keeper;
    return sought === null || sought.found ? this.#replay : null;
  }

  /** The present recording, or the last one. */
  get recording(): Recording | null {
    return this.#recording;
  }

  /**
   * Records what is touched for the first time from now on; a replay goes on beside it. Gives the
   * trace's path. Throws ERR_RECORDING while a recording is under way, and ERR_RECORD_IDENTITY when
   * the image's layers have no names that a trace could be kept by.
   */
  startRecording(parameters: RecordParameters): string {
    const { id } = this.device;
    if (this.#recording !== null && !this.#recording.ended) {
      throw new ReplaybdError('ERR_RECORDING', `device ${id} is being recorded. Stop that first.`, {
        errno: 'EBUSY',
      });
    }
    requireIdentity(this.image, id);
    const { trace, timeLimit, untilIdle } = parameters;
    const workload = workloadOfWords(parameters);
    this.#drainTap();
    this.#recordFile = null;
    this.#tracePath =
      trace ?? this.#runtime.traces.path(imageKey(this.image.identity), workload.key);
    const limits = {
      ...(timeLimit === undefined ? {} : { recordLimitMs: timeLimit * 1000 }),
      ...(untilIdle === undefined ? {} : { recordUntilIdleMs: untilIdle * 1000 }),
    };
    const path = this.#tracePath;
    const save: SaveTrace = (...recorded) => this.#keeper.put(path, ...recorded);
    this.#recording = this.#record({ workload, ...limits }, this.#drain.nowUs(), save);
    this.#turn.wake();
    return this.#tracePath;
  }

  /** Ends the recording and saves its trace. Throws ERR_NOT_RECORDING. */
  async stopRecording(reason: EndReason): Promise<Trace> {
    if (this.recording === null) {
      throw new ReplaybdError(
        'ERR_NOT_RECORDING',
        `device ${this.device.id} is not recording (mode ${this.mode}).`,
        { errno: 'EINVAL' },
      );
    }
    this.#drainTap();
    return await this.recording.stop(reason);
  }

  /**
   * Seals what was written and goes on with another writable layer. Errors: ERR_DEVICE_READ_ONLY, and
   * see WritableDevice.snapshot.
   */
  async snapshot(parameters: SnapshotParameters): Promise<SnapshotFacts> {
    return await this.#writable.snapshot(parameters);
  }

  /**
   * Makes the disk larger, for good. Whoever serves it is to tell its guests. Errors:
   * ERR_DEVICE_READ_ONLY, and see WritableDevice.grow.
   */
  async grow(virtualSizeBytes: number): Promise<void> {
    await this.#writable.grow(virtualSizeBytes);
  }

  get #writable(): LiveUpper {
    if (this.upper !== null) return this.upper;
    throw new ReplaybdError(
      'ERR_DEVICE_READ_ONLY',
      `device ${this.device.id} has no writable layer. Attach it with --upper.`,
      { errno: 'EINVAL' },
    );
  }

  /** Makes another device of what this one holds now; see forkDevice. */
  async fork(parameters: ForkParameters): Promise<ForkFacts> {
    const { image, stack, upper } = this;
    const { clock } = this.#runtime;
    return await forkDevice({ id: this.device.id, image, stack, upper, clock }, parameters);
  }

  /** Ahead of `close`: fails reads that wait for a registry. */
  abandonReads(): void {
    abandonReads(this.#blobs);
  }

  /**
   * Saves the recording, ends the replay, makes durable what was written, and closes the layers. No
   * front end may be left.
   */
  close(): Promise<AttachmentReport> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  async #close(): Promise<AttachmentReport> {
    this.#turn.end();
    this.#replay?.cancel();
    try {
      try {
        this.#drainTap();
      } finally {
        await this.#keeper.close();
      }
      if (this.recording !== null) await this.stopRecording('detach');
      return this.report();
    } finally {
      this.#stopListening();
      this.#spans.close();
      this.#runtime.metrics.remove(this.device.id);
      this.#runtime.writeMetrics.remove(this.device.id);
      try {
        await this.upper?.close();
      } finally {
        this.#runtime.stacks.release(this.#blobs);
        await closeAll(this.#blobs);
      }
    }
  }

  #missObserver(): MissObserver {
    return {
      onMiss: (offset, length) => {
        // The read's own entry is in the tap: it tells since when the read waits.
        this.#takeEntries();
        this.#turn.wake();
        this.#accessUs = this.#drain.nowUs();
        this.#waits.begin(this.#accessUs, offset);
        return this.quality.onMiss(offset, length);
      },
      onMissDone: (latencyMs, error, source) => {
        this.#waits.end(this.#drain.nowUs());
        this.#turn.wake();
        this.#spans.onMissDone(source);
        this.quality.onMissDone(latencyMs, error, source);
      },
    };
  }

  /** What the image's own layers serve of a range, as the device is now. */
  #locate(lba: number, sectors: number): StackPiece[] {
    const pieces = this.upper?.locate(lba, sectors) ?? this.stack.locate(lba, sectors);
    const imageLayers = this.image.identity.layers.length;
    // What snapshots have sealed is this device's alone, and no trace of the image speaks of it.
    return pieces.filter((piece) => piece.layer < imageLayers);
  }

  #meter(options: AttachmentOptions): QualityMeter {
    const { blobRangeOf, layers } = this.stack;
    const touch = touchStack(
      { locate: (lba, sectors) => this.#locate(lba, sectors), blobRangeOf },
      (layer) => layers[layer].blob,
    );
    const { onTouch, id } = options;
    return new QualityMeter(
      (offset, length) => {
        const touched = touch(offset, length);
        this.touches.add(this.#accessUs, offset, length, touched);
        onTouch?.(this.#accessUs, offset, touched);
        return touched;
      },
      (source, latencyMs) => this.#runtime.metrics.observeDemandRead(id, source, latencyMs),
    );
  }

  #record(options: RecordOptions, startUs: number, save: SaveTrace): Recording {
    const { image, stack } = this;
    const stop = (): void => void this.stopRecording('request').catch(() => undefined);
    return recordDevice(
      this.#runtime,
      { image, stack, blobs: this.#blobs, file: this.#recordFile, waits: this.#waits, stop },
      (lba, sectors) => this.#locate(lba, sectors),
      { ...options, startUs, save },
    );
  }

  /** Gives when it is to be called again, by the runtime's clock, if nothing is read until then. */
  #drainTap(): number {
    const nowUs = this.#drain.nowUs();
    this.#takeEntries();
    this.#waits.settle(nowUs);
    this.recording?.tick();
    this.#keeper.tick(nowUs);
    this.#spans.tick();
    if (this.#spans.isOpen) return -Infinity;
    return Math.min(this.recording?.dueMs ?? Infinity, this.#keeper.dueMs);
  }

  #takeEntries(): void {
    this.#drain.drain((timeUs, offset, length, hit) => {
      this.#accessUs = timeUs;
      if (!hit) this.#waits.onMissEntry(timeUs, offset);
      this.#spans.onRead(timeUs, hit);
      this.#keeper.beforeRead(timeUs);
      this.quality.onAccess(offset, length, hit);
      this.recording?.access(timeUs, offset, length);
      this.#keeper.access(timeUs, offset, length);
    });
  }

  #setReadAhead(readAhead: 'auto' | 'off'): void {
    for (const blob of this.#blobs) if (blob instanceof RemoteBlob) blob.readAhead = readAhead;
  }

  #traceReport(): AttachmentReport['trace'] {
    if (this.mode === 'off' && this.#recording === null) return null;
    const facts = { path: this.#tracePath, ...this.#keeper.replayed };
    const { recording } = this;
    const isDropped = recording === this.#firstRecording && this.#keeper.dropsRecording;
    if (recording === null || isDropped) return facts;
    const { recorder, truncated } = recording;
    return { ...facts, records: recorder.count, truncated };
  }
}

function replayReport(replay: Replay | null): AttachmentReport['replay'] {
  if (replay === null) return null;
  const { counters, end, packed } = replay;
  return { ...counters, end, packed: packed === null ? null : { ...packed } };
}

interface OpenedImage extends ChosenMode {
  image: ImageDescription;
  blobs: readonly Blob[];
  stack: Stack;
  upper: OpenedUpper | null;
  tap: ReturnType<typeof createTapMap>;
  drain: TapDrain;
  turn: Turn;
  spans: AttachSpans;
  replay: Replay | null;
  keeper: TraceKeeper;
  /** Where overlaybd's `recordTracePath` wants the trace. */
  recordFile: RecordTraceFile | null;
  /** Requests that ended while the image was opened. */
  fetched: readonly FetchEvent[];
}
