/** Accesses as columns, in order of time: what a timeline, a picture and a list are drawn of. */
export interface Accesses {
  readonly count: number;
  readonly timeUs: Float64Array;
  readonly lba: Float64Array;
  readonly sectors: ArrayLike<number>;
  /** Index of the layer that served each. */
  readonly layer: ArrayLike<number>;
  /** Codes of a palette: what became of each, or which layer it is of. */
  readonly codes: Uint8Array;
  /** Which record of its trace each is; left out where they are the trace's records in order. */
  readonly record?: Uint32Array;
}

/** Which record of its trace an access is. */
export function recordOf({ record }: Accesses, access: number): number {
  return record?.[access] ?? access;
}

/** The accesses at some places, in their order. */
export function pickAccesses(from: Accesses, places: readonly number[]): Accesses {
  return {
    count: places.length,
    timeUs: Float64Array.from(places, (at) => from.timeUs[at]),
    lba: Float64Array.from(places, (at) => from.lba[at]),
    sectors: Uint32Array.from(places, (at) => from.sectors[at]),
    layer: Uint16Array.from(places, (at) => from.layer[at]),
    codes: Uint8Array.from(places, (at) => from.codes[at]),
    record: Uint32Array.from(places, (at) => recordOf(from, at)),
  };
}

/** The place of the last value of an ascending column that is not above `value`; -1 when all are. */
export function lastAtMost(column: Float64Array, value: number, count = column.length): number {
  let low = 0;
  let high = count;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if (column[middle] <= value) low = middle + 1;
    else high = middle;
  }
  return low - 1;
}
