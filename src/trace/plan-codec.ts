import { GRANULE_BYTES, traceLimits } from '../base/limits.ts';
import { VarintReader, VarintWriter } from '../base/varint.ts';
import { decodeRising, decodeRuns, encodeRising, encodeRuns, finishColumn } from './columns.ts';
import { Fields } from './fields.ts';
import { damaged, tooLarge } from './trace-errors.ts';
import type { TraceLayer, TracePlan } from './trace.ts';

const KEYS = ['count', 'blob', 'offset', 'length', 'due'];

/** The `plan` map of a trace file, in granules; docs/trace-format.md specifies each column. */
export function encodePlan(plan: TracePlan, layers: readonly TraceLayer[]): object {
  const { count, blob, dueUs } = plan;
  const max = traceLimits.planRangesMax;
  if (count > max) throw tooLarge('plan', max, count);
  const offsets = new VarintWriter();
  const lengths = new VarintWriter();
  const expected = new Float64Array(layers.length);
  const encodedBlob = encodeRuns('plan.blob', blob, count, layers.length);
  for (let i = 0; i < count; i += 1) {
    const first = plan.offset[i] / GRANULE_BYTES;
    const end = plan.offset[i] + plan.length[i];
    const isWhole = end % GRANULE_BYTES === 0 || end === layers[blob[i]].sizeBytes;
    const granules = Math.ceil(plan.length[i] / GRANULE_BYTES);
    if (!Number.isSafeInteger(first) || granules < 1 || !isWhole) {
      throw damaged(`plan range ${i}`, 'whole granules', `${plan.offset[i]} to ${end}`);
    }
    offsets.writeSigned(first - expected[blob[i]]);
    lengths.writeUnsigned(granules - 1);
    expected[blob[i]] = first + granules;
  }
  return {
    count,
    blob: encodedBlob,
    offset: offsets.finish(),
    length: lengths.finish(),
    due: encodeRising('plan.due', dueUs, count),
  };
}

export function decodePlan(
  value: unknown,
  layers: readonly TraceLayer[],
  durationUs: number,
  extra: boolean,
): TracePlan {
  const fields = new Fields('plan', value, KEYS, extra);
  const count = fields.integer('count', 0, traceLimits.planRangesMax);
  const offsets = new VarintReader(fields.bytes('offset', count));
  const lengths = new VarintReader(fields.bytes('length', count));
  const dueUs = decodeRising('plan.due', fields.bytes('due', count), count, durationUs);
  const blob = decodeRuns('plan.blob', fields.bytes('blob'), count, layers.length);
  const offset = new Float64Array(count);
  const length = new Float64Array(count);
  const expected = new Float64Array(layers.length);
  const planned = new Float64Array(layers.length);
  for (let i = 0; i < count; i += 1) {
    const { sizeBytes } = layers[blob[i]];
    const sizeGranules = Math.ceil(sizeBytes / GRANULE_BYTES);
    const first = expected[blob[i]] + offsets.readSigned();
    const granules = lengths.readUnsigned() + 1;
    expected[blob[i]] = first + granules;
    planned[blob[i]] += granules;
    if (first < 0 || first + granules > sizeGranules || planned[blob[i]] > sizeGranules) {
      throw damaged(
        `plan range ${i}`,
        `each granule of ${sizeGranules} once`,
        `${first} to ${first + granules}, ${planned[blob[i]]} in all`,
      );
    }
    offset[i] = first * GRANULE_BYTES;
    length[i] = Math.min((first + granules) * GRANULE_BYTES, sizeBytes) - offset[i];
  }
  finishColumn('plan.offset', offsets);
  finishColumn('plan.length', lengths);
  return { count, blob, offset, length, dueUs };
}
