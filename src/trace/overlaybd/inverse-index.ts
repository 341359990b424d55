import { SECTOR_BYTES } from '../../base/limits.ts';
import type { ByteRange } from '../../base/range.ts';
import type { MergedIndexMap } from '../../image/stack-map.ts';

/** Parts of one layer's LSMT file that the merged disk shows, by their place in the file. */
interface LayerColumns {
  count: number;
  /** Sectors of the file; sorted, and no two overlap. */
  readonly from: Float64Array;
  readonly to: Float64Array;
  /** Sector of the disk that `from` serves. */
  readonly lba: Float64Array;
}

/**
 * The merged index the other way round: from a layer's LSMT file to the disk. Headers, indexes and
 * data that an upper layer hides lead nowhere. A hostile index may show one part of a file at
 * several places; the first in the file's order counts, so that a lookup stays bounded.
 */
export class InverseIndex {
  readonly #index: MergedIndexMap;
  readonly #columns = new Map<number, LayerColumns>();

  constructor(index: MergedIndexMap) {
    this.#index = index;
  }

  /** The disk's byte ranges that show bytes [offset, offset + length) of a layer's LSMT file. */
  locate(layer: number, offset: number, length: number): ByteRange[] {
    const { count, from, to, lba } = this.#columnsOf(layer);
    const first = Math.floor(offset / SECTOR_BYTES);
    const end = Math.ceil((offset + length) / SECTOR_BYTES);
    const found: ByteRange[] = [];
    for (let at = firstAfter(to, count, first); at < count && from[at] < end; at += 1) {
      const start = Math.max(first, from[at]);
      const sectors = Math.min(end, to[at]) - start;
      const sector = lba[at] + start - from[at];
      found.push({ offset: sector * SECTOR_BYTES, length: sectors * SECTOR_BYTES });
    }
    return found;
  }

  #columnsOf(layer: number): LayerColumns {
    let columns = this.#columns.get(layer);
    if (columns === undefined) {
      columns = invert(this.#index, layer);
      this.#columns.set(layer, columns);
    }
    return columns;
  }
}

function invert(index: MergedIndexMap, layer: number): LayerColumns {
  const { start, sectors, mapped, segmentCount } = index;
  let count = 0;
  for (let at = 0; at < segmentCount; at += 1) if (index.layer[at] === layer) count += 1;
  const order = new Uint32Array(count);
  for (let at = 0, out = 0; at < segmentCount; at += 1) {
    if (index.layer[at] === layer) order[out++] = at;
  }
  order.sort((a, b) => mapped[a] - mapped[b]);
  const columns: LayerColumns = {
    count: 0,
    from: new Float64Array(count),
    to: new Float64Array(count),
    lba: new Float64Array(count),
  };
  let end = 0;
  for (const at of order) {
    const from = Math.max(mapped[at], end);
    const to = mapped[at] + sectors[at];
    if (to <= from) continue;
    columns.from[columns.count] = from;
    columns.to[columns.count] = to;
    columns.lba[columns.count] = start[at] + from - mapped[at];
    columns.count += 1;
    end = to;
  }
  return columns;
}

/** The first of `count` rising ends that lies beyond `sector`. */
function firstAfter(ends: Float64Array, count: number, sector: number): number {
  let low = 0;
  let high = count;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if (ends[middle] > sector) high = middle;
    else low = middle + 1;
  }
  return low;
}
