import assert from 'node:assert';
import { blockCodec, type BlockCodec } from '../../../native/codecs.ts';
import { crc32cRaw } from '../../base/crc32c.ts';
import { ReplaybdError } from '../../base/errors.ts';
import { zfileLimits } from '../../base/limits.ts';
import type { ByteSink, PatchableSink } from '../byte-sink.ts';
import {
  algorithms,
  BLOCK_CRC_BYTES,
  BLOCK_CRC_SEED,
  isBlockSize,
  JUMP_ENTRY_BYTES,
  RECORD_BYTES,
  serialiseRecord,
  type ZFileAlgorithm,
  type ZFileRecord,
} from './format.ts';

export interface ZFileWriterOptions {
  /** Default 'lz4'. */
  algorithm?: ZFileAlgorithm;
  /** A power of two, 4 to 64 KiB; default 4 KiB. */
  blockBytes?: number;
  /** A CRC after every block; default true. */
  blockCrc?: boolean;
  /** Rewrite the header at the end so that readers need no trailer; default true. */
  overwriteHeader?: boolean;
  /** The system's codec by default, whose bytes are the original's own. */
  codec?: BlockCodec;
}

export interface WrittenZFile {
  readonly storedBytes: number;
  readonly originalBytes: number;
  readonly blockCount: number;
}

/** Compressed bytes that gather before they go to the sink. */
const OUTPUT_BYTES = 512 * 1024;
const JUMP_TABLE_START_ENTRIES = 4096;

/**
 * Compresses a stream into a ZFile. Writes may have any size; blocks are cut from the stream, so
 * only the last can be short. With the system's codecs the bytes are those the original's
 * `overlaybd-zfile` and `overlaybd-commit -z` write for the same options.
 */
export class ZFileWriter implements ByteSink {
  readonly #sink: PatchableSink;
  readonly #blockBytes: number;
  readonly #hasBlockCrc: boolean;
  readonly #overwriteHeader: boolean;
  readonly #algorithm: ZFileAlgorithm;
  readonly #codec: BlockCodec;
  /** Input that does not fill a block yet. */
  readonly #pending: Buffer;
  #pendingBytes = 0;
  readonly #output = Buffer.alloc(OUTPUT_BYTES);
  #outputBytes = 0;
  #jumpTable = new Uint32Array(JUMP_TABLE_START_ENTRIES);
  #blockCount = 0;
  #originalBytes = 0;
  #storedBytes = 0;
  #isFinished = false;

  constructor(sink: PatchableSink, options: ZFileWriterOptions = {}) {
    const { algorithm = 'lz4', blockBytes = zfileLimits.blockBytesMin } = options;
    const { blockBytesMin, blockBytesMax } = zfileLimits;
    if (!isBlockSize(blockBytes)) {
      throw new ReplaybdError(
        'ERR_ZFILE_BLOCK_SIZE',
        `block size: expected a power of two from ${blockBytesMin} to ${blockBytesMax}, ` +
          `found ${blockBytes}`,
        { errno: 'EINVAL' },
      );
    }
    this.#sink = sink;
    this.#algorithm = algorithm;
    this.#blockBytes = blockBytes;
    this.#hasBlockCrc = options.blockCrc ?? true;
    this.#overwriteHeader = options.overwriteHeader ?? true;
    this.#codec = options.codec ?? blockCodec(algorithm);
    this.#pending = Buffer.alloc(blockBytes);
    this.#append(serialiseRecord(this.#record('header')));
  }

