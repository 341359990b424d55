import assert from 'node:assert/strict';
import { lsmtLimits, SECTOR_BYTES } from '../../base/limits.ts';
import { ReplaybdError } from '../../base/errors.ts';
import type { ByteSink } from '../byte-sink.ts';
import {
  LSMT_BLOCK_BYTES,
  LSMT_DATA_SECTOR,
  LSMT_ENTRY_BYTES,
  LSMT_PADDING_LBA,
  serializeLsmtBlock,
} from './format.ts';
import { encodeEntry, type LsmtEntry } from './index-entries.ts';

/** A piece of the disk that a layer has: zeros, or data. */
export type LsmtExtent = { lba: number; sectors: number; tag?: number } & (
  { zeroed: true } | { zeroed?: false; data: Uint8Array }
);

export interface LsmtWriterOptions {
  virtualSizeBytes: number;
  uuid?: string | null;
  parentUuid?: string | null;
  /** The commit message, at most 256 bytes of UTF-8. */
  userTag?: string;
}

/** What was written. */
export interface LsmtWritten {
  sizeBytes: number;
  /** Without padding. */
  entries: number;
  dataSectors: number;
}

/** The original copies data in pieces of 32 KiB, which decides how entries join. */
export const LSMT_PIECE_SECTORS = 64;
const ENTRY_WORDS = LSMT_ENTRY_BYTES / 4;
const ENTRIES_A_PAGE = LSMT_BLOCK_BYTES / LSMT_ENTRY_BYTES;

/**
 * Writes a committed layer, byte for byte what the original's `compact` writes for an index of the
 * same entries (file.cpp:289-453). Extents come in LBA order and do not overlap; one that is longer
 * than an index entry can say is cut. Data may be reused once the next extent is asked for.
 * Errors: ERR_LSMT_ENTRIES when the original could not open the result, ERR_LSMT_UUID, ERR_LSMT_TAG.
 */
export async function writeCommittedLayer(
  sink: ByteSink,
  options: LsmtWriterOptions,
  extents: AsyncIterable<LsmtExtent> | Iterable<LsmtExtent>,
): Promise<LsmtWritten> {
  const block = {
    isHeader: true,
    isData: true,
    isSealed: true,
    isSparse: false,
    indexOffset: 0,
    indexCount: 0,
    virtualSizeBytes: options.virtualSizeBytes,
    uuid: options.uuid ?? null,
    parentUuid: options.parentUuid ?? null,
    userTag: options.userTag ?? '',
  };
  await sink.write(serializeLsmtBlock(block));

  const index = new IndexBuilder();
  let sector = LSMT_DATA_SECTOR;
  let previousEnd = 0;
  for await (const extent of extents) {
    const { lba, sectors } = extent;
    assert(sectors > 0 && lba >= previousEnd, 'extents come in LBA order and do not overlap');
    assert(lba + sectors < LSMT_PADDING_LBA, 'an LBA has 50 bits');
    previousEnd = lba + sectors;
    if (extent.zeroed) {
      index.addZeroed(lba, sectors, sector, extent.tag ?? 0);
      continue;
    }
    assert.equal(extent.data.length, sectors * SECTOR_BYTES);
    await sink.write(extent.data);
    index.addData(lba, sectors, sector, extent.tag ?? 0);
    sector += sectors;
  }

  const indexBytes = index.finish();
  await sink.write(indexBytes);
  const indexOffset = sector * SECTOR_BYTES;
  const indexCount = indexBytes.length / LSMT_ENTRY_BYTES;
  await sink.write(serializeLsmtBlock({ ...block, isHeader: false, indexOffset, indexCount }));
  return {
    sizeBytes: indexOffset + indexBytes.length + LSMT_BLOCK_BYTES,
    entries: index.count,
    dataSectors: sector - LSMT_DATA_SECTOR,
  };
}

/** Collects entries and joins neighbours under the original's rule. */
class IndexBuilder {
  #words = new Uint32Array(ENTRIES_A_PAGE * ENTRY_WORDS);
  #count = 0;
  #last: LsmtEntry | null = null;

  get count(): number {
    return this.#count;
  }

  addData(lba: number, sectors: number, mapped: number, tag: number): void {
    for (let done = 0; done < sectors; done += LSMT_PIECE_SECTORS) {
      const piece = Math.min(LSMT_PIECE_SECTORS, sectors - done);
      this.#add({ lba: lba + done, sectors: piece, mapped: mapped + done, zeroed: false, tag });
    }
  }

  addZeroed(lba: number, sectors: number, mapped: number, tag: number): void {
    const stepMax = lsmtLimits.segmentSectorsMax;
    for (let done = 0; done < sectors; done += stepMax) {
      const piece = Math.min(stepMax, sectors - done);
      this.#add({ lba: lba + done, sectors: piece, mapped, zeroed: true, tag });
    }
  }

  /** The index bytes, padded to whole pages. */
  finish(): Uint8Array {
    this.#flush();
    const padded = Math.ceil(this.#count / ENTRIES_A_PAGE) * ENTRIES_A_PAGE;
    this.#reserve(padded);
    const padding = { lba: LSMT_PADDING_LBA, sectors: 0, mapped: 0, zeroed: false, tag: 0 };
    for (let entry = this.#count; entry < padded; entry += 1) {
      encodeEntry(padding, this.#words, entry * ENTRY_WORDS);
    }
    return new Uint8Array(this.#words.buffer, 0, padded * LSMT_ENTRY_BYTES);
  }

  #add(entry: LsmtEntry): void {
    const last = this.#last;
    if (last !== null && canJoin(last, entry)) {
      last.sectors += entry.sectors;
    } else {
      this.#flush();
      this.#last = entry;
    }
  }

  #flush(): void {
    if (this.#last === null) return;
    if (this.#count === lsmtLimits.entriesWrittenMax) {
      throw new ReplaybdError(
        'ERR_LSMT_ENTRIES',
        `layer index: expected at most ${lsmtLimits.entriesWrittenMax} entries, which is what the ` +
          'original opens, found more. Commit the changes as several layers.',
      );
    }
    this.#reserve(this.#count + 1);
    encodeEntry(this.#last, this.#words, this.#count * ENTRY_WORDS);
    this.#count += 1;
    this.#last = null;
  }

  #reserve(entries: number): void {
    if (entries * ENTRY_WORDS <= this.#words.length) return;
    const larger = new Uint32Array(Math.max(entries * ENTRY_WORDS, this.#words.length * 2));
    larger.set(this.#words);
    this.#words = larger;
  }
}

/** The original's `coalesce`: a joined entry stays shorter than 16383 sectors. */
function canJoin(last: LsmtEntry, next: LsmtEntry): boolean {
  const mappedEnd = last.zeroed ? last.mapped : last.mapped + last.sectors;
  return (
    last.lba + last.sectors === next.lba &&
    mappedEnd === next.mapped &&
    last.zeroed === next.zeroed &&
    last.tag === next.tag &&
    last.sectors + next.sectors < lsmtLimits.segmentSectorsMax
  );
}
