import { closeSync, constants, fchmodSync, fstatSync, openSync } from 'node:fs';
import { mkdir, readdir, readFile, rm, stat, truncate, utimes } from 'node:fs/promises';
import { codeOf, messageOf, ReplaybdError } from '../../base/errors.ts';
import { cacheLimits, GRANULE_BYTES } from '../../base/limits.ts';
import type { Logger } from '../../base/log.ts';
import { tryLockFolder } from '../../../native/file-space.ts';
import { FileStorage } from './blob-storage.ts';
import { CacheEntry } from './cache-entry.ts';
import { syncFolder, type FileOperations } from './file-operations.ts';
import { decodePresence, encodePresence, presenceFileBytes } from './presence-file.ts';

export interface CacheFolderOptions {
  path: string;
  files: FileOperations;
  bootId: string;
  log: Logger;
}

/**
 * The cache's files, and what makes them safe to find after a crash:
 *
 *   <path>/lock                      locked by the one process that uses the folder
 *   <path>/sha256/<hex>/data         sparse, the blob's size
 *   <path>/sha256/<hex>/presence     which of its granules are whole (presence-file.ts)
 *
 * A granule is claimed only after its bytes are durable, and its bytes go away only after the
 * claim has gone durably. So a claim survives the end of a process. After the machine itself
 * stopped, only the disk's word vouches for what was written meanwhile, and raw layers have no
 * checksum to test it by; so a blob that was in use then starts anew.
 */
export class CacheFolder {
  readonly #options: CacheFolderOptions;
  readonly #lockFd: number;

  private constructor(options: CacheFolderOptions, lockFd: number) {
    this.#options = options;
    this.#lockFd = lockFd;
  }

  /** Throws ERR_CACHE_LOCKED while another process has the folder. */
  static async open(options: CacheFolderOptions): Promise<CacheFolder> {
    const { path } = options;
    await mkdir(`${path}/sha256`, { recursive: true, mode: 0o700 });
    makePrivate(path);
    const lockFd = tryLockFolder(path);
    if (lockFd !== null) return new CacheFolder(options, lockFd);
    throw new ReplaybdError(
      'ERR_CACHE_LOCKED',
      `${path}: another process uses this cache. Give this one another --cache folder, ` +
        'or end that process.',
      { errno: 'EBUSY' },
    );
  }

  /** Every blob that can be trusted; what cannot is emptied. Other files are left alone. */
  async scan(): Promise<CacheEntry[]> {
    const entries: CacheEntry[] = [];
    for (const hex of await readdir(`${this.#options.path}/sha256`)) {
      if (!/^[0-9a-f]{64}$/.test(hex) || entries.length === cacheLimits.blobsMax) continue;
      const digest = `sha256:${hex}`;
      try {
        const entry = await this.#loadEntry(digest);
        if (entry !== null) entries.push(entry);
      } catch (error) {
        this.#options.log.warn({ digest }, `cache: starting this blob anew: ${messageOf(error)}`);
        await this.reset(digest);
      }
    }
    return entries;
  }

