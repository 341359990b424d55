import { createReadStream } from 'node:fs';
import { open, type FileHandle } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname } from 'node:path';
import { addAbortSignal, type Readable } from 'node:stream';
import { openLocalBlob } from '../../blob/local-blob.ts';
import { messageOf, ReplaybdError } from '../../base/errors.ts';
import { openScratchFile } from '../build/scratch-file.ts';
import { BufferedSink, FileSink } from '../byte-sink.ts';
import { openLayerBlob } from '../layer-blob.ts';
import { writeOutputFile, type OutputFileOptions } from '../output-file.ts';
import { TarWrapperSink } from '../tar-wrapper.ts';
import type { ZFileFacts } from '../zfile/reader.ts';
import { ZFileWriter, type WrittenZFile, type ZFileWriterOptions } from '../zfile/writer.ts';

/** Read, or decoded, at a time. */
const CHUNK_BYTES = 1024 * 1024;

export interface ZFileOptions {
  onProgress?: ((plainBytes: number) => void) | undefined;
  signal?: AbortSignal | undefined;
}

export interface CompressOptions extends ZFileOptions, OutputFileOptions {
  coding: ZFileWriterOptions;
  /** Wrap the ZFile as registries store layers. */
  tar: boolean;
}

/** What was compressed into `target`. */
export interface Compressed extends WrittenZFile {
  target: string;
  /** Of the target, a tar around the ZFile included. */
  sizeBytes: number;
}

/**
 * Compresses a file, or a stream such as standard input, into a ZFile: `overlaybd-zfile`. The bytes
 * are the original's, whose header is not rewritten at the end; unlike there, a stream that comes in
 * small pieces is cut into whole blocks.
 */
export async function compressToZFile(
  source: string | Readable,
  target: string,
  options: CompressOptions,
): Promise<Compressed> {
  return await writeOutputFile(target, options, async (file) => {
    const plain = new FileSink(file);
    const tar = options.tar ? new TarWrapperSink(plain) : null;
    const writer = new ZFileWriter(tar ?? plain, { ...options.coding, overwriteHeader: false });
    try {
      let bytes = 0;
      for await (const chunk of chunksOf(source, options.signal)) {
        await writer.write(chunk);
        bytes += chunk.length;
        options.onProgress?.(bytes);
      }
      const written = await writer.finish();
      await tar?.finish();
      return { ...written, target, sizeBytes: plain.bytesWritten };
    } finally {
      await writer.settle();
    }
  });
}

/** A failure to read must not be taken for one to write; one that waits for input can be stopped. */
async function* chunksOf(
  source: string | Readable,
  signal: AbortSignal | undefined,
): AsyncGenerator<Uint8Array> {
  const isPath = typeof source === 'string';
  const stream = isPath ? createReadStream(source, { highWaterMark: CHUNK_BYTES }) : source;
  if (signal !== undefined) addAbortSignal(signal, stream);
  try {
    for await (const chunk of stream) yield chunk as Uint8Array;
  } catch (error) {
    signal?.throwIfAborted();
    const name = isPath ? source : 'standard input';
    const message = `${name}: cannot be read: ${messageOf(error)}`;
    throw new ReplaybdError('ERR_FILE_READ', message, { cause: error });
  }
}

/**
 * Writes what a ZFile, in a tar or not, holds: `overlaybd-zfile -x`. A stream is kept in a file
 * without a name beside the target first. Errors: ERR_ZFILE_*.
 */
export async function extractZFile(
  source: string | Readable,
  target: string,
  options: ZFileOptions & OutputFileOptions,
): Promise<ZFileFacts> {
  return await writeOutputFile(target, options, (file) =>
    withFile(source, dirname(target), options, (path) => extractInto(file, path, options)),
  );
}

async function extractInto(
  file: FileHandle,
  source: string,
  options: ZFileOptions,
): Promise<ZFileFacts> {
  const sink = new BufferedSink(new FileSink(file));
  try {
    const facts = await decodeAll(source, options, (bytes) => sink.write(bytes));
    await sink.flush();
    return facts;
  } finally {
    await sink.settle();
  }
}

/** Decodes every block and checks its CRC: `overlaybd-zfile --verify`. Errors: ERR_ZFILE_*. */
export async function verifyZFile(
  source: string | Readable,
  options: ZFileOptions,
): Promise<ZFileFacts> {
  return await withFile(source, tmpdir(), options, (path) =>
    decodeAll(path, options, async () => undefined),
  );
}

/** A ZFile is read from both of its ends, so a stream has to become a file. */
async function withFile<T>(
  source: string | Readable,
  folder: string,
  { signal }: ZFileOptions,
  work: (path: string) => Promise<T>,
): Promise<T> {
  if (typeof source === 'string') return await work(source);
  using scratch = openScratchFile(folder, `.replaybd-zfile-${process.pid}`);
  const file = await open(scratch.path, 'r+');
  try {
    const sink = new FileSink(file);
    for await (const chunk of chunksOf(source, signal)) await sink.write(chunk);
  } finally {
    await file.close();
  }
  return await work(scratch.path);
}

async function decodeAll(
  source: string,
  { onProgress, signal }: ZFileOptions,
  use: (bytes: Uint8Array) => Promise<void>,
): Promise<ZFileFacts> {
  const blob = await openLocalBlob(source);
  try {
    const { facts, bytes } = await openLayerBlob(blob);
    if (facts.zfile === null) {
      throw new ReplaybdError(
        'ERR_ZFILE_MAGIC',
        `${source}: expected a ZFile, in a tar or not, found something else.`,
      );
    }
    for (let at = 0; at < bytes.sizeBytes; at += CHUNK_BYTES) {
      signal?.throwIfAborted();
      const chunk = await bytes.read(at, Math.min(CHUNK_BYTES, bytes.sizeBytes - at));
      await use(chunk);
      onProgress?.(at + chunk.length);
      // Decoding answers at once: without this no signal would arrive.
      await new Promise((resolve) => setImmediate(resolve));
    }
    return facts.zfile;
  } finally {
    await blob.close();
  }
}
