import { VarintReader, VarintWriter } from '../base/varint.ts';
import { damaged } from './trace-errors.ts';
import type { TraceRecords } from './trace.ts';

/**
 * The `wait` column: two unsigned for each record that has waited longer than the record before it.
 * First how many records lie between it and the last such record, then by how much, less 1. Most
 * records wait for nothing, and cost nothing.
 */
export function encodeWaits({ count, timeUs, waitUs }: TraceRecords): Uint8Array {
  const writer = new VarintWriter();
  let previousUs = 0;
  let skipped = 0;
  for (let i = 0; i < count; i += 1) {
    const addedUs = waitUs[i] - previousUs;
    checkWait(i, addedUs, sinceLast(timeUs, i));
    if (addedUs === 0) {
      skipped += 1;
      continue;
    }
    writer.writeUnsigned(skipped);
    writer.writeUnsigned(addedUs - 1);
    previousUs = waitUs[i];
    skipped = 0;
  }
  return writer.finish();
}

export function decodeWaits(bytes: Uint8Array, timeUs: Float64Array): Float64Array {
  const reader = new VarintReader(bytes);
  const waitUs = new Float64Array(timeUs.length);
  let waitedUs = 0;
  let next = 0;
  while (!reader.atEnd) {
    const index = next + reader.readUnsigned();
    if (index >= timeUs.length) {
      throw damaged('records.wait', `one of ${timeUs.length} records`, String(index));
    }
    const addedUs = reader.readUnsigned() + 1;
    checkWait(index, addedUs, sinceLast(timeUs, index));
    waitUs.fill(waitedUs, next, index);
    waitedUs += addedUs;
    waitUs[index] = waitedUs;
    next = index + 1;
  }
  waitUs.fill(waitedUs, next);
  return waitUs;
}

function sinceLast(timeUs: Float64Array, index: number): number {
  return index === 0 ? timeUs[0] : timeUs[index] - timeUs[index - 1];
}

/** Nobody waits longer than time passes: so the warm axis never goes back. */
function checkWait(index: number, addedUs: number, elapsedUs: number): void {
  if (Number.isSafeInteger(addedUs) && addedUs >= 0 && addedUs <= elapsedUs) return;
  throw damaged(`records.wait[${index}]`, `0 to ${elapsedUs} more`, String(addedUs));
}
