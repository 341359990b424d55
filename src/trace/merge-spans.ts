import { traceLabLimits } from '../base/limits.ts';
import { overlay, type Spans } from './spans.ts';
import { tooLarge } from './trace-errors.ts';

/** Of the runs that have a part, the time of this share of them, the early ones, counts. */
const EARLY_SHARE = 0.25;

/** What several traces name, in the order of the score: time first, weight second. */
export interface MergedParts {
  readonly count: number;
  readonly group: Uint16Array;
  readonly start: Float64Array;
  readonly length: Float64Array;
  readonly timeUs: Float64Array;
  /** In how many runs it occurs, at most 65,535. */
  readonly weight: Uint16Array;
  /** Sum of the lengths of what was left out by its weight. */
  readonly leftOutLength: number;
}

/** A part's time and weight, as `keep` is asked. */
export type PartFilter = (timeUs: number, weight: number) => boolean;

/**
 * Lays several traces' spans over each other. A part's weight is the sum of the weights of the spans
 * that cover it, its time the nearest-rank 25th percentile of theirs (a span of weight 3 counts three
 * times). The order of the inputs makes no difference. Errors: ERR_TRACE_LIMIT beyond 16,000,000
 * parts.
 */
export function mergeSpans(
  inputs: readonly Spans[],
  groupCount: number,
  keep: PartFilter,
): MergedParts {
  const early = new EarlyOccurrence(inputs);
  const parts = new PartColumns();
  let leftOutLength = 0;
  overlay(inputs, groupCount, (group, start, length, at) => {
    early.look(at);
    if (keep(early.timeUs, early.weight)) parts.push(group, start, length, early);
    else leftOutLength += length;
  });
  return { ...parts.inOrder(), leftOutLength };
}

/**
 * Joins parts that follow one another in order and in place, in the same group and with the same
 * weight, and whose time is at most `joinUsMax` after the first one's, up to `lengthMax`.
 */
export function joinParts(parts: MergedParts, joinUsMax: number, lengthMax: number): MergedParts {
  const { group, start, length, timeUs, weight } = parts;
  let last = -1;
  for (let i = 0; i < parts.count; i += 1) {
    const joins =
      last >= 0 &&
      group[last] === group[i] &&
      weight[last] === weight[i] &&
      start[last] + length[last] === start[i] &&
      timeUs[i] - timeUs[last] <= joinUsMax &&
      length[last] + length[i] <= lengthMax;
    if (joins) {
      length[last] += length[i];
      continue;
    }
    last += 1;
    group[last] = group[i];
    start[last] = start[i];
    length[last] = length[i];
    timeUs[last] = timeUs[i];
    weight[last] = weight[i];
  }
  return { ...parts, count: last + 1 };
}

/** Finds the occurrence of a part whose time counts. */
class EarlyOccurrence {
  timeUs = 0;
  order = 0;
  weight = 0;
  readonly #inputs: readonly Spans[];
  /** Inputs that have the part, by time and then order. */
  readonly #sorted: Int32Array;

  constructor(inputs: readonly Spans[]) {
    this.#inputs = inputs;
    this.#sorted = new Int32Array(inputs.length);
  }

  look(at: Int32Array): void {
    const inputs = this.#inputs;
    const sorted = this.#sorted;
    let count = 0;
    this.weight = 0;
    for (let i = 0; i < at.length; i += 1) {
      if (at[i] < 0) continue;
      this.weight += inputs[i].weight[at[i]];
      let slot = count;
      while (slot > 0 && isLater(inputs, at, sorted[slot - 1], i)) {
        sorted[slot] = sorted[slot - 1];
        slot -= 1;
      }
      sorted[slot] = i;
      count += 1;
    }
    let left = Math.ceil(this.weight * EARLY_SHARE);
    for (let slot = 0; slot < count; slot += 1) {
      const input = sorted[slot];
      const { timeUs, order, weight } = inputs[input];
      left -= weight[at[input]];
      if (left > 0) continue;
      this.timeUs = timeUs[at[input]];
      this.order = order[at[input]];
      return;
    }
  }
}

function isLater(inputs: readonly Spans[], at: Int32Array, a: number, b: number): boolean {
  const differenceUs = inputs[a].timeUs[at[a]] - inputs[b].timeUs[at[b]];
  return (
    differenceUs > 0 || (differenceUs === 0 && inputs[a].order[at[a]] > inputs[b].order[at[b]])
  );
}

const PARTS_AT_FIRST = 1024;

/** Parts as they are found, in columns that grow. */
class PartColumns {
  #count = 0;
  #columns = makeColumns(PARTS_AT_FIRST);

  push(group: number, start: number, length: number, early: EarlyOccurrence): void {
    const { partsMax } = traceLabLimits;
    if (this.#count === partsMax) {
      throw tooLarge('parts of a merged trace', partsMax, partsMax + 1);
    }
    if (this.#count === this.#columns.start.length) {
      this.#columns = resized(this.#columns, Math.min(this.#count * 2, partsMax));
    }
    const columns = this.#columns;
    columns.group[this.#count] = group;
    columns.start[this.#count] = start;
    columns.length[this.#count] = length;
    columns.timeUs[this.#count] = early.timeUs;
    columns.order[this.#count] = early.order;
    columns.weight[this.#count] = early.weight;
    this.#count += 1;
  }

  inOrder(): Omit<MergedParts, 'leftOutLength'> {
    const { group, start, length, timeUs, order, weight } = this.#columns;
    const sorted = Uint32Array.from({ length: this.#count }, (_, i) => i).sort(
      (a, b) =>
        timeUs[a] - timeUs[b] ||
        weight[b] - weight[a] ||
        order[a] - order[b] ||
        group[a] - group[b] ||
        start[a] - start[b],
    );
    return {
      count: sorted.length,
      group: Uint16Array.from(sorted, (i) => group[i]),
      start: Float64Array.from(sorted, (i) => start[i]),
      length: Float64Array.from(sorted, (i) => length[i]),
      timeUs: Float64Array.from(sorted, (i) => timeUs[i]),
      weight: Uint16Array.from(sorted, (i) => weight[i]),
    };
  }
}

interface Columns {
  readonly group: Uint16Array;
  readonly start: Float64Array;
  readonly length: Float64Array;
  readonly timeUs: Float64Array;
  readonly order: Uint32Array;
  readonly weight: Uint16Array;
}

function makeColumns(length: number): Columns {
  return {
    group: new Uint16Array(length),
    start: new Float64Array(length),
    length: new Float64Array(length),
    timeUs: new Float64Array(length),
    order: new Uint32Array(length),
    weight: new Uint16Array(length),
  };
}

function resized(columns: Columns, length: number): Columns {
  const larger = makeColumns(length);
  larger.group.set(columns.group);
  larger.start.set(columns.start);
  larger.length.set(columns.length);
  larger.timeUs.set(columns.timeUs);
  larger.order.set(columns.order);
  larger.weight.set(columns.weight);
  return larger;
}
