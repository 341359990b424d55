import { createExt4 } from '../../image/ext4/build.ts';
import { changedExtents } from '../../image/build/changed-extents.ts';
import { openScratchFile } from '../../image/build/scratch-file.ts';
import { openFileBytes } from '../../image/file-bytes.ts';
import type { LsmtExtent } from '../../image/lsmt/writer.ts';
import { inputBytes, STANDARD_INPUT } from '../../image/tar/input.ts';
import { withoutZeroBlocks } from '../../image/tools/zero-blocks.ts';
import { EXT4_BLOCK_BYTES } from '../../../native/ext2fs.ts';
import { ReplaybdError } from '../../base/errors.ts';
import { SECTOR_BYTES } from '../../base/limits.ts';
import { stat } from 'node:fs/promises';
import { dirname } from 'node:path';
import type { DeviceWriter } from '../block-device.ts';
import type { WritableDevice } from '../writable-device.ts';

export interface WriteDiskOptions {
  onProgress?: ((bytes: number) => void) | undefined;
  signal?: AbortSignal | undefined;
}

const CHUNK_BYTES = 1024 * 1024;

/**
 * Writes a disk's bytes - from a file, a FIFO or, for `-`, standard input - to a device as they are;
 * returns how many. Zeros hide what is below, without being stored. What lies behind the input's end
 * stays. Nothing is flushed. Errors: ERR_APPLY_SIZE when the input is larger than the device,
 * ERR_INPUT_READ, and those of the device.
 */
export async function writeRaw(
  device: WritableDevice,
  input: string,
  options: WriteDiskOptions = {},
): Promise<number> {
  const { signal } = options;
  const file = input === STANDARD_INPUT ? null : await stat(input).catch(() => null);
  // Only such a file is known to have holes that need not be read.
  if (file?.isFile() !== true || file.size % EXT4_BLOCK_BYTES !== 0) {
    const chunks = new SectorChunks(input, device.virtualSizeBytes);
    const extents = withoutZeroBlocks(chunks.extents(signal), 'holes');
    return await writeExtents(device, extents, () => chunks.sizeBytes, options);
  }
  checkSize(input, file.size, device.virtualSizeBytes);
  const bytes = await openFileBytes(input);
  try {
    const extents = changedExtents({ fd: bytes.fd, path: input }, null, file.size, signal);
    return await writeExtents(device, extents, () => file.size, options);
  } finally {
    await bytes.close();
  }
}

/**
 * Makes an empty ext4 file system on a device, whatever it had. Nothing is flushed. Errors: those of
 * createExt4 and of the device.
 */
export async function makeFileSystem(
  device: WritableDevice,
  options: WriteDiskOptions = {},
): Promise<void> {
  const { virtualSizeBytes, upper } = device;
  const { signal } = options;
  using disk = openScratchFile(dirname(upper.paths.data), `.replaybd-mkfs-${process.pid}`);
  await createExt4(disk.path, { virtualSizeBytes, signal });
  const extents = changedExtents(disk, null, virtualSizeBytes, signal);
  await writeExtents(device, extents, () => virtualSizeBytes, options);
}

/** Writes extents, and zeros to what lies between them and before `sizeBytes`, which is known at
 * their end. */
async function writeExtents(
  device: WritableDevice,
  extents: AsyncIterable<LsmtExtent>,
  sizeBytes: () => number,
  { onProgress, signal }: WriteDiskOptions,
): Promise<number> {
  const { writer } = device;
  let end = 0;
  for await (const extent of extents) {
    signal?.throwIfAborted();
    if (extent.zeroed) continue;
    const offset = extent.lba * SECTOR_BYTES;
    await clear(device, writer, end, offset - end);
    await writer.write(offset, extent.data, false);
    end = offset + extent.data.length;
    onProgress?.(end);
  }
  const size = sizeBytes();
  await clear(device, writer, end, size - end);
  return size;
}

/** Has a range read as zeros; what does so already is left alone. */
async function clear(
  device: WritableDevice,
  writer: DeviceWriter,
  offset: number,
  length: number,
): Promise<void> {
  const end = offset + length;
  for (let position = offset; position < end;) {
    const extents = device.extents(position, end - position);
    for (const extent of extents) {
      if (!extent.zero) await writer.discard(extent.offset, extent.length);
      position = extent.offset + extent.length;
    }
  }
}

/** An input of unknown length, in whole sectors. */
class SectorChunks {
  /** As far as it was read, filled up to whole sectors. */
  sizeBytes = 0;
  readonly #input: string;
  readonly #sizeBytesMax: number;
  readonly #chunk = Buffer.alloc(CHUNK_BYTES);
  #filled = 0;

  constructor(input: string, sizeBytesMax: number) {
    this.#input = input;
    this.#sizeBytesMax = sizeBytesMax;
  }

  async *extents(signal?: AbortSignal): AsyncGenerator<LsmtExtent> {
    for await (const bytes of inputBytes(this.#input, signal)) {
      for (let done = 0; done < bytes.length;) {
        const length = Math.min(bytes.length - done, CHUNK_BYTES - this.#filled);
        bytes.copy(this.#chunk, this.#filled, done, done + length);
        this.#filled += length;
        done += length;
        if (this.#filled === CHUNK_BYTES) yield this.#take();
      }
    }
    if (this.#filled > 0) yield this.#take();
  }

  #take(): LsmtExtent {
    const length = Math.ceil(this.#filled / SECTOR_BYTES) * SECTOR_BYTES;
    const data = this.#chunk.fill(0, this.#filled, length).subarray(0, length);
    const lba = this.sizeBytes / SECTOR_BYTES;
    this.sizeBytes += length;
    checkSize(this.#input, this.sizeBytes, this.#sizeBytesMax);
    this.#filled = 0;
    return { lba, sectors: length / SECTOR_BYTES, data };
  }
}

function checkSize(input: string, sizeBytes: number, sizeBytesMax: number): void {
  if (sizeBytes <= sizeBytesMax) return;
  throw new ReplaybdError(
    'ERR_APPLY_SIZE',
    `${input}: expected at most ${sizeBytesMax} bytes, which the device has, found at least ` +
      `${sizeBytes}. Resize the device first.`,
    { errno: 'ENOSPC' },
  );
}
