import { writeSync } from 'node:fs';
import { ReplaybdError } from '../../base/errors.ts';
import { lsmtLimits, SECTOR_BYTES, upperLimits } from '../../base/limits.ts';
import { LSMT_DATA_SECTOR, LSMT_ENTRY_BYTES } from './format.ts';
import { encodeEntry, type LsmtEntry } from './index-entries.ts';
import { PendingRecords } from './pending-file.ts';
import { runKinds, SectorMap } from './sector-map.ts';
import { upperWriteError } from './upper-errors.ts';
import type { UpperMap } from './upper-map.ts';
import { UpperState } from './upper-state.ts';

const ENTRY_WORDS = LSMT_ENTRY_BYTES / 4;
const WRITE_SECTORS_MAX = upperLimits.writeBytesMax / SECTOR_BYTES;

/**
 * A writable layer as one thread uses it. Writes are synchronous and touch nothing but the layer's
 * own files: data goes to the data file first, its entry to the pending ones and to the log that the
 * main thread writes down (`WritableUpper`), then to the index. What a method refuses with false is for the main thread to
 * do: the log is full, or the layer is changing.
 *
 * Methods throw ReplaybdErrors with the errno of a guest: EINVAL, ENOSPC, EIO.
 */
export class SharedUpper {
  readonly map: UpperMap;
  readonly state: UpperState;
  /** What the layer has; see `find`. */
  readonly sectors: SectorMap;
  readonly #log: Uint32Array<SharedArrayBuffer>;
  readonly #pending: PendingRecords;
  readonly #logEntriesMax: number;
  readonly #sectorMax: number;
  readonly #isAppend: boolean;
  readonly #entry: LsmtEntry = { lba: 0, sectors: 0, mapped: 0, zeroed: false, tag: 0 };

  constructor(map: UpperMap) {
    this.map = map;
    this.state = new UpperState(map.state);
    this.sectors = new SectorMap(map, this.state);
    this.#log = new Uint32Array(map.log);
    this.#pending = new PendingRecords(map.pendingFd, map.name);
    this.#logEntriesMax = this.#log.length / ENTRY_WORDS;
    this.#isAppend = map.kind === 'append';
    const mappedSectors = Math.floor(map.mappedBytes / SECTOR_BYTES);
    this.#sectorMax = Math.min(mappedSectors, upperLimits.dataSectorsMax);
  }

  /** The map must not be used any more, not for reading either: another has taken its place. */
  get isRetired(): boolean {
    return this.state.isRetired;
  }

  /** Where the run of data begins that `sectors.find(lba, ...)` just found, in the data file. */
  dataSector(lba: number): number {
    return this.#isAppend ? this.sectors.sector : LSMT_DATA_SECTOR + lba;
  }

  /** Writes whole sectors. After false, some of them may have been written. */
  write(offset: number, data: Uint8Array): boolean {
    this.#check(offset, data.length);
    if (!this.state.enter()) return false;
    try {
      const lba = offset / SECTOR_BYTES;
      const sectors = data.length / SECTOR_BYTES;
      for (let done = 0; done < sectors; done += WRITE_SECTORS_MAX) {
        const part = Math.min(WRITE_SECTORS_MAX, sectors - done);
        const from = done * SECTOR_BYTES;
        if (!this.#writePart(lba + done, part, data, from)) return false;
      }
      return true;
    } finally {
      this.state.leave();
    }
  }

  /** The sectors read as zeros afterwards, whatever lies below. */
  discard(offset: number, length: number): boolean {
    this.#check(offset, length);
    if (!this.state.enter()) return false;
    try {
      const lba = offset / SECTOR_BYTES;
      const sectors = length / SECTOR_BYTES;
      const stepMax = lsmtLimits.segmentSectorsMax;
      for (let done = 0; done < sectors; done += stepMax) {
        const part = Math.min(stepMax, sectors - done);
        if (!this.#publish(lba + done, part, this.#isAppend ? -1 : 0, true)) return false;
      }
      return true;
    } finally {
      this.state.leave();
    }
  }

  #writePart(lba: number, sectors: number, data: Uint8Array, from: number): boolean {
    const sector = this.#isAppend
      ? this.state.reserve(sectors, this.#sectorMax)
      : LSMT_DATA_SECTOR + lba;
    if (sector < 0) {
      throw this.#full(`its data file may have ${this.#sectorMax} sectors. Commit the layer`);
    }
    this.#writeFile(data, from, sectors * SECTOR_BYTES, sector * SECTOR_BYTES);
    return this.#publish(lba, sectors, sector, false);
  }

  /** Makes a change visible to readers and puts it into the log, in the same order for both. */
  #publish(lba: number, sectors: number, sector: number, zeroed: boolean): boolean {
    const { state } = this;
    state.lock();
    try {
      if (!this.#isAppend && this.#isNothingNew(lba, sectors, zeroed)) return true;
      if (state.logged >= this.#logEntriesMax) return false;
      if (!this.sectors.prepare(lba, sectors, zeroed)) {
        throw this.#full(`its index may have ${upperLimits.leavesMax} leaves. Commit the layer`);
      }
      if (this.#isAppend && !zeroed) state.end = Math.max(state.end, sector + sectors);
      this.#entry.lba = lba;
      this.#entry.sectors = sectors;
      // The original maps zeros to the end of its file, and in a sparse one to where data would be.
      if (zeroed) this.#entry.mapped = this.#isAppend ? state.end : LSMT_DATA_SECTOR + lba;
      else this.#entry.mapped = sector;
      this.#entry.zeroed = zeroed;
      const at = state.logged * ENTRY_WORDS;
      encodeEntry(this.#entry, this.#log, at);
      this.#pending.put(state.generation, state.logged, this.#log, at);
      if (zeroed) this.sectors.setZeroed(lba, sectors);
      else this.sectors.setData(lba, sectors, sector);
      state.logged += 1;
      return true;
    } finally {
      state.unlock();
    }
  }

  /** In a sparse layer an entry says what a sector is, not where: overwriting changes nothing. */
  #isNothingNew(lba: number, sectors: number, zeroed: boolean): boolean {
    const same = this.sectors.find(lba, sectors);
    return same >= sectors && this.sectors.kind === (zeroed ? runKinds.zeroed : runKinds.data);
  }

  #writeFile(data: Uint8Array, from: number, length: number, position: number): void {
    try {
      for (let done = 0; done < length;) {
        done += writeSync(this.map.fd, data, from + done, length - done, position + done);
      }
    } catch (error) {
      throw upperWriteError(this.map.name, `${length} bytes at ${position}`, error);
    }
  }

  #check(offset: number, length: number): void {
    const { name, virtualSizeBytes } = this.map;
    if (offset % SECTOR_BYTES !== 0 || length % SECTOR_BYTES !== 0 || !(offset >= 0)) {
      throw new ReplaybdError(
        'ERR_UPPER_ALIGNMENT',
        `${name}: expected whole sectors of ${SECTOR_BYTES} bytes, found ${length} at ${offset}`,
        { errno: 'EINVAL' },
      );
    }
    if (offset + length <= virtualSizeBytes) return;
    throw new ReplaybdError(
      'ERR_UPPER_RANGE',
      `${name}: expected a range within the disk's ${virtualSizeBytes} bytes, ` +
        `found ${length} bytes at ${offset}`,
      { errno: 'ENOSPC' },
    );
  }

  #full(what: string): ReplaybdError {
    return new ReplaybdError('ERR_UPPER_FULL', `${this.map.name}: ${what}.`, { errno: 'ENOSPC' });
  }
}
