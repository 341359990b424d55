import { traceLimits } from '../base/limits.ts';
import { VarintReader, VarintWriter } from '../base/varint.ts';
import {
  decodeRising,
  decodeRuns,
  encodeCounts,
  encodeRising,
  encodeRuns,
  finishColumn,
} from './columns.ts';
import { Fields } from './fields.ts';
import { damaged, tooLarge } from './trace-errors.ts';
import type { TraceRecords } from './trace.ts';
import { decodeWaits, encodeWaits } from './wait-codec.ts';

/** What the numbers of a records map are checked against. */
export interface RecordBounds {
  readonly layerCount: number;
  readonly deviceSectors: number;
  readonly durationUs: number;
  readonly runs: number;
}

/** What a file's minor version says of its records map. */
export interface RecordKeys {
  /** Keys that nobody here knows may occur. */
  readonly extra: boolean;
  /** `wait` may occur. */
  readonly waits: boolean;
}

const KEYS = ['count', 'sectorUnit', 'time', 'lba', 'sectors', 'layer', 'weight'];
const KEYS_WITH_WAIT = [...KEYS, 'wait'];
/** File systems use blocks of 4 KiB, so LBAs and sizes mostly are multiples of 8 sectors. */
const SECTOR_UNITS = [8, 4, 2, 1];

/** The `records` map of a trace file; docs/trace-format.md specifies each column. */
export function encodeRecords(records: TraceRecords, bounds: RecordBounds): object {
  const { count, timeUs, sectors, layer, weight } = records;
  if (count > traceLimits.recordsMax) throw tooLarge('records', traceLimits.recordsMax, count);
  const unit = sectorUnitOf(records);
  const wait = encodeWaits(records);
  return {
    count,
    sectorUnit: unit,
    time: encodeRising('records.time', timeUs, count),
    lba: encodeLba(records, unit),
    sectors: encodeCounts('records.sectors', sectors, count, unit),
    layer: encodeRuns('records.layer', layer, count, bounds.layerCount),
    weight: encodeRuns(
      'records.weight',
      weight.map((value) => value - 1),
      count,
      bounds.runs,
    ),
    ...(wait.length > 0 ? { wait } : {}),
  };
}

export function decodeRecords(
  value: unknown,
  bounds: RecordBounds,
  keys: RecordKeys,
): TraceRecords {
  const known = keys.waits ? KEYS_WITH_WAIT : KEYS;
  const fields = new Fields('records', value, known, keys.extra);
  const count = fields.integer('count', 0, traceLimits.recordsMax);
  const unit = fields.integer('sectorUnit', 1, 8);
  if (!SECTOR_UNITS.includes(unit)) throw damaged('records.sectorUnit', '1, 2, 4 or 8', `${unit}`);
  // Every value takes at least a byte, so a small file cannot ask for large columns.
  const time = fields.bytes('time', count);
  const sectorsBytes = fields.bytes('sectors', count);
  const lbaBytes = fields.bytes('lba', count);
  const timeUs = decodeRising('records.time', time, count, bounds.durationUs);
  const waitBytes = keys.waits && fields.has('wait') ? fields.bytes('wait') : new Uint8Array(0);
  const waitUs = decodeWaits(waitBytes, timeUs);
  const { lba, sectors } = decodeLba(lbaBytes, sectorsBytes, count, unit, bounds.deviceSectors);
  const layer = decodeRuns('records.layer', fields.bytes('layer'), count, bounds.layerCount);
  const weight = decodeRuns('records.weight', fields.bytes('weight'), count, bounds.runs);
  const weights = weight.map((value) => value + 1);
  return { count, timeUs, waitUs, lba, sectors, layer, weight: weights };
}

function sectorUnitOf(records: TraceRecords): number {
  let bits = 8;
  for (let i = 0; i < records.count; i += 1) bits |= records.sectors[i] | (records.lba[i] % 8);
  return bits & -bits;
}

/** Each LBA as its signed distance from the end of the record before it. */
function encodeLba(records: TraceRecords, unit: number): Uint8Array {
  const writer = new VarintWriter();
  let expected = 0;
  for (let i = 0; i < records.count; i += 1) {
    const lba = records.lba[i];
    if (!Number.isSafeInteger(lba)) throw damaged(`record ${i}`, 'a whole LBA', String(lba));
    writer.writeSigned((lba - expected) / unit);
    expected = lba + records.sectors[i];
  }
  return writer.finish();
}

function decodeLba(
  lbaBytes: Uint8Array,
  sectorsBytes: Uint8Array,
  count: number,
  unit: number,
  deviceSectors: number,
): { lba: Float64Array; sectors: Uint32Array } {
  const lbaReader = new VarintReader(lbaBytes);
  const sectorsReader = new VarintReader(sectorsBytes);
  const lba = new Float64Array(count);
  const sectors = new Uint32Array(count);
  let expected = 0;
  for (let i = 0; i < count; i += 1) {
    const length = (sectorsReader.readUnsigned() + 1) * unit;
    const start = expected + lbaReader.readSigned() * unit;
    const end = start + length;
    if (length > traceLimits.recordSectorsMax || start < 0 || end > deviceSectors) {
      throw damaged(
        `record ${i}`,
        `at most ${traceLimits.recordSectorsMax} sectors inside 0 to ${deviceSectors}`,
        `${start} to ${end}`,
      );
    }
    lba[i] = start;
    sectors[i] = length;
    expected = end;
  }
  finishColumn('records.lba', lbaReader);
  finishColumn('records.sectors', sectorsReader);
  return { lba, sectors };
}
