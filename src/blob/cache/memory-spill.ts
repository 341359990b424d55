import { ReplaybdError } from '../../base/errors.ts';
import { cacheLimits, GRANULE_BYTES } from '../../base/limits.ts';
import { FileStorage } from './blob-storage.ts';
import type { CacheEntry } from './cache-entry.ts';
import { forEachRun } from './granule-bits.ts';

/** Runs of granules join up to this many, so that what is dropped at once stays small. */
const RUN_GRANULES_MAX = 16;

interface Run {
  entry: CacheEntry;
  first: number;
  end: number;
}

/**
 * Granules that the disk refused. They stand in memory in the place of the file's pages, so that a
 * reader sees no difference. Bounded: the oldest make room for the newest.
 */
export class MemorySpill {
  readonly #bytesMax: number;
  /** Oldest first; those before #head are gone. */
  #runs: Run[] = [];
  #head = 0;
  #granules = 0;

  constructor(bytesMax: number) {
    this.#bytesMax = bytesMax;
  }

  get bytes(): number {
    return this.#granules * GRANULE_BYTES;
  }

  /** Puts absent granules in place; the caller sets their presence. */
  put(entry: CacheEntry, first: number, bytes: Uint8Array): void {
    const end = first + Math.ceil(bytes.length / GRANULE_BYTES);
    this.#makeRoom((end - first) * GRANULE_BYTES);
    storageOf(entry).writeToMemory(bytes, first * GRANULE_BYTES);
    this.#granules += entry.inMemory.setRange(first, end);
    const last = this.#runs.length > this.#head ? this.#runs[this.#runs.length - 1] : undefined;
    if (last?.entry === entry && last.end === first && end - last.first <= RUN_GRANULES_MAX) {
      last.end = end;
    } else {
      this.#runs.push({ entry, first, end });
    }
  }

  /** Forgets the run's granules that stand in memory; returns how many. */
  drop(entry: CacheEntry, first: number, end: number): number {
    let dropped = 0;
    forEachRun(entry.inMemory, first, end, (runFirst, runEnd) => {
      entry.presence.clearRange(runFirst, runEnd);
      const length = entry.bytesOf(runFirst, runEnd);
      storageOf(entry).releaseMemory(runFirst * GRANULE_BYTES, length);
      dropped += entry.inMemory.clearRange(runFirst, runEnd);
    });
    this.#granules -= dropped;
    return dropped;
  }

  /** Forgets all of an entry, which is about to be closed. */
  dropEntry(entry: CacheEntry): void {
    this.drop(entry, 0, entry.granuleCount);
    this.#runs = this.#runs.slice(this.#head).filter((run) => run.entry !== entry);
    this.#head = 0;
  }

  #makeRoom(bytes: number): void {
    if (bytes > this.#bytesMax) {
      throw new ReplaybdError(
        'ERR_CACHE_FULL',
        `cache: the disk takes no more and ${bytes} bytes do not fit the ${this.#bytesMax} bytes ` +
          'of memory set aside for that. Free disk space or raise the memory limit.',
        { errno: 'ENOSPC' },
      );
    }
    while (
      this.bytes + bytes > this.#bytesMax ||
      this.#runs.length - this.#head >= cacheLimits.memoryRunsMax
    ) {
      const oldest = this.#runs[this.#head];
      this.#head += 1;
      this.drop(oldest.entry, oldest.first, oldest.end);
    }
    if (this.#head * 2 > this.#runs.length) {
      this.#runs = this.#runs.slice(this.#head);
      this.#head = 0;
    }
  }
}

function storageOf(entry: CacheEntry): FileStorage {
  if (entry.storage instanceof FileStorage) return entry.storage;
  throw new Error(`cache: ${entry.digest} is not open on a disk`);
}
