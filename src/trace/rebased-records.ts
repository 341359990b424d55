import { traceLimits } from '../base/limits.ts';
import { SparseBitmap } from '../base/sparse-bitmap.ts';
import type { PieceResolver } from './recorder.ts';
import type { TraceRecords } from './trace.ts';

/** Collects the records of a rebased trace: each sector once, by the layer that serves it now. */
export class RebasedRecords {
  readonly #source: TraceRecords;
  readonly #locate: PieceResolver;
  readonly #taken = new SparseBitmap();
  /** By new record: the old one that it takes its time and weight from. */
  readonly #from: number[] = [];
  readonly #lba: number[] = [];
  readonly #sectors: number[] = [];
  readonly #layer: number[] = [];
  #isFull = false;

  constructor(source: TraceRecords, locate: PieceResolver) {
    this.#source = source;
    this.#locate = locate;
  }

  /**
   * Adds sectors at the time of an old record, which never decreases: true when all that the image has
   * of them is in the trace now, and that is not nothing.
   */
  add(from: number, lba: number, sectors: number): boolean {
    const pieces = this.#locate(lba, sectors);
    for (const piece of pieces) {
      const isTaken = this.#taken.add(piece.lba, piece.sectors, (start, count) => {
        this.#push(from, start, count, piece.layer);
      });
      if (!isTaken) this.#isFull = true;
    }
    return pieces.length > 0 && !this.#isFull;
  }

  finish(): TraceRecords {
    const { timeUs, waitUs, weight } = this.#source;
    return {
      count: this.#lba.length,
      timeUs: Float64Array.from(this.#from, (from) => timeUs[from]),
      waitUs: Float64Array.from(this.#from, (from) => waitUs[from]),
      lba: Float64Array.from(this.#lba),
      sectors: Uint32Array.from(this.#sectors),
      layer: Uint16Array.from(this.#layer),
      weight: Uint16Array.from(this.#from, (from) => weight[from]),
    };
  }

  #push(from: number, lba: number, sectors: number, layer: number): void {
    const last = this.#lba.length - 1;
    const extendsLast =
      last >= 0 &&
      this.#from[last] === from &&
      this.#layer[last] === layer &&
      this.#lba[last] + this.#sectors[last] === lba &&
      this.#sectors[last] + sectors <= traceLimits.recordSectorsMax;
    if (extendsLast) {
      this.#sectors[last] += sectors;
      return;
    }
    for (let at = 0; at < sectors; at += traceLimits.recordSectorsMax) {
      if (this.#lba.length >= traceLimits.recordsMax) {
        this.#isFull = true;
        return;
      }
      this.#from.push(from);
      this.#lba.push(lba + at);
      this.#sectors.push(Math.min(sectors - at, traceLimits.recordSectorsMax));
      this.#layer.push(layer);
    }
  }
}
