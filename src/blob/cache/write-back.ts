import type { Clock } from '../../base/clock.ts';
import { messageOf } from '../../base/errors.ts';
import { cacheLimits, GRANULE_BYTES } from '../../base/limits.ts';
import type { Logger } from '../../base/log.ts';
import { FileStorage } from './blob-storage.ts';
import type { CacheEntry } from './cache-entry.ts';
import type { CacheFolder } from './cache-folder.ts';

export interface WriteBackOptions {
  /** Null for a memory cache, which has nothing to record. */
  folder: CacheFolder | null;
  clock: Clock;
  log: Logger;
  entries: () => Iterable<CacheEntry>;
  /** So many granules of room were given back. */
  onReleased: (granules: number) => void;
}

/** What the cache does behind its users' backs: records presence, gives room back. */
export class WriteBack {
  readonly #options: WriteBackOptions;
  readonly #tasks = new Set<Promise<void>>();
  readonly #closing = new AbortController();
  #isCheckpointDue = false;

  constructor(options: WriteBackOptions) {
    this.#options = options;
  }

  /** Presence of every blob that changed is recorded within cacheLimits.checkpointMs. */
  checkpointLater(): void {
    if (this.#isCheckpointDue || this.#options.folder === null) return;
    this.#isCheckpointDue = true;
    this.#start(async () => {
      await this.#pause(cacheLimits.checkpointMs);
      this.#isCheckpointDue = false;
      await this.checkpoint();
    });
  }

  async checkpoint(): Promise<void> {
    for (const entry of this.#options.entries()) {
      if (!entry.isDirty) continue;
      await entry.exclusively(async () => {
        if (entry.isDirty) await this.#withStorage(entry, () => this.#persist(entry, false));
      });
    }
  }

  /** Gives back what nothing claims any more, once readers that are at it must be done. */
  reclaimLater(entry: CacheEntry): void {
    if (entry.isReclaiming) return;
    entry.isReclaiming = true;
    this.#start(async () => {
      await this.#pause(cacheLimits.reclaimGraceMs);
      entry.isReclaiming = false;
      await entry.exclusively(() =>
        this.#withStorage(entry, async () => {
          await this.#persist(entry, false);
          this.#release(entry);
        }),
      );
    });
  }

  /** The blob's last user leaves: records everything. Runs inside `entry.exclusively`. */
  async finish(entry: CacheEntry): Promise<void> {
    if (this.#options.folder === null) return;
    if (entry.isDirty || !entry.isRecordClean) await this.#persist(entry, true);
    this.#release(entry);
    await this.#options.folder.stampUsed(entry);
  }

  /** Does now what was to be done later. */
  async close(): Promise<void> {
    this.#closing.abort();
    await Promise.all(this.#tasks);
  }

  async #persist(entry: CacheEntry, clean: boolean): Promise<void> {
    if (!(entry.storage instanceof FileStorage)) return;
    const isRecorded = await this.#options.folder?.persist(entry, entry.storage, clean);
    if (isRecorded === false) entry.isDirty = true;
  }

  /** What the disk does not take back still counts as used; the next time may do better. */
  #release(entry: CacheEntry): void {
    try {
      entry.forEachUnclaimedRun((first, end) => {
        entry.storage?.release(first * GRANULE_BYTES, entry.bytesOf(first, end));
        this.#options.onReleased(entry.onDisk.clearRange(first, end));
      });
    } catch (error) {
      const { digest } = entry;
      this.#options.log.error({ digest }, `cache: room not given back: ${messageOf(error)}`);
    }
  }

  /** Opens the files of a blob that nobody uses for as long as `task` takes. */
  async #withStorage(entry: CacheEntry, task: () => Promise<void>): Promise<void> {
    const { folder } = this.#options;
    if (entry.storage !== null || folder === null) {
      if (entry.storage !== null) await task();
      return;
    }
    entry.storage = folder.openStorage(entry);
    try {
      await task();
    } finally {
      // Whoever opened the blob meanwhile waits for `exclusively`, and opens it for itself.
      entry.storage.close();
      entry.storage = null;
    }
  }

  /** Until the time is over, or the cache closes. */
  async #pause(ms: number): Promise<void> {
    await this.#options.clock.sleep(ms, this.#closing.signal).catch(() => undefined);
  }

  #start(task: () => Promise<void>): void {
    const done = task()
      .catch((error: unknown) => {
        this.#options.log.error(`cache: ${messageOf(error)}`);
      })
      .finally(() => this.#tasks.delete(done));
    this.#tasks.add(done);
  }
}
