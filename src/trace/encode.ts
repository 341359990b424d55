import { Packr } from 'msgpackr';
import { crc32c } from '../base/crc32c.ts';
import { SECTOR_BYTES, traceLimits } from '../base/limits.ts';
import { ReplaybdError } from '../base/errors.ts';
import { decodeTrace } from './decode.ts';
import { CRC_BYTES, MAGIC, PACKED_MINOR, VERSION_MAJOR, WAIT_MINOR } from './layout.ts';
import { encodePlan } from './plan-codec.ts';
import { encodeRecords } from './records-codec.ts';
import { tooLarge } from './trace-errors.ts';
import { emptyPlan, takeRecords, waitedUs, type Trace } from './trace.ts';

const packr = new Packr({ useRecords: false, variableMapSize: true });

/**
 * The bytes of a trace file; the same trace always gives the same bytes. What is returned has been
 * read back. Throws ERR_TRACE_LIMIT when it would be too large, ERR_TRACE_FORMAT when a field
 * breaks the format's rules.
 */
export function encodeTrace(trace: Trace): Uint8Array {
  const { image, workload, recording, runs, records, plan, packed: hot } = trace;
  const packed: Uint8Array = packr.pack({
    magic: MAGIC,
    // As old as it can be, so that older readers know all of it.
    version: [VERSION_MAJOR, minorOf(trace)],
    image: {
      manifestDigest: image.manifestDigest,
      virtualSizeBytes: image.virtualSizeBytes,
      layers: image.layers.map((layer) => [layer.digest, layer.sizeBytes, layer.diffId]),
    },
    workload: {
      key: workload.key,
      entrypoint: [...workload.entrypoint],
      args: [...workload.args],
      env: [...workload.env],
    },
    recording: {
      startedAtMs: recording.startedAtMs,
      durationUs: recording.durationUs,
      endReason: recording.endReason,
      deviceSizeBytes: recording.deviceSizeBytes,
    },
    runs,
    records: encodeRecords(records, {
      layerCount: image.layers.length,
      deviceSectors: recording.deviceSizeBytes / SECTOR_BYTES,
      durationUs: recording.durationUs,
      runs,
    }),
    plan: encodePlan(plan, image.layers),
    ...(hot === undefined ? {} : { packed: [hot.digest, hot.sizeBytes, [...hot.layers]] }),
    crc32c: new Uint8Array(CRC_BYTES),
  });
  if (packed.length > traceLimits.fileBytesMax) {
    throw tooLarge('trace file bytes', traceLimits.fileBytesMax, packed.length);
  }
  const bytes = new Uint8Array(packed);
  const covered = bytes.subarray(0, bytes.length - CRC_BYTES);
  new DataView(bytes.buffer).setUint32(covered.length, crc32c(covered));
  decodeTrace(bytes, 'encoded trace');
  return bytes;
}

/** The oldest minor version that has all of a trace. */
function minorOf({ packed, records }: Trace): number {
  if (packed !== undefined) return PACKED_MINOR;
  return waitedUs(records) > 0 ? WAIT_MINOR : 0;
}

/**
 * As encodeTrace, for a recording that must be kept: when it is too large it loses its plan, which
 * can be built again, and then its latest records. `onCut` is told what is left of it.
 */
export function encodeTraceWithinLimit(
  trace: Trace,
  onCut: (kept: Trace) => void = () => undefined,
): Uint8Array {
  let candidate = trace;
  for (;;) {
    try {
      const bytes = encodeTrace(candidate);
      if (candidate !== trace) onCut(candidate);
      return bytes;
    } catch (error) {
      const isTooLarge = error instanceof ReplaybdError && error.code === 'ERR_TRACE_LIMIT';
      if (!isTooLarge || candidate.records.count === 0) throw error;
      candidate =
        candidate.plan.count > 0
          ? { ...candidate, plan: emptyPlan }
          : { ...candidate, records: takeRecords(candidate.records, candidate.records.count >> 1) };
    }
  }
}
