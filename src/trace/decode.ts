import { Unpackr } from 'msgpackr';
import { crc32c } from '../base/crc32c.ts';
import { messageOf, ReplaybdError } from '../base/errors.ts';
import { lsmtLimits, SECTOR_BYTES, traceLimits } from '../base/limits.ts';
import { digestOf, Fields, integerOf } from './fields.ts';
import {
  CRC_BYTES,
  PACKED_MINOR,
  PREFIX,
  VERSION_MAJOR,
  VERSION_MINOR,
  WAIT_MINOR,
} from './layout.ts';
import { decodePacked } from './packed-codec.ts';
import { scanMsgpack } from './msgpack-scan.ts';
import { decodePlan } from './plan-codec.ts';
import { decodeRecords } from './records-codec.ts';
import { damaged, tooLarge } from './trace-errors.ts';
import {
  END_REASONS,
  type Trace,
  type TraceImage,
  type TraceLayer,
  type TraceRecording,
  type TraceWorkload,
} from './trace.ts';

const TOP_KEYS = [
  'magic',
  'version',
  'image',
  'workload',
  'recording',
  'runs',
  'records',
  'plan',
  'crc32c',
];
const unpackr = new Unpackr({ useRecords: false, mapsAsObjects: true, int64AsType: 'number' });

/**
 * Reads a trace file that nobody vouches for. `name` (path or URL) goes into messages.
 * Throws ERR_TRACE_MAGIC (not a trace), ERR_TRACE_VERSION, ERR_TRACE_CHECKSUM, ERR_TRACE_LIMIT or
 * ERR_TRACE_FORMAT, and nothing else.
 */
export function decodeTrace(bytes: Uint8Array, name = 'trace'): Trace {
  try {
    const minor = checkEnvelope(bytes);
    scanMsgpack(bytes);
    // The library leaves a property on the array it reads: let that be a view of our own.
    return parseTrace(unpackr.unpack(bytes.subarray()), minor);
  } catch (error) {
    const isOurs = error instanceof ReplaybdError && error.code.startsWith('ERR_TRACE_');
    const code = isOurs ? (error.code as `ERR_${string}`) : 'ERR_TRACE_FORMAT';
    throw new ReplaybdError(code, `${name}: ${messageOf(error)}`, { cause: error });
  }
}

/** Whether a file begins as a trace does. */
export function hasTraceMagic(bytes: Uint8Array): boolean {
  const prefix = bytes.subarray(1, 1 + PREFIX.length);
  return bytes.length > 0 && bytes[0] >> 4 === 0x8 && Buffer.from(PREFIX).equals(prefix);
}

/** Size, magic, version and checksum: what can be told before parsing. Returns the minor version. */
function checkEnvelope(bytes: Uint8Array): number {
  if (bytes.length > traceLimits.fileBytesMax) {
    throw tooLarge('file bytes', traceLimits.fileBytesMax, bytes.length);
  }
  const versionAt = 1 + PREFIX.length;
  if (bytes.length <= versionAt + 2 + CRC_BYTES || !hasTraceMagic(bytes)) {
    throw new ReplaybdError(
      'ERR_TRACE_MAGIC',
      'this is not a replaybd trace, or only its beginning',
    );
  }
  const [major, minor] = bytes.subarray(versionAt, versionAt + 2);
  if (major !== VERSION_MAJOR || minor > 0x7f) {
    throw new ReplaybdError(
      'ERR_TRACE_VERSION',
      `expected version ${VERSION_MAJOR}, found ${major}. A newer replaybd may read it.`,
    );
  }
  const covered = bytes.subarray(0, bytes.length - CRC_BYTES);
  const stored = Buffer.from(bytes.subarray(covered.length)).readUInt32BE(0);
  const computed = crc32c(covered);
  if (stored !== computed) {
    throw new ReplaybdError(
      'ERR_TRACE_CHECKSUM',
      `CRC-32C expected 0x${stored.toString(16)}, found 0x${computed.toString(16)}: ` +
        'the file is damaged or cut short; record it again or fetch it again',
    );
  }
  return minor;
}

