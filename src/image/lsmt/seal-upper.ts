import type { FileHandle } from 'node:fs/promises';
import { ReplaybdError } from '../../base/errors.ts';
import { lsmtLimits, SECTOR_BYTES } from '../../base/limits.ts';
import {
  LSMT_BLOCK_BYTES,
  LSMT_ENTRY_BYTES,
  hasLsmtMagic,
  parseLsmtBlock,
  serializeLsmtBlock,
} from './format.ts';
import { encodeEntry, type LsmtEntryColumns } from './index-entries.ts';

const ENTRY_WORDS = LSMT_ENTRY_BYTES / 4;

/**
 * Puts an index and a trailer behind the data of a writable layer's data file, which ends at
 * `dataEndBytes`: it then is a read-only layer, byte for byte as `overlaybd-commit --seal` makes it,
 * where that is defined (file.cpp:953-987; what is random there is zero here). Whatever was behind
 * `dataEndBytes` is replaced, so that an interrupted sealing can be done again. Durable when it
 * returns. ERR_LSMT_ENTRIES when nobody could open the result.
 */
export async function appendSeal(
  data: FileHandle,
  name: string,
  dataEndBytes: number,
  entries: LsmtEntryColumns,
): Promise<void> {
  if (entries.count > lsmtLimits.entriesMax) {
    throw new ReplaybdError(
      'ERR_LSMT_ENTRIES',
      `${name}: expected at most ${lsmtLimits.entriesMax} entries, found ${entries.count}. ` +
        'Commit the layer instead of sealing it.',
      { errno: 'EINVAL' },
    );
  }
  const header = await readHeader(data, name);
  const indexBytes = indexOf(entries);
  const trailer = serializeLsmtBlock({
    ...header,
    isHeader: false,
    isSealed: true,
    indexOffset: dataEndBytes,
    indexCount: entries.count,
    userTag: '',
  });
  await data.truncate(dataEndBytes);
  let position = dataEndBytes;
  for (const bytes of [indexBytes, trailer]) {
    for (let done = 0; done < bytes.length;) {
      const left = bytes.length - done;
      done += (await data.write(bytes, done, left, position + done)).bytesWritten;
    }
    position += bytes.length;
  }
  await data.sync();
}

/** Whether a data file ends with a trailer of its own: it was sealed. */
export async function isSealed(
  data: FileHandle,
  name: string,
  sizeBytes: number,
): Promise<boolean> {
  if (sizeBytes < 2 * LSMT_BLOCK_BYTES) return false;
  const bytes = new Uint8Array(LSMT_BLOCK_BYTES);
  await data.read(bytes, 0, LSMT_BLOCK_BYTES, sizeBytes - LSMT_BLOCK_BYTES);
  if (!hasLsmtMagic(bytes)) return false;
  const trailer = parseLsmtBlock(bytes, name, 'LSMT trailer');
  const header = await readHeader(data, name);
  // A guest may have written somebody else's layer to its disk.
  const isOwn = trailer.uuid === header.uuid && trailer.isSparse === header.isSparse;
  const end = trailer.indexOffset + sectorBytes(trailer.indexCount * LSMT_ENTRY_BYTES);
  return isOwn && trailer.isSealed && !trailer.isHeader && end === sizeBytes - LSMT_BLOCK_BYTES;
}

function sectorBytes(bytes: number): number {
  return Math.ceil(bytes / SECTOR_BYTES) * SECTOR_BYTES;
}

async function readHeader(data: FileHandle, name: string) {
  const bytes = new Uint8Array(LSMT_BLOCK_BYTES);
  const { bytesRead } = await data.read(bytes, 0, LSMT_BLOCK_BYTES, 0);
  return parseLsmtBlock(bytes.subarray(0, bytesRead), name, 'LSMT header');
}

/** Entries as they are stored, padded with zeros to whole sectors. */
function indexOf(entries: LsmtEntryColumns): Uint8Array {
  const bytes = new Uint8Array(sectorBytes(entries.count * LSMT_ENTRY_BYTES));
  const words = new Uint32Array(bytes.buffer);
  for (let row = 0; row < entries.count; row += 1) {
    const entry = {
      lba: entries.start[row],
      sectors: entries.sectors[row],
      mapped: entries.mapped[row],
      zeroed: entries.zeroed[row] === 1,
      tag: 0,
    };
    encodeEntry(entry, words, row * ENTRY_WORDS);
  }
  return bytes;
}
