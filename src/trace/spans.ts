import { GRANULE_BYTES, sparseBitmapLimits } from '../base/limits.ts';
import { sortPositions } from '../base/sort-positions.ts';
import { SparseBitmap } from '../base/sparse-bitmap.ts';
import { tooLarge } from './trace-errors.ts';
import { warmTimeUs, type TraceImage, type TracePlan, type TraceRecords } from './trace.ts';

/**
 * The parts of layers that one trace names, disjoint and sorted by layer and place: its records, in
 * sectors, or its plan, in granules. 30 bytes of memory each.
 *
 *   groupStart   0         3     5
 *   start        8 40 96 | 0 16 |         group 0 has spans 0 to 2, group 1 has 3 and 4
 */
export interface Spans {
  readonly count: number;
  /** By group (usually: layer) its first span, and the number of spans as the last entry. */
  readonly groupStart: Uint32Array;
  readonly start: Float64Array;
  readonly length: Float64Array;
  /** On the warm axis. */
  readonly timeUs: Float64Array;
  /** Position in the trace: puts spans of one time in order. */
  readonly order: Uint32Array;
  readonly weight: Uint16Array;
}

/** What spans are made of, by position in the trace. */
interface SpanSource {
  readonly count: number;
  readonly groups: Uint16Array;
  start(index: number): number;
  length(index: number): number;
  timeUs(index: number): number;
  weight(index: number): number;
}

/**
 * A trace's records as spans of sectors. `groupOf` gives the group of each layer. Sectors that occur
 * twice, which a sound trace does not have, count where they occur first. Errors: ERR_TRACE_LIMIT, for
 * such a trace only, when it also is spread over more than a bitmap holds.
 */
export function spansOfRecords(
  records: TraceRecords,
  groupOf: readonly number[],
  groupCount: number,
): Spans {
  const { count, lba, sectors, weight } = records;
  const source: SpanSource = {
    count,
    groups: records.layer.map((layer) => groupOf[layer]),
    start: (i) => lba[i],
    length: (i) => sectors[i],
    timeUs: (i) => warmTimeUs(records, i),
    weight: (i) => weight[i],
  };
  return makeSpans(source, groupCount);
}

/**
 * A plan's ranges as spans of granules, each of the weight `weight`. The rest is as with
 * spansOfRecords.
 */
export function spansOfPlan(
  plan: TracePlan,
  groupOf: readonly number[],
  groupCount: number,
  weight = 1,
): Spans {
  const { count, blob, offset, length, dueUs } = plan;
  const source: SpanSource = {
    count,
    groups: blob.map((layer) => groupOf[layer]),
    start: (i) => offset[i] / GRANULE_BYTES,
    length: (i) => Math.ceil(length[i] / GRANULE_BYTES),
    timeUs: (i) => dueUs[i],
    weight: () => weight,
  };
  return makeSpans(source, groupCount);
}

/** The bytes of `granules` from granule `start` of a blob on, whose last one may be short. */
export function bytesOfGranules(start: number, granules: number, blobBytes: number): number {
  return Math.min((start + granules) * GRANULE_BYTES, blobBytes) - start * GRANULE_BYTES;
}

function makeSpans(source: SpanSource, groupCount: number): Spans {
  const { order, groupStart } = byGroup(source, groupCount);
  const parts: Part[][] = [];
  let count = 0;
  for (let group = 0; group < groupCount; group += 1) {
    const indexes = order.subarray(groupStart[group], groupStart[group + 1]);
    sortPositions(indexes, source.count, (i) => source.start(i));
    parts[group] = overlaps(source, indexes) ? firstOccurrences(source, indexes) : [];
    count += parts[group].length === 0 ? indexes.length : parts[group].length;
  }
  const spans = {
    count,
    groupStart: new Uint32Array(groupCount + 1),
    start: new Float64Array(count),
    length: new Float64Array(count),
    timeUs: new Float64Array(count),
    order: new Uint32Array(count),
    weight: new Uint16Array(count),
  };
  let at = 0;
  const push = (index: number, start: number, length: number): void => {
    spans.start[at] = start;
    spans.length[at] = length;
    spans.timeUs[at] = source.timeUs(index);
    spans.order[at] = index;
    spans.weight[at] = source.weight(index);
    at += 1;
  };
  for (let group = 0; group < groupCount; group += 1) {
    spans.groupStart[group] = at;
    if (parts[group].length > 0) {
      for (const { index, start, length } of parts[group]) push(index, start, length);
      continue;
    }
    const indexes = order.subarray(groupStart[group], groupStart[group + 1]);
    for (const index of indexes) push(index, source.start(index), source.length(index));
  }
  spans.groupStart[groupCount] = at;
  return spans;
}

