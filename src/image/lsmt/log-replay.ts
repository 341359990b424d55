import { ReplaybdError } from '../../base/errors.ts';
import { SECTOR_BYTES, upperLimits } from '../../base/limits.ts';
import { SparseBitmap } from '../../base/sparse-bitmap.ts';
import { LSMT_ENTRY_BYTES, LSMT_PADDING_LBA } from './format.ts';
import { decodeEntry, type LsmtEntryColumns } from './index-entries.ts';

const ENTRY_WORDS = LSMT_ENTRY_BYTES / 4;
/** Pages of 32,768 sectors: enough for the largest disk, all of it touched. */
const BITMAP_PAGES_MAX = upperLimits.virtualSizeBytesMax / SECTOR_BYTES / 32_768;
const RADIX_BITS = 16;
const RADIX = 2 ** RADIX_BITS;

/**
 * What a log of entries leaves, sorted: a later entry covers what it overlaps, and what it covers
 * of earlier ones is cut out. Neighbours are not joined, as the original does not join them.
 *
 * The log, of file `name`, is read backwards, so that each sector is claimed once, by the last entry
 * that has it. ERR_UPPER_SCATTERED when entries are all over a disk larger than any we write.
 */
export function replayLog(words: Uint32Array, name: string): LsmtEntryColumns {
  const pieces = new PieceColumns();
  const claimed = new SparseBitmap(BITMAP_PAGES_MAX);
  for (let at = words.length - ENTRY_WORDS; at >= 0; at -= ENTRY_WORDS) {
    const { lba, sectors, mapped, zeroed } = decodeEntry(words, at);
    if (lba === LSMT_PADDING_LBA || sectors === 0) continue;
    const isClaimed = claimed.add(lba, sectors, (start, count) => {
      pieces.push(start, count, zeroed ? mapped : mapped + start - lba, zeroed);
    });
    if (isClaimed) continue;
    throw new ReplaybdError(
      'ERR_UPPER_SCATTERED',
      `${name}: expected entries for a disk of at most ${upperLimits.virtualSizeBytesMax} bytes, ` +
        'found them spread over a larger one.',
    );
  }
  return pieces.sorted();
}

/** Entries in any order, which do not overlap. */
export class PieceColumns {
  #count = 0;
  #start = new Float64Array(1024);
  #sectors = new Uint16Array(1024);
  #mapped = new Float64Array(1024);
  #zeroed = new Uint8Array(1024);

  push(start: number, sectors: number, mapped: number, zeroed: boolean): void {
    const at = this.#count;
    if (at === this.#start.length) this.#grow();
    this.#start[at] = start;
    this.#sectors[at] = sectors;
    this.#mapped[at] = mapped;
    this.#zeroed[at] = zeroed ? 1 : 0;
    this.#count = at + 1;
  }

  /** The entries, which were pushed in the order of their LBAs. */
  inOrder(): LsmtEntryColumns {
    const count = this.#count;
    return {
      count,
      start: this.#start.subarray(0, count),
      sectors: this.#sectors.subarray(0, count),
      mapped: this.#mapped.subarray(0, count),
      zeroed: this.#zeroed.subarray(0, count),
      hasTags: false,
    };
  }

  /** The entries in the order of their LBAs. */
  sorted(): LsmtEntryColumns {
    const count = this.#count;
    const order = sortedOrder(this.#start.subarray(0, count));
    const start = new Float64Array(count);
    const sectors = new Uint16Array(count);
    const mapped = new Float64Array(count);
    const zeroed = new Uint8Array(count);
    for (let row = 0; row < count; row += 1) {
      const from = order[row];
      start[row] = this.#start[from];
      sectors[row] = this.#sectors[from];
      mapped[row] = this.#mapped[from];
      zeroed[row] = this.#zeroed[from];
    }
    return { count, start, sectors, mapped, zeroed, hasTags: false };
  }

  #grow(): void {
    const capacity = this.#start.length * 2;
    const larger = <Column extends { set(from: Column): void }>(
      to: Column,
      from: Column,
    ): Column => {
      to.set(from);
      return to;
    };
    this.#start = larger(new Float64Array(capacity), this.#start);
    this.#sectors = larger(new Uint16Array(capacity), this.#sectors);
    this.#mapped = larger(new Float64Array(capacity), this.#mapped);
    this.#zeroed = larger(new Uint8Array(capacity), this.#zeroed);
  }
}

/** Positions of `keys`, smallest key first: a radix sort, as logs have millions of entries. */
function sortedOrder(keys: Float64Array): Uint32Array {
  let order = Uint32Array.from(keys, (_, i) => i);
  let next = new Uint32Array(keys.length);
  const largest = keys.reduce((max, key) => Math.max(max, key), 0);
  const starts = new Uint32Array(RADIX + 1);
  for (let unit = 1; unit <= largest; unit *= RADIX) {
    starts.fill(0);
    for (const key of keys) starts[(Math.floor(key / unit) % RADIX) + 1] += 1;
    for (let digit = 1; digit <= RADIX; digit += 1) starts[digit] += starts[digit - 1];
    for (const at of order) {
      const digit = Math.floor(keys[at] / unit) % RADIX;
      next[starts[digit]] = at;
      starts[digit] += 1;
    }
    [order, next] = [next, order];
  }
  return order;
}
