import assert from 'node:assert/strict';
import { readBootId } from '../../base/boot-id.ts';
import { systemClock, type Clock } from '../../base/clock.ts';
import { codeOf, messageOf, ReplaybdError } from '../../base/errors.ts';
import { cacheLimits, GRANULE_BYTES } from '../../base/limits.ts';
import { silentLogger, type Logger } from '../../base/log.ts';
import { FileStorage, MemoryStorage } from './blob-storage.ts';
import { CacheEntry } from './cache-entry.ts';
import { CacheFolder } from './cache-folder.ts';
import { CachedBlob, type CacheKeeper } from './cached-blob.ts';
import { systemFiles, type FileOperations } from './file-operations.ts';
import { MemorySpill } from './memory-spill.ts';
import { Quota } from './quota.ts';
import { WriteBack } from './write-back.ts';

export interface MemoryCacheOptions {
  /** Bytes of granules kept before the least recently used are evicted. */
  quotaBytes: number;
  clock?: Clock;
  log?: Logger;
}

export interface BlobCacheOptions extends MemoryCacheOptions {
  /** Memory for granules that the disk refuses. */
  memoryBytesMax?: number;
  files?: FileOperations;
  /** Changes when the machine restarts; the kernel's own by default. */
  bootId?: string;
}

export interface BlobCacheStats {
  quotaBytes: number;
  /** Room that granules take on disk (in memory, for a memory cache). */
  usedBytes: number;
  /** Granules that stand in memory because the disk refused them. */
  spilledBytes: number;
  evictedBytes: number;
  /** Writes the disk refused. */
  writeFailures: number;
  blobs: number;
}

const MEMORY_BYTES_DEFAULT = 256 * 1024 * 1024;

/** Opens a cache in a folder of its own, for this process alone. Throws ERR_CACHE_LOCKED. */
export async function openBlobCache(path: string, options: BlobCacheOptions): Promise<BlobCache> {
  const { files = systemFiles, log = silentLogger } = options;
  const bootId = options.bootId ?? readBootId();
  const folder = await CacheFolder.open({ path, files, bootId, log });
  try {
    return new BlobCache(options, folder, await folder.scan());
  } catch (error) {
    folder.close();
    throw error;
  }
}

/** A cache that keeps nothing beyond the last close of each blob. */
export function openMemoryCache(options: MemoryCacheOptions): BlobCache {
  return new BlobCache(options, null, []);
}

/** Content-addressed blobs, kept granule by granule within a quota. */
export class BlobCache {
  readonly #clock: Clock;
  readonly #log: Logger;
  readonly #folder: CacheFolder | null;
  readonly #entries = new Map<string, CacheEntry>();
  readonly #quota: Quota;
  readonly #spill: MemorySpill;
  readonly #writeBack: WriteBack;
  readonly #keeper: CacheKeeper;
  #writeFailures = 0;
  #diskRestsUntilMs = 0;
  #openings: Promise<unknown> = Promise.resolve();

