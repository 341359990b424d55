import { lastAtMost, type Accesses } from './accesses.ts';

/** By address, or every layer by itself, the topmost first. */
export type DiskOrder = 'lba' | 'layers';

/** A part of the axis: the whole of it, or a layer's. */
export interface AxisBand {
  /** Null for all layers. */
  readonly layer: number | null;
  /** Positions, in sectors: [from, to). */
  readonly from: number;
  readonly to: number;
  /** Extents of the band: first, and one after the last. */
  readonly firstExtent: number;
  readonly endExtent: number;
}

/**
 * The touched part of a disk without what nobody touches: a position is how many touched sectors lie
 * before it.
 */
export class DiskAxis {
  readonly order: DiskOrder;
  readonly total: number;
  readonly bands: readonly AxisBand[];
  readonly #starts: Float64Array;
  readonly #positions: Float64Array;
  readonly #bandOf = new Map<number | null, AxisBand>();

  constructor(accesses: Accesses, order: DiskOrder) {
    this.order = order;
    const groups = order === 'lba' ? [null] : layersOf(accesses).reverse();
    const starts: number[] = [];
    const positions: number[] = [];
    let position = 0;
    this.bands = groups.map((layer) => {
      const firstExtent = starts.length;
      const from = position;
      for (const extent of touchedExtents(accesses, layer)) {
        starts.push(extent.start);
        positions.push(position);
        position += extent.end - extent.start;
      }
      return { layer, from, to: position, firstExtent, endExtent: starts.length };
    });
    for (const band of this.bands) this.#bandOf.set(band.layer, band);
    this.total = position;
    this.#starts = Float64Array.from(starts);
    this.#positions = Float64Array.from(positions);
  }

  /** Position of a sector that an access touched; -1 when the axis lacks its layer. */
  positionOf(lba: number, layer: number): number {
    const band = this.#bandOf.get(this.order === 'lba' ? null : layer);
    if (band === undefined || band.firstExtent === band.endExtent) return -1;
    const extents = this.#starts.subarray(band.firstExtent, band.endExtent);
    const extent = band.firstExtent + Math.max(0, lastAtMost(extents, lba));
    const end = extent + 1 < band.endExtent ? this.#positions[extent + 1] : band.to;
    return Math.min(this.#positions[extent] + Math.max(0, lba - this.#starts[extent]), end);
  }

  /** The sector at a position, and the band that it lies in; null on an axis of nothing. */
  at(position: number): { lba: number; band: AxisBand } | null {
    if (this.total === 0) return null;
    const inside = Math.min(Math.max(position, 0), this.total - 1);
    const extent = lastAtMost(this.#positions, inside);
    const band = this.bands.find(({ to }) => inside < to) ?? this.bands[this.bands.length - 1];
    return { lba: this.#starts[extent] + inside - this.#positions[extent], band };
  }
}

export interface SectorExtent {
  readonly start: number;
  readonly end: number;
}

/** What some accesses cover, of one layer or (null) of all: disjoint, ascending, apart. */
export function touchedExtents(accesses: Accesses, layer: number | null): SectorExtent[] {
  const [starts, ends] = boundsOf(accesses, layer);
  const extents: SectorExtent[] = [];
  // A sweep over sorted starts and sorted ends needs no pairs: an extent ends where as many have
  // ended as have begun.
  let start = 0;
  for (let i = 0; i < starts.length; i += 1) {
    if (i + 1 < starts.length && starts[i + 1] <= ends[i]) continue;
    extents.push({ start: starts[start], end: ends[i] });
    start = i + 1;
  }
  return extents;
}

function boundsOf(accesses: Accesses, layer: number | null): [Float64Array, Float64Array] {
  const { count, lba, sectors } = accesses;
  const starts = new Float64Array(count);
  const ends = new Float64Array(count);
  let filled = 0;
  for (let i = 0; i < count; i += 1) {
    if (layer !== null && accesses.layer[i] !== layer) continue;
    starts[filled] = lba[i];
    ends[filled] = lba[i] + sectors[i];
    filled += 1;
  }
  return [starts.subarray(0, filled).sort(), ends.subarray(0, filled).sort()];
}

/** Layers that occur, ascending. */
function layersOf({ count, layer }: Accesses): number[] {
  const found = new Set<number>();
  for (let i = 0; i < count; i += 1) found.add(layer[i]);
  return [...found].sort((a, b) => a - b);
}
