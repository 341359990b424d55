import { lastAtMost, type Accesses } from './accesses.ts';

/** Records of a trace by their place on the disk. */
export class ExpectedRecords {
  /** Records in order of their first sector. */
  readonly #records: Uint32Array;
  readonly #starts: Float64Array;
  /** By the same order, the greatest end so far: records may overlap. */
  readonly #endsMax: Float64Array;

  constructor({ count, lba, sectors }: Accesses) {
    this.#records = Uint32Array.from({ length: count }, (_, i) => i);
    this.#records.sort((a, b) => lba[a] - lba[b]);
    this.#starts = Float64Array.from(this.#records, (record) => lba[record]);
    this.#endsMax = new Float64Array(count);
    let endMax = 0;
    for (const [place, record] of this.#records.entries()) {
      endMax = Math.max(endMax, lba[record] + sectors[record]);
      this.#endsMax[place] = endMax;
    }
  }

  /** Those that may have some of these sectors in them; all that do are among them. */
  near(lba: number, sectors: number): Uint32Array {
    const end = lastAtMost(this.#starts, lba + sectors - 1) + 1;
    const first = lastAtMost(this.#endsMax, lba) + 1;
    return this.#records.subarray(Math.min(first, end), end);
  }
}
