export interface OrderComparison {
  /** Spearman's rank correlation, weighted by size; 1 for fewer than two parts. */
  readonly correlation: number;
  /** By part: the distance between its two places, as a share of all sizes. */
  readonly shift: Float64Array;
}

/**
 * Compares the two orders in which the same parts occur. A part's place is where its middle lies when
 * all parts are lined up: 0 to 1. Parts of one record (equal `order`) are lined up as they are given.
 */
export function compareOrders(
  sizes: readonly number[],
  order: readonly [readonly number[], readonly number[]],
): OrderComparison {
  const total = sizes.reduce((sum, size) => sum + size, 0);
  const first = placesOf(sizes, order[0], total);
  const second = placesOf(sizes, order[1], total);
  const shift = first.map((place, i) => Math.abs(place - second[i]));
  const product = (a: Float64Array, b: Float64Array): number =>
    // The mean of all places is the middle.
    sizes.reduce((sum, size, i) => sum + (size / total) * ((a[i] - 0.5) * (b[i] - 0.5)), 0);
  const spread = Math.sqrt(product(first, first) * product(second, second));
  if (sizes.length < 2 || spread === 0) return { correlation: 1, shift };
  const correlation = product(first, second) / spread;
  return { correlation: Math.max(-1, Math.min(1, correlation)), shift };
}

function placesOf(sizes: readonly number[], order: readonly number[], total: number): Float64Array {
  const places = new Float64Array(sizes.length);
  let before = 0;
  const sorted = Uint32Array.from(sizes, (_, i) => i).sort((a, b) => order[a] - order[b] || a - b);
  for (const i of sorted) {
    places[i] = (before + sizes[i] / 2) / total;
    before += sizes[i];
  }
  return places;
}
