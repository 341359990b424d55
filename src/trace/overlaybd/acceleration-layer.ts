import { join } from 'node:path';
import { gunzipSync } from 'node:zlib';
import { codeOf, messageOf, ReplaybdError } from '../../base/errors.ts';
import { overlaybdTraceLimits, traceLimits } from '../../base/limits.ts';
import { TarReader } from '../../image/tar/reader.ts';
import { decodeTrace } from '../decode.ts';
import { readTraceFile } from '../store.ts';
import { parseAnyTrace, type AnyTrace } from './any-trace.ts';

/** overlaybd's member: its own trace, or a list of paths. Its runtime replays this one. */
const TRACE_NAME = 'trace';
/** Ours, beside it, which overlaybd does not know. */
const MSGPACK_NAME = 'trace.msgpack';
const MEMBER_BYTES_MAX = {
  [TRACE_NAME]: overlaybdTraceLimits.fileBytesMax,
  [MSGPACK_NAME]: traceLimits.fileBytesMax,
};
const BLOCK_BYTES = 512;
const GZIP_MAGIC = 0x1f8b;

/** What an acceleration layer holds, as files. */
export interface AccelerationFiles {
  readonly trace: Uint8Array | null;
  readonly msgpack: Uint8Array | null;
}

/** The uncompressed tar of an acceleration layer; equal files give equal bytes. */
export function packAccelerationLayer({ trace, msgpack }: AccelerationFiles): Buffer {
  const parts: Uint8Array[] = [];
  const add = (name: string, bytes: Uint8Array | null) => {
    if (bytes === null) return;
    const padding = (BLOCK_BYTES - (bytes.length % BLOCK_BYTES)) % BLOCK_BYTES;
    parts.push(memberHeader(name, bytes.length), bytes, Buffer.alloc(padding));
  };
  add(TRACE_NAME, trace);
  add(MSGPACK_NAME, msgpack);
  return Buffer.concat([...parts, Buffer.alloc(2 * BLOCK_BYTES)]);
}

/** A ustar header as Go's archive/tar writes it for name, size and mode 0444 alone. */
function memberHeader(name: string, sizeBytes: number): Buffer {
  const header = Buffer.alloc(BLOCK_BYTES);
  const octal = (value: number, digits: number) => value.toString(8).padStart(digits, '0');
  header.write(name, 0, 'latin1');
  header.write(octal(0o444, 7), 100, 'latin1');
  header.write(octal(0, 7), 108, 'latin1');
  header.write(octal(0, 7), 116, 'latin1');
  header.write(octal(sizeBytes, 11), 124, 'latin1');
  header.write(octal(0, 11), 136, 'latin1');
  header.write('0', 156, 'latin1');
  header.write('ustar\0' + '00', 257, 'latin1');
  header.write(octal(0, 7), 329, 'latin1');
  header.write(octal(0, 7), 337, 'latin1');
  // The checksum counts its own eight bytes as spaces.
  header.fill(' ', 148, 156);
  const sum = header.reduce((total, byte) => total + byte, 0);
  header.write(`${octal(sum, 6)}\0 `, 148, 'latin1');
  return header;
}

/**
 * The files of an acceleration layer's tar, which may be gzipped. Errors: ERR_ACCELERATION_LAYER, and
 * ERR_TAR_* for what is no tar.
 */
export function unpackAccelerationLayer(blob: Uint8Array, name: string): AccelerationFiles {
  const members = new Map<string, Buffer>();
  let member: Buffer | null = null;
  const reader = new TarReader({
    entry: (entry) => {
      const path = entry.path.replace(/^(\.?\/)+/, '');
      member = null;
      if (entry.type !== 'file' || (path !== TRACE_NAME && path !== MSGPACK_NAME)) return;
      if (entry.sizeBytes > MEMBER_BYTES_MAX[path]) {
        throw layerError(name, `${path} of at most ${MEMBER_BYTES_MAX[path]}`, entry.sizeBytes);
      }
      member = Buffer.alloc(entry.sizeBytes);
      members.set(path, member);
    },
    content: (offset, bytes) => {
      if (member !== null) bytes.copy(member, offset);
    },
    endEntry: () => {
      member = null;
    },
  });
  reader.push(uncompressed(blob, name));
  reader.end();
  const trace = members.get(TRACE_NAME) ?? null;
  return { trace, msgpack: members.get(MSGPACK_NAME) ?? null };
}

function uncompressed(blob: Uint8Array, name: string): Uint8Array {
  const isGzip = blob.length > 2 && blob[0] * 256 + blob[1] === GZIP_MAGIC;
  if (!isGzip) return blob;
  try {
    return gunzipSync(blob, { maxOutputLength: overlaybdTraceLimits.layerBytesMax });
  } catch (error) {
    const max = overlaybdTraceLimits.layerBytesMax;
    throw layerError(name, `gzip of at most ${max}`, messageOf(error));
  }
}

/** The files of an acceleration layer that was unpacked into a folder. Errors: those of reading. */
export async function readAccelerationFolder(folder: string): Promise<AccelerationFiles> {
  const read = async (name: keyof typeof MEMBER_BYTES_MAX) => {
    try {
      return await readTraceFile(join(folder, name), MEMBER_BYTES_MAX[name]);
    } catch (error) {
      if (codeOf(error) === 'ERR_TRACE_NOT_FOUND') return null;
      throw error;
    }
  };
  return { trace: await read(TRACE_NAME), msgpack: await read(MSGPACK_NAME) };
}

/**
 * What to replay of an acceleration layer: our trace if it is there and sound, overlaybd's otherwise.
 * Null when there is neither. `onDamaged` is told of a trace of ours that cannot be read; errors are
 * those of parseAnyTrace for the other.
 */
export function chooseAccelerationTrace(
  { trace, msgpack }: AccelerationFiles,
  name: string,
  onDamaged: (error: unknown) => void,
): AnyTrace | null {
  if (msgpack !== null) {
    try {
      return { kind: 'replaybd', trace: decodeTrace(msgpack, `${name}: ${MSGPACK_NAME}`) };
    } catch (error) {
      onDamaged(error);
    }
  }
  // The original takes an empty file for none.
  if (trace === null || trace.length === 0) return null;
  return parseAnyTrace(trace, `${name}: ${TRACE_NAME}`);
}

function layerError(name: string, expected: string, found: string | number): ReplaybdError {
  return new ReplaybdError(
    'ERR_ACCELERATION_LAYER',
    `${name}: acceleration layer: expected ${expected} bytes, found ${found}. Pack it again.`,
  );
}