  openStorage(entry: CacheEntry): FileStorage {
    return new FileStorage(this.#dataPath(entry.digest), entry.sizeBytes, this.#options.files);
  }

  async createEntry(entry: CacheEntry): Promise<void> {
    await mkdir(this.#blobPath(entry.digest), { recursive: true, mode: 0o700 });
  }

  /**
   * Claims what is present, after making it durable. Returns false when that failed; nothing is
   * claimed then that is not durable, and nothing that is no longer there.
   */
  async persist(entry: CacheEntry, storage: FileStorage, clean: boolean): Promise<boolean> {
    const { files, log, bootId } = this.#options;
    const { digest, sizeBytes } = entry;
    entry.isDirty = false;
    let durable = entry.claimableWords();
    let isDurable = true;
    try {
      await storage.datasync();
    } catch (error) {
      log.error({ digest }, `cache: data is not durable: ${messageOf(error)}`);
      durable = entry.persisted;
      isDurable = false;
    }
    const stillThere = entry.claimableWords();
    const words = durable.map((word, index) => word & stillThere[index]);
    try {
      const record = { digest, sizeBytes, clean: clean && isDurable, bootId, words };
      await files.replace(this.#presencePath(digest), encodePresence(record));
      entry.persisted = words;
      entry.isRecordClean = record.clean;
    } catch (error) {
      log.error({ digest }, `cache: presence not recorded: ${messageOf(error)}`);
      await this.#forgetClaims(entry);
      isDurable = false;
    }
    return isDurable;
  }

  /** Keeps the time of last use beyond this process. */
  async stampUsed(entry: CacheEntry): Promise<void> {
    const seconds = entry.lastUsedMs / 1000;
    await utimes(this.#presencePath(entry.digest), seconds, seconds).catch(() => undefined);
  }

  /** Empties a blob whose files cannot be trusted. */
  async reset(digest: string): Promise<void> {
    await rm(this.#presencePath(digest), { force: true });
    await syncFolder(this.#blobPath(digest));
    await truncate(this.#dataPath(digest), 0).catch(ignoreMissing);
  }

  close(): void {
    closeSync(this.#lockFd);
  }

  async #loadEntry(digest: string): Promise<CacheEntry | null> {
    const path = this.#presencePath(digest);
    const found = await stat(path).catch(ignoreMissing);
    if (found === undefined) {
      await truncate(this.#dataPath(digest), 0).catch(ignoreMissing);
      return null;
    }
    if (found.size > presenceFileBytes(cacheLimits.blobBytesMax)) {
      throw new ReplaybdError('ERR_CACHE_PRESENCE', `${path}: ${found.size} bytes are too many`);
    }
    const record = decodePresence(await readFile(path), path);
    const data = await stat(this.#dataPath(digest));
    this.#requireTrust(record, digest, data.size);
    const entry = new CacheEntry(digest, record.sizeBytes);
    entry.presence.load(record.words);
    entry.onDisk.load(record.words);
    entry.persisted = record.words;
    entry.isRecordClean = record.clean;
    entry.stampUsed(0, entry.granuleCount, found.mtimeMs);
    const claimedBytes = entry.onDisk.count * GRANULE_BYTES;
    if (data.blocks * 512 > claimedBytes) this.#punchUnclaimed(entry);
    return entry;
  }

  #requireTrust(
    record: { digest: string; sizeBytes: number; clean: boolean; bootId: string },
    digest: string,
    dataBytes: number,
  ): void {
    const distrust = (reason: string): never => {
      throw new ReplaybdError('ERR_CACHE_PRESENCE', `${this.#blobPath(digest)}: ${reason}`);
    };
    if (record.digest !== digest) distrust(`claims to be ${record.digest}`);
    if (dataBytes !== record.sizeBytes) {
      distrust(`has ${dataBytes} bytes of data where ${record.sizeBytes} are claimed`);
    }
    if (!record.clean && record.bootId !== this.#options.bootId) {
      distrust('the machine stopped while it was in use');
    }
  }

  /** Gives back what a process wrote but did not live to claim. */
  #punchUnclaimed(entry: CacheEntry): void {
    const storage = this.openStorage(entry);
    const { presence, granuleCount } = entry;
    try {
      for (let first = presence.nextClear(0, granuleCount); first < granuleCount;) {
        const end = presence.nextSet(first, granuleCount);
        storage.release(first * GRANULE_BYTES, entry.bytesOf(first, end));
        first = presence.nextClear(end, granuleCount);
      }
    } finally {
      storage.close();
    }
  }

  /** The presence file could not be replaced: unless it is still right, do without one. */
  async #forgetClaims(entry: CacheEntry): Promise<void> {
    const stillThere = entry.claimableWords();
    if (entry.persisted.every((word, index) => (word & ~stillThere[index]) === 0)) return;
    try {
      await rm(this.#presencePath(entry.digest), { force: true });
      await syncFolder(this.#blobPath(entry.digest));
      entry.persisted = new Uint32Array(entry.persisted.length);
    } catch (error) {
      this.#options.log.error({ digest: entry.digest }, `cache: ${messageOf(error)}`);
    }
  }

  #blobPath(digest: string): string {
    return `${this.#options.path}/sha256/${digest.slice('sha256:'.length)}`;
  }

  #dataPath(digest: string): string {
    return `${this.#blobPath(digest)}/data`;
  }

  #presencePath(digest: string): string {
    return `${this.#blobPath(digest)}/presence`;
  }
}

/** Cached layers may be private images: nobody else may look. */
function makePrivate(path: string): void {
  const folder = openSync(path, constants.O_RDONLY | constants.O_DIRECTORY);
  try {
    const { uid } = fstatSync(folder);
    if (uid !== process.geteuid?.()) {
      throw new ReplaybdError(
        'ERR_CACHE_OWNER',
        `${path}: belongs to user ${uid}, who could change cached bytes. Choose another folder.`,
        { errno: 'EACCES' },
      );
    }
    fchmodSync(folder, 0o700);
  } finally {
    closeSync(folder);
  }
}

function ignoreMissing(error: unknown): undefined {
  if (codeOf(error) === 'ENOENT') return undefined;
  throw error;
}
