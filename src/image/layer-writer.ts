import type { FileHandle } from 'node:fs/promises';
import { BufferedSink, FileSink, type ByteSink, type PatchableSink } from './byte-sink.ts';
import {
  writeCommittedLayer,
  type LsmtExtent,
  type LsmtWriterOptions,
  type LsmtWritten,
} from './lsmt/writer.ts';
import { TarWrapperSink } from './tar-wrapper.ts';
import { ZFileWriter, type WrittenZFile, type ZFileWriterOptions } from './zfile/writer.ts';

/** How a layer is packed: LSMT, in a ZFile unless that is null, in a tar if so asked. */
export interface LayerPacking {
  zfile: ZFileWriterOptions | null;
  tar: boolean;
}

/** Called with the bytes of the LSMT file so far; what it throws ends the writing. */
export type LayerWatcher = (bytes: number) => void;

export interface WrittenLayer {
  /** Of the whole file. */
  sizeBytes: number;
  lsmt: LsmtWritten;
  /** Null for a layer that is not compressed. */
  zfile: WrittenZFile | null;
}

/**
 * Writes extents as a layer to an empty file. Reading, compressing and writing overlap.
 * Errors: those of writeCommittedLayer and ZFileWriter, and of the extents.
 */
export async function writeLayer(
  file: FileHandle,
  packing: LayerPacking,
  options: LsmtWriterOptions,
  extents: Extents,
  watcher: LayerWatcher = () => undefined,
): Promise<WrittenLayer> {
  const plain = new FileSink(file);
  const tar = packing.tar ? new TarWrapperSink(plain) : null;
  const payload = tar ?? plain;
  const { lsmt, zfile } =
    packing.zfile === null
      ? await writePlain(payload, options, extents, watcher)
      : await writeCompressed(payload, packing.zfile, options, extents, watcher);
  await tar?.finish();
  return { sizeBytes: plain.bytesWritten, lsmt, zfile };
}

// The caller closes the file after a failure: its number may be used again, but not under a write.

type Written = Pick<WrittenLayer, 'lsmt' | 'zfile'>;
type Extents = AsyncIterable<LsmtExtent> | Iterable<LsmtExtent>;

async function writePlain(
  sink: PatchableSink,
  options: LsmtWriterOptions,
  extents: Extents,
  watcher: LayerWatcher,
): Promise<Written> {
  const buffered = new BufferedSink(sink);
  try {
    const lsmt = await writeCommittedLayer(watched(buffered, watcher), options, extents);
    await buffered.flush();
    return { lsmt, zfile: null };
  } finally {
    await buffered.settle();
  }
}

async function writeCompressed(
  sink: PatchableSink,
  coding: ZFileWriterOptions,
  options: LsmtWriterOptions,
  extents: Extents,
  watcher: LayerWatcher,
): Promise<Written> {
  const writer = new ZFileWriter(sink, coding);
  try {
    const lsmt = await writeCommittedLayer(watched(writer, watcher), options, extents);
    return { lsmt, zfile: await writer.finish() };
  } finally {
    await writer.settle();
  }
}

function watched(sink: ByteSink, watcher: LayerWatcher): ByteSink {
  let written = 0;
  return {
    write: (bytes) => {
      written += bytes.length;
      watcher(written);
      return sink.write(bytes);
    },
  };
}
