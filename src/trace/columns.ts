import { VarintReader, VarintWriter } from '../base/varint.ts';
import { damaged } from './trace-errors.ts';

/** A column in memory: any typed array of numbers. */
export type Column = Float64Array | Uint32Array | Uint16Array;

/** Differences between neighbours of a column that never decreases, the first from 0. */
export function encodeRising(name: string, values: Column, count: number): Uint8Array {
  const writer = new VarintWriter();
  let previous = 0;
  for (let i = 0; i < count; i += 1) {
    const value = values[i];
    if (!Number.isSafeInteger(value) || value < previous) {
      throw damaged(`${name}[${i}]`, `an integer of at least ${previous}`, String(value));
    }
    writer.writeUnsigned(value - previous);
    previous = value;
  }
  return writer.finish();
}

export function decodeRising(
  name: string,
  bytes: Uint8Array,
  count: number,
  max: number,
): Float64Array {
  const reader = new VarintReader(bytes);
  const values = new Float64Array(count);
  let previous = 0;
  for (let i = 0; i < count; i += 1) {
    previous += reader.readUnsigned();
    if (previous > max) throw damaged(`${name}[${i}]`, `at most ${max}`, String(previous));
    values[i] = previous;
  }
  finishColumn(name, reader);
  return values;
}

/** Each value, a positive multiple of `unit`, in units and less 1. */
export function encodeCounts(
  name: string,
  values: Column,
  count: number,
  unit: number,
): Uint8Array {
  const writer = new VarintWriter();
  for (let i = 0; i < count; i += 1) {
    const units = values[i] / unit;
    if (!Number.isSafeInteger(units) || units < 1) {
      throw damaged(`${name}[${i}]`, `a positive multiple of ${unit}`, String(values[i]));
    }
    writer.writeUnsigned(units - 1);
  }
  return writer.finish();
}

/**
 * Runs of equal values below `base`, one integer a run: (run length - 1) x base + value. A column
 * that never changes costs a few bytes, one that always changes one byte a value (base < 128).
 */
export function encodeRuns(name: string, values: Column, count: number, base: number): Uint8Array {
  const writer = new VarintWriter();
  for (let start = 0; start < count;) {
    const value = values[start];
    if (value >= base) throw damaged(`${name}[${start}]`, `less than ${base}`, String(value));
    let end = start + 1;
    while (end < count && values[end] === value) end += 1;
    writer.writeUnsigned((end - start - 1) * base + value);
    start = end;
  }
  return writer.finish();
}

export function decodeRuns(
  name: string,
  bytes: Uint8Array,
  count: number,
  base: number,
): Uint16Array {
  const reader = new VarintReader(bytes);
  const values = new Uint16Array(count);
  for (let start = 0; start < count;) {
    const token = reader.readUnsigned();
    const value = token % base;
    const end = start + Math.floor(token / base) + 1;
    if (end > count) throw damaged(name, `${count} values`, `at least ${end}`);
    values.fill(value, start, end);
    start = end;
  }
  finishColumn(name, reader);
  return values;
}

/** A column ends where its last value does. */
export function finishColumn(name: string, reader: VarintReader): void {
  if (!reader.atEnd) throw damaged(name, 'no bytes after the last value', 'some');
}