  /** `entries` are what the folder holds already; openBlobCache and openMemoryCache call this. */
  constructor(options: BlobCacheOptions, folder: CacheFolder | null, entries: CacheEntry[]) {
    this.#clock = options.clock ?? systemClock;
    this.#log = options.log ?? silentLogger;
    this.#folder = folder;
    this.#spill = new MemorySpill(options.memoryBytesMax ?? MEMORY_BYTES_DEFAULT);
    this.#writeBack = new WriteBack({
      folder,
      clock: this.#clock,
      log: this.#log,
      entries: () => this.#entries.values(),
      onReleased: (granules) => this.#quota.addUsed(-granules),
    });
    this.#quota = new Quota(
      options.quotaBytes,
      this.#clock,
      () => this.#entries.values(),
      (entry) => this.#writeBack.reclaimLater(entry),
    );
    for (const entry of entries) {
      this.#entries.set(entry.digest, entry);
      this.#quota.addUsed(entry.onDisk.count);
      this.#quota.addLive(entry.onDisk.count);
    }
    this.#keeper = {
      store: (entry, bytes, offset) => this.#store(entry, bytes, offset),
      drop: (entry, first, end) => this.#drop(entry, first, end),
      wallMs: () => this.#clock.wallMs(),
      leave: (entry) => this.#leave(entry),
    };
  }

  get stats(): BlobCacheStats {
    return {
      quotaBytes: this.#quota.quotaBytes,
      usedBytes: this.#quota.usedBytes,
      spilledBytes: this.#spill.bytes,
      evictedBytes: this.#quota.evictedBytes,
      writeFailures: this.#writeFailures,
      blobs: this.#entries.size,
    };
  }

  /**
   * A hold on a blob, to be closed. Throws ERR_BLOB_DIGEST, ERR_BLOB_SIZE for impossible sizes and
   * for one that contradicts another hold.
   */
  blob(digest: string, sizeBytes: number): Promise<CachedBlob> {
    const opened = this.#openings.then(() => this.#open(digest, sizeBytes));
    this.#openings = opened.catch(() => undefined);
    return opened;
  }

  /**
   * Takes files' pages out of this process; they stay in the page cache, and come back as they are
   * read. A blob that stands in memory in part keeps what it has.
   */
  unloadPages(): void {
    for (const { storage, inMemory, sizeBytes } of this.#entries.values()) {
      if (storage instanceof FileStorage && inMemory.count === 0) storage.map.discard(0, sizeBytes);
    }
  }

  /** Records the presence of everything now, instead of within a few seconds. */
  async checkpoint(): Promise<void> {
    await this.#writeBack.checkpoint();
  }

  /** All holds must be closed before. */
  async close(): Promise<void> {
    await this.#openings;
    await this.#writeBack.close();
    for (const entry of this.#entries.values()) {
      assert.equal(entry.users, 0, `cache: ${entry.digest} is still open`);
    }
    this.#folder?.close();
  }

  async #open(digest: string, sizeBytes: number): Promise<CachedBlob> {
    requireValid(digest, sizeBytes);
    const known = this.#entries.get(digest);
    if (known !== undefined && known.sizeBytes !== sizeBytes) await this.#forget(known, sizeBytes);
    const entry = this.#entries.get(digest) ?? new CacheEntry(digest, sizeBytes);
    this.#entries.set(digest, entry);
    entry.users += 1;
    try {
      const storage = await entry.exclusively(async () => {
        await this.#folder?.createEntry(entry);
        entry.storage ??=
          this.#folder?.openStorage(entry) ?? new MemoryStorage(sizeBytes, entry.digest);
        return entry.storage;
      });
      return new CachedBlob(entry, storage, this.#keeper);
    } catch (error) {
      entry.users -= 1;
      throw error;
    }
  }

  /** Somebody once claimed another size for this digest; only one of them can be right. */
  async #forget(entry: CacheEntry, sizeBytes: number): Promise<void> {
    const { digest } = entry;
    if (entry.users > 0) {
      throw new ReplaybdError(
        'ERR_BLOB_SIZE',
        `${digest}: ${sizeBytes} bytes are claimed, but an open device has it with ` +
          `${entry.sizeBytes} bytes. One of the two manifests is wrong.`,
      );
    }
    await entry.exclusively(async () => this.#folder?.reset(digest));
    this.#quota.addLive(-entry.presence.count);
    this.#quota.addUsed(-entry.onDisk.count);
    this.#entries.delete(digest);
  }

  #store(entry: CacheEntry, bytes: Uint8Array, offset: number): void {
    const { presence } = entry;
    const first = offset / GRANULE_BYTES;
    const end = first + Math.ceil(bytes.length / GRANULE_BYTES);
    for (let start = presence.nextClear(first, end); start < end;) {
      const stop = presence.nextSet(start, end);
      const from = (start - first) * GRANULE_BYTES;
      const piece = bytes.subarray(from, from + entry.bytesOf(start, stop));
      if (!this.#storeOnDisk(entry, start, stop, piece)) this.#spill.put(entry, start, piece);
      presence.setRange(start, stop);
      start = presence.nextClear(stop, end);
    }
    entry.stampUsed(first, end, this.#clock.wallMs());
  }

  /** False when the disk has no room, or fails. */
  #storeOnDisk(entry: CacheEntry, first: number, end: number, bytes: Uint8Array): boolean {
    const fits = this.#quota.admits(end - first);
    if (this.#folder !== null && (!fits || this.#clock.nowMs() < this.#diskRestsUntilMs)) {
      return false;
    }
    try {
      assert(entry.storage !== null);
      entry.storage.write(bytes, first * GRANULE_BYTES);
    } catch (error) {
      this.#onWriteFailure(error);
      return false;
    }
    this.#quota.addUsed(entry.onDisk.setRange(first, end));
    this.#quota.addLive(end - first);
    entry.isDirty = true;
    this.#writeBack.checkpointLater();
    return true;
  }

  #onWriteFailure(error: unknown): void {
    if (this.#writeFailures === 0) {
      this.#log.error(
        { code: codeOf(error) },
        `cache: the disk refuses to store more (${messageOf(error)}). ` +
          'Reads go on from memory, and what they fetch is not kept: free disk space.',
      );
    }
    this.#writeFailures += 1;
    this.#diskRestsUntilMs = this.#clock.nowMs() + cacheLimits.diskRestMs;
  }

  #drop(entry: CacheEntry, first: number, end: number): void {
    this.#spill.drop(entry, first, end);
    this.#quota.addLive(-entry.forgetOnDisk(first, end));
    this.#writeBack.reclaimLater(entry);
  }

  async #leave(entry: CacheEntry): Promise<void> {
    await entry.exclusively(async () => {
      if (entry.users === 1) await this.#writeBack.finish(entry);
      entry.users -= 1;
      if (entry.users > 0) return;
      if (this.#folder === null) this.#entries.delete(entry.digest);
      this.#closeStorage(entry);
    });
  }

  #closeStorage(entry: CacheEntry): void {
    if (this.#folder === null) {
      this.#quota.addLive(-entry.presence.count);
      this.#quota.addUsed(-entry.onDisk.count);
    } else {
      this.#spill.dropEntry(entry);
    }
    entry.storage?.close();
    entry.storage = null;
  }
}

function requireValid(digest: string, sizeBytes: number): void {
  if (!/^sha256:[0-9a-f]{64}$/.test(digest)) {
    throw new ReplaybdError(
      'ERR_BLOB_DIGEST',
      `expected a digest "sha256:" and 64 hex digits, found "${digest}"`,
      { errno: 'EINVAL' },
    );
  }
  if (!Number.isSafeInteger(sizeBytes) || sizeBytes < 0 || sizeBytes > cacheLimits.blobBytesMax) {
    throw new ReplaybdError(
      'ERR_BLOB_SIZE',
      `${digest}: expected a size of at most ${cacheLimits.blobBytesMax} bytes, found ${sizeBytes}`,
      { errno: 'EINVAL' },
    );
  }
}