  async write(bytes: Uint8Array): Promise<void> {
    assert(!this.#isFinished, 'a finished ZFile takes no more bytes');
    this.#originalBytes += bytes.length;
    let taken = 0;
    if (this.#pendingBytes > 0) {
      taken = Math.min(this.#blockBytes - this.#pendingBytes, bytes.length);
      this.#hold(bytes.subarray(0, taken));
      if (this.#pendingBytes < this.#blockBytes) return;
      this.#pendingBytes = 0;
      await this.#compress(this.#pending);
    }
    while (bytes.length - taken >= this.#blockBytes) {
      await this.#compress(bytes.subarray(taken, taken + this.#blockBytes));
      taken += this.#blockBytes;
    }
    this.#hold(bytes.subarray(taken));
  }

  /** Writes the last block, the jump table and the trailer, and rewrites the header if so asked. */
  async finish(): Promise<WrittenZFile> {
    assert(!this.#isFinished, 'a ZFile is finished once');
    if (this.#pendingBytes > 0) await this.#compress(this.#pending.subarray(0, this.#pendingBytes));
    this.#isFinished = true;
    await this.#flush();
    const jumpTableOffset = this.#storedBytes;
    const table = Buffer.from(this.#jumpTable.buffer, 0, this.#blockCount * JUMP_ENTRY_BYTES);
    const final = { jumpTableOffset, jumpTableCrc: crc32cRaw(0, table) };
    await this.#sink.write(table);
    await this.#sink.write(serialiseRecord({ ...this.#record('trailer'), ...final }));
    this.#storedBytes += table.length + RECORD_BYTES;
    if (this.#overwriteHeader) {
      const header = { ...this.#record('header'), ...final, isOverwritten: true };
      await this.#sink.patch(0, serialiseRecord(header));
    }
    return {
      storedBytes: this.#storedBytes,
      originalBytes: this.#originalBytes,
      blockCount: this.#blockCount,
    };
  }

  #hold(bytes: Uint8Array): void {
    this.#pending.set(bytes, this.#pendingBytes);
    this.#pendingBytes += bytes.length;
  }

  async #compress(plain: Uint8Array): Promise<void> {
    const room = this.#blockBytes + zfileLimits.expansionBytesMax;
    if (this.#outputBytes + room + BLOCK_CRC_BYTES > this.#output.length) await this.#flush();
    const at = this.#outputBytes;
    const encodedBytes = this.#codec.compress(plain, this.#output.subarray(at, at + room));
    if (encodedBytes < 0) {
      throw new ReplaybdError(
        'ERR_ZFILE_COMPRESS',
        `block ${this.#blockCount}: ${this.#algorithm} needs more than ${room} bytes for it`,
      );
    }
    this.#outputBytes += encodedBytes;
    if (this.#hasBlockCrc) {
      const crc = crc32cRaw(BLOCK_CRC_SEED, this.#output.subarray(at, at + encodedBytes));
      this.#output.writeUInt32LE(crc, this.#outputBytes);
      this.#outputBytes += BLOCK_CRC_BYTES;
    }
    this.#addEntry(this.#outputBytes - at);
  }

  #addEntry(storedBytes: number): void {
    assert(this.#blockCount < zfileLimits.blocksMax);
    if (this.#blockCount === this.#jumpTable.length) {
      const larger = new Uint32Array(this.#jumpTable.length * 2);
      larger.set(this.#jumpTable);
      this.#jumpTable = larger;
    }
    this.#jumpTable[this.#blockCount] = storedBytes;
    this.#blockCount += 1;
  }

  #append(bytes: Uint8Array): void {
    this.#output.set(bytes, this.#outputBytes);
    this.#outputBytes += bytes.length;
  }

  async #flush(): Promise<void> {
    if (this.#outputBytes === 0) return;
    await this.#sink.write(this.#output.subarray(0, this.#outputBytes));
    this.#storedBytes += this.#outputBytes;
    this.#outputBytes = 0;
  }

  /** A record of what is known so far; the first header is written before anything is. */
  #record(kind: 'header' | 'trailer'): ZFileRecord {
    return {
      isHeader: kind === 'header',
      isData: true,
      isSealed: kind === 'trailer',
      isOverwritten: false,
      hasDigest: true,
      hasCompressedTable: false,
      jumpTableOffset: 0,
      blockCount: this.#blockCount,
      originalBytes: this.#originalBytes,
      jumpTableCrc: 0,
      blockBytes: this.#blockBytes,
      algorithm: algorithms[this.#algorithm],
      dictionaryBytes: 0,
      hasBlockCrc: this.#hasBlockCrc,
    };
  }
}
