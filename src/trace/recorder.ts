import { SECTOR_BYTES, traceLimits } from '../base/limits.ts';
import { SparseBitmap } from '../base/sparse-bitmap.ts';
import type { TraceRecords } from './trace.ts';

/** A part of the disk that one layer's data serves. */
export interface ServedPiece {
  readonly lba: number;
  readonly sectors: number;
  /** 0 is the bottom. */
  readonly layer: number;
}

/** The pieces of a sector range, in order; what no layer's data serves is left out. */
export type PieceResolver = (lba: number, sectors: number) => readonly ServedPiece[];

export interface RecorderOptions {
  readonly locate: PieceResolver;
  readonly recordsMax?: number;
  readonly bitmapPagesMax?: number;
}

/** What a recorder saw; sectors count once, at their first access. */
export interface RecorderCounts {
  accesses: number;
  recordedSectors: number;
  /** Touched, but of no layer: they read as zeros and need no fetch. */
  zeroSectors: number;
}

/** Accesses this close to a record's first may extend it: its time stays right to 2 ms. */
export const COALESCE_US_MAX = 2000;
const COLUMN_LENGTH_MIN = 1024;

/** Turns a device's accesses into the columns of a trace: first accesses, by layer, in order. */
export class Recorder {
  readonly counts: RecorderCounts = { accesses: 0, recordedSectors: 0, zeroSectors: 0 };
  readonly #locate: PieceResolver;
  readonly #recordsMax: number;
  readonly #touched: SparseBitmap;
  #columns = makeColumns(COLUMN_LENGTH_MIN);
  #count = 0;
  #timeUs = 0;
  #waitUs = 0;
  #full = false;

  constructor(options: RecorderOptions) {
    this.#locate = options.locate;
    this.#recordsMax = options.recordsMax ?? traceLimits.recordsMax;
    this.#touched = new SparseBitmap(options.bitmapPagesMax);
  }

  /** Records so far. */
  get count(): number {
    return this.#count;
  }

  /** A limit was reached: later accesses are not recorded. */
  get full(): boolean {
    return this.#full;
  }

  /**
   * `timeUs` counts from the recording's begin; a time before the last one counts as that one.
   * `waitUs`: how much of it reads waited for bytes that were not local.
   */
  access(timeUs: number, offset: number, length: number, waitUs = 0): void {
    this.counts.accesses += 1;
    if (this.#full) return;
    const elapsedUs = Math.max(0, Math.round(timeUs) - this.#timeUs);
    const waitedUs = Math.max(0, Math.round(waitUs) - this.#waitUs);
    this.#timeUs += elapsedUs;
    this.#waitUs += Math.min(waitedUs, elapsedUs);
    const complete = this.#touched.add(
      offset / SECTOR_BYTES,
      length / SECTOR_BYTES,
      this.#firstAccess,
    );
    if (!complete) this.#full = true;
  }

  /** The records so far, as columns of their own. */
  records(): TraceRecords {
    const { timeUs, waitUs, lba, sectors, layer } = this.#columns;
    return {
      count: this.#count,
      timeUs: timeUs.slice(0, this.#count),
      waitUs: waitUs.slice(0, this.#count),
      lba: lba.slice(0, this.#count),
      sectors: sectors.slice(0, this.#count),
      layer: layer.slice(0, this.#count),
      weight: new Uint16Array(this.#count).fill(1),
    };
  }

  readonly #firstAccess = (lba: number, sectors: number): void => {
    let served = 0;
    for (const piece of this.#locate(lba, sectors)) {
      this.#append(piece);
      served += piece.sectors;
    }
    this.counts.recordedSectors += served;
    this.counts.zeroSectors += sectors - served;
  };

  #append(piece: ServedPiece): void {
    let { lba, sectors } = piece;
    const last = this.#count - 1;
    const { timeUs, lba: lbas, sectors: lengths, layer: layers } = this.#columns;
    const extendsLast =
      last >= 0 &&
      layers[last] === piece.layer &&
      lbas[last] + lengths[last] === lba &&
      this.#timeUs - timeUs[last] <= COALESCE_US_MAX;
    if (extendsLast) {
      const room = Math.min(traceLimits.recordSectorsMax - lengths[last], sectors);
      lengths[last] += room;
      lba += room;
      sectors -= room;
    }
    while (sectors > 0) {
      const take = Math.min(sectors, traceLimits.recordSectorsMax);
      if (!this.#push(lba, take, piece.layer)) return;
      lba += take;
      sectors -= take;
    }
  }

  #push(lba: number, sectors: number, layer: number): boolean {
    if (this.#count >= this.#recordsMax) {
      this.#full = true;
      return false;
    }
    if (this.#count === this.#columns.lba.length) this.#columns = grown(this.#columns);
    const columns = this.#columns;
    columns.timeUs[this.#count] = this.#timeUs;
    columns.waitUs[this.#count] = this.#waitUs;
    columns.lba[this.#count] = lba;
    columns.sectors[this.#count] = sectors;
    columns.layer[this.#count] = layer;
    this.#count += 1;
    return true;
  }
}

interface Columns {
  timeUs: Float64Array;
  waitUs: Float64Array;
  lba: Float64Array;
  sectors: Uint32Array;
  layer: Uint16Array;
}

function makeColumns(length: number): Columns {
  return {
    timeUs: new Float64Array(length),
    waitUs: new Float64Array(length),
    lba: new Float64Array(length),
    sectors: new Uint32Array(length),
    layer: new Uint16Array(length),
  };
}

function grown(columns: Columns): Columns {
  const larger = makeColumns(columns.lba.length * 2);
  larger.timeUs.set(columns.timeUs);
  larger.waitUs.set(columns.waitUs);
  larger.lba.set(columns.lba);
  larger.sectors.set(columns.sectors);
  larger.layer.set(columns.layer);
  return larger;
}
