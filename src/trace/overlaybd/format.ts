import { crc32cRaw } from '../../base/crc32c.ts';
import { formatError, type ErrorCode } from '../../base/errors.ts';
import { overlaybdTraceLimits } from '../../base/limits.ts';

/*
 * overlaybd's own trace: a header and records of 24 bytes each, little endian.
 *
 *   header   0 u32 magic   4 padding   8 u64 bytes of records   16 u32 checksum   20 padding
 *   record   0 u8 op       1 padding   4 u32 layer              8 u64 count       16 i64 offset
 *
 * The checksum is the CRC-32C, not inverted, of the records as they are, padding included: the
 * original leaves whatever was in memory there.
 */
const MAGIC = 0xc2ef1820;
const HEADER_BYTES = 24;
const RECORD_BYTES = 24;
const OP_READ = 'R'.charCodeAt(0);

/** The reads of one recording, in the order in which they ended, as columns. */
export interface OverlaybdTrace {
  readonly count: number;
  /** The operation's letter, as a byte. Only 'R' is ever replayed. */
  readonly op: Uint8Array;
  /** Position in `lowers`; 0 is the bottom. */
  readonly layer: Uint32Array;
  /** Bytes of the layer's LSMT file, uncompressed: the offset space of LSMT's own reads. */
  readonly offset: Float64Array;
  readonly length: Float64Array;
}

/** One read of a layer's LSMT file. */
export interface LayerRead {
  readonly layer: number;
  readonly offset: number;
  readonly length: number;
}

/** Whether a file is one of these traces; the original takes any other for a list of paths. */
export function hasOverlaybdTraceMagic(bytes: Uint8Array): boolean {
  return bytes.length >= HEADER_BYTES && viewOf(bytes).getUint32(0, true) === MAGIC;
}

/**
 * Reads a trace that nobody vouches for. What the original would drop as a whole is refused: ERR_TRACE_MAGIC,
 * ERR_TRACE_SIZE, ERR_TRACE_CHECKSUM; and ERR_TRACE_LIMIT, and ERR_TRACE_FORMAT for a number that
 * no recording holds (a negative offset, more than 2^53). `name` goes into messages.
 */
export function decodeOverlaybdTrace(bytes: Uint8Array, name = 'trace'): OverlaybdTrace {
  if (!hasOverlaybdTraceMagic(bytes)) {
    throw mismatch('ERR_TRACE_MAGIC', name, `magic 0x${MAGIC.toString(16)}`, 'another beginning');
  }
  const view = viewOf(bytes);
  const stated = view.getBigUint64(8, true);
  const found = bytes.length - HEADER_BYTES;
  if (stated !== BigInt(found) || found % RECORD_BYTES !== 0) {
    const expected = `${stated} bytes of records, ${RECORD_BYTES} each`;
    throw mismatch('ERR_TRACE_SIZE', name, expected, `${found}: it was cut short or is damaged`);
  }
  const count = found / RECORD_BYTES;
  if (count > overlaybdTraceLimits.recordsMax) {
    const expected = `at most ${overlaybdTraceLimits.recordsMax} records`;
    throw mismatch('ERR_TRACE_LIMIT', name, expected, String(count));
  }
  const checksum = view.getUint32(16, true);
  const computed = crc32cRaw(0, bytes.subarray(HEADER_BYTES));
  if (checksum !== computed) {
    throw mismatch('ERR_TRACE_CHECKSUM', name, `checksum ${hex(checksum)}`, hex(computed));
  }
  const trace = allocate(count);
  for (let i = 0; i < count; i += 1) {
    const at = HEADER_BYTES + i * RECORD_BYTES;
    const length = view.getBigUint64(at + 8, true);
    const offset = view.getBigInt64(at + 16, true);
    const end = offset + BigInt(length);
    if (offset < 0n || end > BigInt(Number.MAX_SAFE_INTEGER)) {
      const read = `${length} bytes at ${offset}`;
      throw mismatch('ERR_TRACE_FORMAT', name, `record ${i} inside a layer's file`, read);
    }
    trace.op[i] = view.getUint8(at);
    trace.layer[i] = view.getUint32(at + 4, true);
    trace.length[i] = Number(length);
    trace.offset[i] = Number(offset);
  }
  return trace;
}

/** The file of a trace, all padding zero: the same reads always give the same bytes. */
export function encodeOverlaybdTrace(trace: OverlaybdTrace): Uint8Array<ArrayBuffer> {
  const { count, op, layer, offset, length } = trace;
  const bytes = new Uint8Array(HEADER_BYTES + count * RECORD_BYTES);
  const view = viewOf(bytes);
  for (let i = 0; i < count; i += 1) {
    const at = HEADER_BYTES + i * RECORD_BYTES;
    view.setUint8(at, op[i]);
    view.setUint32(at + 4, layer[i], true);
    view.setBigUint64(at + 8, BigInt(length[i]), true);
    view.setBigInt64(at + 16, BigInt(offset[i]), true);
  }
  view.setUint32(0, MAGIC, true);
  view.setBigUint64(8, BigInt(count * RECORD_BYTES), true);
  view.setUint32(16, crc32cRaw(0, bytes.subarray(HEADER_BYTES)), true);
  return bytes;
}

/** A trace of reads. */
export function overlaybdTraceOf(reads: readonly LayerRead[]): OverlaybdTrace {
  const trace = allocate(reads.length);
  for (const [i, { layer, offset, length }] of reads.entries()) {
    trace.op[i] = OP_READ;
    trace.layer[i] = layer;
    trace.offset[i] = offset;
    trace.length[i] = length;
  }
  return trace;
}

/** The records that are replayed: reads of at least a byte. */
export function* readsOf(trace: OverlaybdTrace): Generator<LayerRead, void, undefined> {
  const { count, op, layer, offset, length } = trace;
  for (let i = 0; i < count; i += 1) {
    if (op[i] !== OP_READ || length[i] === 0) continue;
    yield { layer: layer[i], offset: offset[i], length: length[i] };
  }
}

function allocate(count: number): OverlaybdTrace {
  return {
    count,
    op: new Uint8Array(count),
    layer: new Uint32Array(count),
    offset: new Float64Array(count),
    length: new Float64Array(count),
  };
}

function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
}

function hex(value: number): string {
  return `0x${value.toString(16).padStart(8, '0')}`;
}

function mismatch(code: ErrorCode, name: string, expected: string, found: string): Error {
  const hint = 'Record it again, or fetch it again.';
  return formatError(code, { name, structure: 'overlaybd trace', expected, found }, hint);
}