function parseTrace(value: unknown, minor: number): Trace {
  const extra = minor > VERSION_MINOR;
  const keys = minor >= PACKED_MINOR ? [...TOP_KEYS, 'packed'] : TOP_KEYS;
  const top = new Fields('', value, keys, extra);
  if (top.bytes('crc32c').length !== CRC_BYTES) throw damaged('crc32c', '4 bytes', 'another size');
  const image = parseImage(top.get('image'), extra);
  const recording = parseRecording(top.get('recording'), extra);
  const runs = top.integer('runs', 1, traceLimits.runsMax);
  const records = decodeRecords(
    top.get('records'),
    {
      layerCount: image.layers.length,
      deviceSectors: Math.floor(recording.deviceSizeBytes / SECTOR_BYTES),
      durationUs: recording.durationUs,
      runs,
    },
    { extra, waits: minor >= WAIT_MINOR },
  );
  const plan = decodePlan(top.get('plan'), image.layers, recording.durationUs, extra);
  const hasPacked = minor >= PACKED_MINOR && top.has('packed');
  return {
    image,
    workload: parseWorkload(top.get('workload'), extra),
    recording,
    runs,
    records,
    plan,
    ...(hasPacked ? { packed: decodePacked(top.array('packed', 3), image.layers, plan) } : {}),
  };
}

function parseImage(value: unknown, extra: boolean): TraceImage {
  const keys = ['manifestDigest', 'virtualSizeBytes', 'layers'];
  const fields = new Fields('image', value, keys, extra);
  const layers = fields.array('layers', lsmtLimits.layersMax).map(parseLayer);
  if (layers.length === 0) throw damaged('image.layers', 'at least one layer', 'none');
  return {
    manifestDigest: fields.digestOrNull('manifestDigest'),
    virtualSizeBytes: fields.integer('virtualSizeBytes', 0, traceLimits.sizeBytesMax),
    layers,
  };
}

function parseLayer(value: unknown, index: number): TraceLayer {
  const path = `image.layers[${index}]`;
  if (!Array.isArray(value) || value.length !== 3) {
    throw damaged(path, 'digest, size and diff id', 'something else');
  }
  const [digest, sizeBytes, diffId]: unknown[] = value;
  return {
    digest: digestOf(`${path} digest`, digest),
    sizeBytes: integerOf(`${path} size`, sizeBytes, 0, traceLimits.sizeBytesMax),
    diffId: diffId === null ? null : digestOf(`${path} diff id`, diffId),
  };
}

function parseWorkload(value: unknown, extra: boolean): TraceWorkload {
  const fields = new Fields('workload', value, ['key', 'entrypoint', 'args', 'env'], extra);
  const key = fields.text('key');
  if (!/^[0-9a-f]{64}$/.test(key)) throw damaged('workload.key', '64 hex digits', 'another text');
  return {
    key,
    entrypoint: fields.texts('entrypoint'),
    args: fields.texts('args'),
    env: fields.texts('env'),
  };
}

function parseRecording(value: unknown, extra: boolean): TraceRecording {
  const keys = ['startedAtMs', 'durationUs', 'endReason', 'deviceSizeBytes'];
  const fields = new Fields('recording', value, keys, extra);
  const found = fields.text('endReason');
  const endReason = END_REASONS.find((reason) => reason === found);
  if (endReason === undefined)
    throw damaged('recording.endReason', END_REASONS.join(', '), 'other');
  return {
    startedAtMs: fields.integer('startedAtMs', 0, Number.MAX_SAFE_INTEGER),
    durationUs: fields.integer('durationUs', 0, traceLimits.durationUsMax),
    endReason,
    deviceSizeBytes: fields.integer('deviceSizeBytes', 0, traceLimits.sizeBytesMax),
  };
}
