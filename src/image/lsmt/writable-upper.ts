import type { FileHandle } from 'node:fs/promises';
import { setImmediate, setTimeout as sleep } from 'node:timers/promises';
import { punchHole } from '../../../native/file-space.ts';
import { unmapWindow, type FileWindow } from '../../../native/memory-map.ts';
import { messageOf, ReplaybdError } from '../../base/errors.ts';
import { SECTOR_BYTES, upperLimits } from '../../base/limits.ts';
import { silentLogger, type Logger } from '../../base/log.ts';
import { checkUpperSize, type UpperPaths } from './create-upper.ts';
import { LSMT_BLOCK_BYTES, LSMT_DATA_SECTOR, LSMT_ENTRY_BYTES } from './format.ts';
import { decodeEntry, type LsmtEntryColumns } from './index-entries.ts';
import type { LogFile } from './log-file.ts';
import { PendingFile } from './pending-file.ts';
import { lockUpper, repairUpper, shareUpper, type LockedUpper } from './open-upper.ts';
import { refuseUnfinishedResize } from './resize-journal.ts';
import { appendSeal } from './seal-upper.ts';
import { runKinds } from './sector-map.ts';
import type { SharedUpper } from './shared-upper.ts';
import type { UpperKind, UpperMap } from './upper-map.ts';
import { openUpper, readUpper } from './upper.ts';
import { gateStates } from './upper-state.ts';
import { pollUpper } from './upper-poll.ts';
import { writeVirtualSize } from './virtual-size.ts';

const ENTRY_WORDS = LSMT_ENTRY_BYTES / 4;
const WRITE_ATTEMPTS_MAX = 1000;

export interface OpenUpperOptions {
  /** Where repairs and failures of background work are told. */
  log?: Logger;
  /** The lowers' size, for a layer that states none; it is written to the layer then. */
  virtualSizeBytes?: number;
  /** The caller finishes the resize that was interrupted; nobody else may open the layer then. */
  finishesResize?: boolean;
}

/** A layer that was sealed. */
export interface SealedUpper {
  /** The former data file, now a read-only layer. */
  readonly path: string;
  readonly entries: number;
}

/**
 * Opens a writable layer, for this process alone. What a crash left incomplete is dropped, and the
 * log says so. Errors: ERR_UPPER_OPEN, ERR_UPPER_BUSY, ERR_UPPER_SEALED, ERR_UPPER_SIZE, and those
 * of openUpper.
 */
export async function openWritableUpper(
  paths: UpperPaths,
  options: OpenUpperOptions = {},
): Promise<WritableUpper> {
  const log = options.log ?? silentLogger;
  if (options.finishesResize !== true) await refuseUnfinishedResize(paths.data);
  const locked = await lockUpper(paths);
  let logFile: LogFile | null = null;
  let pending: PendingFile | null = null;
  try {
    const { virtualSizeBytes: stated, kind } = locked.found;
    const virtualSizeBytes = stated === 0 ? (options.virtualSizeBytes ?? 0) : stated;
    checkUpperSize(paths.data, virtualSizeBytes);
    logFile = await repairUpper(locked, paths, log);
    if (stated === 0) await writeVirtualSize(paths, kind, virtualSizeBytes);
    pending = openPending(locked, logFile);
    const shared = await shareUpper(locked, virtualSizeBytes, pending);
    return new WritableUpper({ paths, log, logFile, pending, ...locked, ...shared });
  } catch (error) {
    pending?.close();
    await logFile?.close();
    await locked.data.close();
    throw error;
  }
}

/** The file for what is not written down, of a layer where everything is. */
function openPending({ found }: LockedUpper, logFile: LogFile): PendingFile {
  const pending = new PendingFile(found.name, found.uuid);
  try {
    // Both halves get their first block while it is not yet a guest that waits for one.
    for (let half = 0; half < 2; half += 1) pending.begin(logFile.entries);
    return pending;
  } catch (error) {
    pending.close();
    throw error;
  }
}

type OpenedUpper = Awaited<ReturnType<typeof lockUpper>> &
  Awaited<ReturnType<typeof shareUpper>> & {
    paths: UpperPaths;
    log: Logger;
    logFile: LogFile;
    pending: PendingFile;
  };

/**
 * A writable layer as the main thread has it. Other threads write through its `map`; this one owns
 * the files, writes the log, and makes durable what the others wrote:
 *
 *   flush   data fdatasync -> entries to the log file -> log fdatasync -> (sparse) punch, fdatasync
 *
 * so that no entry on disk ever leads to data that is not.
 */
