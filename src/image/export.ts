import { createHash } from 'node:crypto';
import type { FileHandle } from 'node:fs/promises';
import type { Writable } from 'node:stream';
import { SECTOR_BYTES } from '../base/limits.ts';
import { FileSink } from './byte-sink.ts';
import { writeOutputFile, writeToStream, type OutputFileOptions } from './output-file.ts';
import { ZERO_LAYER, type MergedIndexMap } from './stack-map.ts';

/** A merged disk that can be read as a whole. */
export interface ExportSource {
  readonly virtualSizeBytes: number;
  readonly index: MergedIndexMap;
  /** Fills `into` from byte `offset` of the disk. */
  read(offset: number, into: Uint8Array): Promise<void>;
}

export interface ExportOptions {
  /** Called as the export proceeds, in bytes of the virtual disk. */
  onProgress?: (doneBytes: number) => void;
  /** Rejects with the signal's reason, and leaves nothing behind. */
  signal?: AbortSignal;
}

export type ExportFileOptions = ExportOptions & OutputFileOptions;

/** A stretch of the disk in order: data, or zeros when `data` is null. */
interface Stretch {
  offset: number;
  length: number;
  data: Uint8Array | null;
}

/** Bytes of one read. */
const READ_BYTES = 1024 * 1024;
/** Reads under way at once: enough to keep a remote blob's link busy. */
const READS_MAX = 8;
/** Zeros hashed or written between two turns of the event loop. */
const ZEROS_BYTES = 4 * 1024 * 1024;

/**
 * Writes the disk as a sparse raw image: what no layer holds, and what was discarded, stays a hole.
 * Errors: those of writeOutputFile and of reading.
 */
export async function exportToFile(
  source: ExportSource,
  path: string,
  options: ExportFileOptions = {},
): Promise<void> {
  await writeOutputFile(path, options, (file) => exportInto(file, source, options));
}

/** As exportToFile, into an empty file. */
export async function exportInto(
  file: FileHandle,
  source: ExportSource,
  options: ExportOptions = {},
): Promise<void> {
  await file.truncate(source.virtualSizeBytes);
  const sink = new FileSink(file);
  for await (const { offset, data } of stretches(source, Infinity, options)) {
    if (data !== null) await sink.patch(offset, data);
  }
}

/**
 * Writes the whole disk, zeros included, to a stream such as standard output; does not end it.
 * Errors: ERR_OUTPUT_WRITE, and those of reading.
 */
export async function exportToStream(
  source: ExportSource,
  stream: Writable,
  options: ExportOptions = {},
): Promise<void> {
  const zeros = Buffer.alloc(ZEROS_BYTES);
  for await (const { length, data } of stretches(source, ZEROS_BYTES, options)) {
    await writeToStream(stream, data ?? zeros.subarray(0, length));
  }
}

/** SHA-256 of the whole virtual disk, in hexadecimal. */
export async function digestOfDisk(
  source: ExportSource,
  options: ExportOptions = {},
): Promise<string> {
  const hash = createHash('sha256');
  const zeros = Buffer.alloc(ZEROS_BYTES);
  for await (const { length, data } of stretches(source, ZEROS_BYTES, options)) {
    hash.update(data ?? zeros.subarray(0, length));
  }
  return hash.digest('hex');
}

/** The disk from its first byte to its last, read ahead by a bounded number of reads. */
async function* stretches(
  source: ExportSource,
  zerosBytesMax: number,
  options: ExportOptions,
): AsyncGenerator<Stretch> {
  const { onProgress, signal } = options;
  const ahead: Promise<Stretch>[] = [];
  const plan = planStretches(source, zerosBytesMax);
  try {
    for (;;) {
      signal?.throwIfAborted();
      while (ahead.length < READS_MAX) {
        const next = plan.next();
        if (next.done === true) break;
        const reading = fill(source, next.value);
        // A failure is met when its turn comes; until then it is not unhandled.
        reading.catch(() => undefined);
        ahead.push(reading);
      }
      const first = ahead.shift();
      if (first === undefined) return;
      const stretch = await first;
      yield stretch;
      onProgress?.(stretch.offset + stretch.length);
      // Zeros need no I/O: without this, nobody else would run, nor would a signal arrive.
      if (stretch.data === null) await new Promise((resolve) => setImmediate(resolve));
    }
  } finally {
    await Promise.allSettled(ahead);
  }
}

async function fill(source: ExportSource, stretch: Stretch): Promise<Stretch> {
  if (stretch.data !== null) await source.read(stretch.offset, stretch.data);
  return stretch;
}

/** Cuts the disk at the borders between data and zeros, and into pieces of bounded size. */
function* planStretches(
  { index, virtualSizeBytes }: ExportSource,
  zerosBytesMax: number,
): Generator<Stretch> {
  let position = 0;
  for (let segment = 0; segment < index.segmentCount;) {
    if (index.layer[segment] === ZERO_LAYER) {
      segment += 1;
      continue;
    }
    const offset = index.start[segment] * SECTOR_BYTES;
    let end = offset;
    for (; segment < index.segmentCount; segment += 1) {
      const isNeighbour = index.start[segment] * SECTOR_BYTES === end;
      if (!isNeighbour || index.layer[segment] === ZERO_LAYER) break;
      end += index.sectors[segment] * SECTOR_BYTES;
    }
    yield* pieces(position, offset, zerosBytesMax, false);
    yield* pieces(offset, end, READ_BYTES, true);
    position = end;
  }
  yield* pieces(position, virtualSizeBytes, zerosBytesMax, false);
}

function* pieces(from: number, to: number, bytesMax: number, hasData: boolean): Generator<Stretch> {
  for (let offset = from; offset < to; offset += bytesMax) {
    const length = Math.min(bytesMax, to - offset);
    yield { offset, length, data: hasData ? new Uint8Array(length) : null };
  }
}
