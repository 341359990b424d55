/**
 * Sorts positions, all below `count`, by what they stand at (a whole number, not negative); those that
 * stand at the same by themselves. Numbers sort many times faster than a function compares: so the two
 * become one, unless it would not be exact.
 */
export function sortPositions(
  positions: Uint32Array,
  count: number,
  placeOf: (position: number) => number,
): void {
  const keys = new Float64Array(positions.length);
  let keyMax = 0;
  for (let i = 0; i < keys.length; i += 1) {
    keys[i] = placeOf(positions[i]) * count + positions[i];
    keyMax = Math.max(keyMax, keys[i]);
  }
  if (keyMax > Number.MAX_SAFE_INTEGER) {
    positions.sort((a, b) => placeOf(a) - placeOf(b) || a - b);
    return;
  }
  keys.sort();
  for (let i = 0; i < keys.length; i += 1) positions[i] = keys[i] % count;
}