export class WritableUpper {
  readonly paths: UpperPaths;
  readonly kind: UpperKind;
  readonly uuid: string | null;
  readonly parentUuid: string | null;
  readonly #log: Logger;
  readonly #data: FileHandle;
  readonly #logFile: LogFile;
  readonly #pending: PendingFile;
  readonly #stopPolling: () => void;
  #map: UpperMap;
  #shared: SharedUpper;
  #window: FileWindow;
  /** Entries taken from the shared log that are not in the log file yet; their data is durable. */
  #batch: Uint32Array | null = null;
  /** Ranges of a sparse layer that entries on their way to the disk call zeroed. */
  #zeroed: { lba: number; sectors: number }[] = [];
  #isLogDurable = true;
  #lastDrainMs = performance.now();
  #running: Promise<void> = Promise.resolve();
  #nextFlush: Promise<void> | null = null;
  #isDraining = false;
  /** Reasons to keep writers out; the gate is open while there are none. */
  #closers = 0;
  #opened = Promise.withResolvers<void>();
  /** Set for good when a flush failed in a way that loses what was acknowledged. */
  #failure: ReplaybdError | null = null;
  #isClosed = false;

  constructor(opened: OpenedUpper) {
    this.paths = opened.paths;
    this.kind = opened.found.kind;
    this.uuid = opened.found.uuid;
    this.parentUuid = opened.found.parentUuid;
    this.#log = opened.log;
    this.#data = opened.data;
    this.#logFile = opened.logFile;
    this.#pending = opened.pending;
    this.#map = opened.map;
    this.#shared = opened.shared;
    this.#window = opened.window;
    this.#stopPolling = pollUpper(
      () => this.#shared.state.logged > 0,
      () => this.#drainIfDue(),
    );
  }

  /** For other threads: `new SharedUpper(map)`. Another one after `resize`. */
  get map(): UpperMap {
    return this.#map;
  }

  /** This thread's own. */
  get shared(): SharedUpper {
    return this.#shared;
  }

  get virtualSizeBytes(): number {
    return this.#map.virtualSizeBytes;
  }

  /** Where the data file's data ends, in bytes, once writers are out. */
  get dataEndBytes(): number {
    return this.kind === 'append'
      ? this.#shared.state.append * SECTOR_BYTES
      : LSMT_BLOCK_BYTES + this.virtualSizeBytes;
  }

  /** Writes whole sectors; waits where a thread would be refused. Errors: those of SharedUpper. */
  async write(offset: number, data: Uint8Array): Promise<void> {
    await this.#change(() => this.#shared.write(offset, data));
  }

  /** The range reads as zeros afterwards, and hides what is below, for good. */
  async discard(offset: number, length: number): Promise<void> {
    await this.#change(() => this.#shared.discard(offset, length));
  }

  async #change(attempt: () => boolean): Promise<void> {
    for (let attempts = 0; attempts < WRITE_ATTEMPTS_MAX; attempts += 1) {
      this.#assertUsable();
      if (attempt()) {
        if (this.#shared.state.logged >= upperLimits.drainEntries) this.#drain();
        return;
      }
      if (this.#closers > 0) await this.#opened.promise;
      else await this.flush();
    }
    throw new ReplaybdError('ERR_UPPER_WRITE', `${this.paths.data}: the log stays full`);
  }

  /** Resolves when all that was written before the call is durable. ERR_UPPER_FLUSH, ERR_UPPER_FULL. */
  flush(): Promise<void> {
    this.#nextFlush ??= this.#afterRunning(() => {
      this.#nextFlush = null;
      return this.#writeDown(true);
    });
    return this.#nextFlush;
  }

  /** What the layer holds, exactly as the original has it in memory; everything is flushed first. */
  async entries(): Promise<LsmtEntryColumns> {
    await this.flush();
    return await openUpper(this.paths.data, this.paths.index);
  }

  /**
   * Changes the disk's size, durably. What a smaller disk loses is zeros when it grows again. `map` is
   * another one afterwards, and the old one is retired: `onRemapped` is called before any write can
   * reach the new one, and what it returns resolves when no thread uses the old one. Writers wait
   * while the layer's index is read again. ERR_UPPER_SIZE.
   */
  async resize(
    virtualSizeBytes: number,
    onRemapped: () => Promise<void> = () => Promise.resolve(),
  ): Promise<void> {
    checkUpperSize(this.paths.data, virtualSizeBytes);
    const lost = this.virtualSizeBytes - virtualSizeBytes;
    if (lost > 0) await this.discard(virtualSizeBytes, lost);
    const former = this.#window;
    let released = Promise.resolve();
    await this.shutOut();
    try {
      await this.flush();
      // No flush in between, which would look at both maps.
      await this.#afterRunning(async () => {
        await this.#remap(virtualSizeBytes);
        released = onRemapped();
      });
    } finally {
      this.letIn();
    }
    await released;
    unmapWindow(former);
  }

  /** Writers are shut out, and everything is flushed. */
  async #remap(virtualSizeBytes: number): Promise<void> {
    await writeVirtualSize(this.paths, this.kind, virtualSizeBytes);
    const found = await readUpper(this.#data, this.paths);
    const next = await shareUpper({ data: this.#data, found }, virtualSizeBytes, this.#pending);
    next.shared.state.gate = gateStates.closed;
    this.retire();
    this.#map = next.map;
    this.#shared = next.shared;
    this.#window = next.window;
  }

  /**
   * Makes the data file a read-only layer and closes the upper; the index file and the sidecar stay,
   * and mean nothing any more. ERR_LSMT_ENTRIES.
   */
  async seal(): Promise<SealedUpper> {
    try {
      await this.shutOut();
      await this.flush();
      const entries = await this.appendSeal();
      return { path: this.paths.data, entries };
    } finally {
      await this.close();
    }
  }

  /**
   * Puts the index and the trailer behind the data, which nobody changes any more and all of which
   * is flushed; how many entries that are. Readers may go on meanwhile. ERR_LSMT_ENTRIES.
   */
  async appendSeal(): Promise<number> {
    const entries = await readUpper(this.#data, this.paths);
    await appendSeal(this.#data, this.paths.data, this.dataEndBytes, entries);
    return entries.count;
  }

  /** Entries of the log, flushed or not. What the layer holds takes at most twice as many. */
  get logEntries(): number {
    const waiting = (this.#batch?.length ?? 0) / ENTRY_WORDS;
    return this.#logFile.entries + waiting + this.#shared.state.logged;
  }

  /** Nothing was ever written or discarded. */
  get isEmpty(): boolean {
    const { sectors } = this.#shared;
    const sectorsMax = this.virtualSizeBytes / SECTOR_BYTES;
    return sectors.find(0, sectorsMax) === sectorsMax && sectors.kind === runKinds.absent;
  }

  /**
   * Keeps writers out, and resolves when none is inside any more. Calls nest. ERR_UPPER_STUCK when one
   * does not come out; then nobody is kept out.
   */
  async shutOut(): Promise<void> {
    const { state } = this.#shared;
    if (this.#closers === 0) this.#opened = Promise.withResolvers();
    this.#closers += 1;
    if (state.gate === gateStates.open) state.gate = gateStates.closed;
    const sinceMs = performance.now();
    for (let looks = 0; state.inside > 0; looks += 1) {
      // A write that the kernel slows down may take a while.
      await (looks < 10 ? setImmediate() : sleep(1));
      if (performance.now() - sinceMs < upperLimits.shutOutMsMax) continue;
      this.letIn();
      throw new ReplaybdError(
        'ERR_UPPER_STUCK',
        `${this.paths.data}: a write has not ended after ${upperLimits.shutOutMsMax} ms. ` +
          'Check the disk.',
      );
    }
  }

  /** Undoes one `shutOut`. */
  letIn(): void {
    this.#closers -= 1;
    if (this.#closers > 0) return;
    const { state } = this.#shared;
    if (state.gate === gateStates.closed) state.gate = gateStates.open;
    this.#opened.resolve();
  }

  /** No thread reads or writes through the map any more: another device state has taken its place. */
  retire(): void {
    this.#shared.state.gate = gateStates.retired;
  }

  /** Flushes and closes the files. No other thread may use the map any more. */
  async close(): Promise<void> {
    if (this.#isClosed) return;
    this.#isClosed = true;
    this.#stopPolling();
    try {
      await this.shutOut();
      // Who retires a layer has flushed it.
      if (this.#failure === null && !this.#shared.isRetired) await this.flush();
      this.#pending.remove();
    } finally {
      this.retire();
      this.#opened.resolve();
      unmapWindow(this.#window);
      this.#pending.close();
      await this.#logFile.close();
      await this.#data.close();
    }
  }

  #drainIfDue(): void {
    const { logged } = this.#shared.state;
    if (logged === 0 || this.#isClosed) return;
    const isOld = performance.now() - this.#lastDrainMs > upperLimits.drainMs;
    if (isOld || logged >= upperLimits.drainEntries) this.#drain();
  }

  /** Writes entries down in the background. */
  #drain(): void {
    if (this.#isDraining) return;
    this.#isDraining = true;
    this.#afterRunning(() => this.#writeDown(false)).then(
      () => void (this.#isDraining = false),
      (error: unknown) => {
        this.#isDraining = false;
        this.#log.error({ upper: this.paths.data, err: error }, messageOf(error));
      },
    );
  }

  #afterRunning(work: () => Promise<void>): Promise<void> {
    const turn = this.#running.then(work, work);
    this.#running = turn.catch(() => undefined);
    return turn;
  }

  async #writeDown(mustBeDurable: boolean): Promise<void> {
    this.#assertUsable();
    const { state } = this.#shared;
    this.#lastDrainMs = performance.now();
    // What a failure left undone comes first: of two batches the pending file has no more.
    await this.#appendBatch();
    if (this.#zeroed.length > 0) await this.#punchLogged();
    const isDirty = state.takeDirty();
    this.#takeLogged();
    // A writer marks the layer dirty last: its entry may be here when the mark is not.
    if (isDirty || this.#batch !== null) await this.#syncing(() => this.#data.datasync());
    await this.#appendBatch();
    if (this.#zeroed.length > 0) await this.#punchLogged();
    else if (mustBeDurable) await this.#syncLog();
  }

  async #syncLog(): Promise<void> {
    if (!this.#isLogDurable) await this.#syncing(() => this.#logFile.sync());
    this.#isLogDurable = true;
  }

  async #appendBatch(): Promise<void> {
    if (this.#batch === null) return;
    await this.#logFile.append(this.#batch);
    this.#batch = null;
    this.#isLogDurable = false;
  }

  /** Moves the shared log's entries to `#batch`; those that come now are of the next generation. */
  #takeLogged(): void {
    const { state } = this.#shared;
    state.lock();
    try {
      const entries = state.logged;
      if (entries === 0) return;
      this.#pending.begin(this.#logFile.entries + entries);
      this.#batch = new Uint32Array(this.#map.log, 0, entries * ENTRY_WORDS).slice();
      state.generation = this.#pending.generation;
      state.logged = 0;
    } finally {
      state.unlock();
    }
    if (this.kind !== 'sparse') return;
    for (let at = 0; at < this.#batch.length; at += ENTRY_WORDS) {
      const { lba, sectors, zeroed } = decodeEntry(this.#batch, at);
      if (zeroed) this.#zeroed.push({ lba, sectors });
    }
  }

  /**
   * Gives back the blocks of what was zeroed and still is, now that the sidecar says so: not before,
   * as after a crash a hole without an entry would show what is below. And durably, as data that is
   * found in the place of zeros counts as data.
   */
  async #punchLogged(): Promise<void> {
    await this.#syncLog();
    await this.shutOut();
    try {
      const { sectors: index } = this.#shared;
      for (const { lba, sectors } of this.#zeroed) {
        for (let done = 0; done < sectors;) {
          const count = index.find(lba + done, sectors - done);
          const offset = (LSMT_DATA_SECTOR + lba + done) * SECTOR_BYTES;
          if (index.kind === runKinds.zeroed) {
            punchHole(this.#data.fd, offset, count * SECTOR_BYTES);
          }
          done += count;
        }
      }
      this.#zeroed = [];
    } finally {
      this.letIn();
    }
    await this.#syncing(() => this.#data.datasync());
  }

  /**
   * After a sync that failed nobody knows what is on disk, and the next one would succeed without
   * having written it: the layer takes no writes any more.
   */
  async #syncing(sync: () => Promise<void>): Promise<void> {
    try {
      await sync();
    } catch (error) {
      this.#failure = new ReplaybdError(
        'ERR_UPPER_FLUSH',
        `${this.paths.data}: what was written could not be made durable: ${messageOf(error)}. ` +
          'Detach the device and check the disk.',
        { cause: error },
      );
      this.#closers += 1;
      this.#shared.state.gate = gateStates.closed;
      this.#opened.resolve();
      throw this.#failure;
    }
  }

  #assertUsable(): void {
    if (this.#failure !== null) throw this.#failure;
    if (!this.#shared.isRetired) return;
    throw new ReplaybdError('ERR_UPPER_CLOSED', `${this.paths.data}: the layer is closed`);
  }
}