/** All positions, those of one group beside each other. */
function byGroup(
  { count, groups }: SpanSource,
  groupCount: number,
): { order: Uint32Array; groupStart: Uint32Array } {
  const groupStart = new Uint32Array(groupCount + 1);
  for (let i = 0; i < count; i += 1) groupStart[groups[i] + 1] += 1;
  for (let group = 0; group < groupCount; group += 1) {
    groupStart[group + 1] += groupStart[group];
  }
  const next = groupStart.slice();
  const order = new Uint32Array(count);
  for (let i = 0; i < count; i += 1) {
    order[next[groups[i]]] = i;
    next[groups[i]] += 1;
  }
  return { order, groupStart };
}

interface Part {
  readonly index: number;
  readonly start: number;
  readonly length: number;
}

function overlaps(source: SpanSource, sorted: Uint32Array): boolean {
  let end = 0;
  for (const index of sorted) {
    if (source.start(index) < end) return true;
    end = source.start(index) + source.length(index);
  }
  return false;
}

/** What each position is the first to name, sorted by place. */
function firstOccurrences(source: SpanSource, indexes: Uint32Array): Part[] {
  const seen = new SparseBitmap();
  const parts: Part[] = [];
  for (const index of indexes.slice().sort()) {
    const complete = seen.add(source.start(index), source.length(index), (start, length) => {
      parts.push({ index, start, length });
    });
    if (complete) continue;
    const { pagesMax } = sparseBitmapLimits;
    throw tooLarge('pages of what records or ranges that overlap touch', pagesMax, pagesMax + 1);
  }
  return parts.sort((a, b) => a.start - b.start);
}

/** Told of one part: its group, place and length, and which span of each input covers it, or -1. */
export type OverlayVisitor = (group: number, start: number, length: number, at: Int32Array) => void;

/**
 * Visits all that the inputs name, each part once, split where a span of any input begins or ends; in
 * order of group and place. `at` is valid during the visit.
 */
export function overlay(inputs: readonly Spans[], groupCount: number, visit: OverlayVisitor): void {
  const next = new Uint32Array(inputs.length);
  const at = new Int32Array(inputs.length);
  for (let group = 0; group < groupCount; group += 1) {
    for (const [i, { groupStart }] of inputs.entries()) next[i] = groupStart[group];
    let position = 0;
    for (;;) {
      const end = cover(inputs, group, position, next, at);
      if (end === Infinity) break;
      if (at.some((span) => span >= 0)) visit(group, position, end - position, at);
      position = end;
    }
  }
}

/**
 * Fills `at` with the spans that cover `position` and gives the next place where any span begins or
 * ends, Infinity behind the last. Moves `next` over spans that end there.
 */
function cover(
  inputs: readonly Spans[],
  group: number,
  position: number,
  next: Uint32Array,
  at: Int32Array,
): number {
  let end = Infinity;
  for (let i = 0; i < inputs.length; i += 1) {
    const { groupStart, start, length } = inputs[i];
    if (next[i] < groupStart[group + 1] && start[next[i]] + length[next[i]] <= position) {
      next[i] += 1;
    }
    at[i] = -1;
    if (next[i] >= groupStart[group + 1]) continue;
    const span = next[i];
    if (start[span] > position) {
      end = Math.min(end, start[span]);
    } else {
      at[i] = span;
      end = Math.min(end, start[span] + length[span]);
    }
  }
  return end;
}

/** Layers of several images, the same one in each image it is in. */
export interface LayerGroups {
  /** By group, sorted. */
  readonly digests: readonly string[];
  /** By image and layer. */
  readonly groupsOf: readonly (readonly number[])[];
}

/** Numbers the layers of several images by digest, whatever the order of the images. */
export function groupLayers(images: readonly Pick<TraceImage, 'layers'>[]): LayerGroups {
  const all = images.map(({ layers }) => layers.map((layer) => layer.digest));
  const digests = [...new Set(all.flat())].sort();
  const numbers = new Map(digests.map((digest, group) => [digest, group]));
  return { digests, groupsOf: all.map((own) => own.map((digest) => numbers.get(digest) ?? 0)) };
}
