import assert from 'node:assert';
import { availableParallelism } from 'node:os';
import {
  createBlockCompressor,
  type BlockBatch,
  type BlockCompressor,
} from '../../../native/block-compressor.ts';
import type { BlockCodec } from '../../../native/codecs.ts';
import { crc32cRaw } from '../../base/crc32c.ts';
import { ReplaybdError } from '../../base/errors.ts';
import { zfileLimits } from '../../base/limits.ts';
import type { ByteSink, PatchableSink } from '../byte-sink.ts';
import {
  algorithms,
  isBlockSize,
  JUMP_ENTRY_BYTES,
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
  /**
   * Threads that compress at the same time; default one a processor, up to 4. The bytes are the same
   * for any number. Node's pool bounds it: 4, unless UV_THREADPOOL_SIZE says more.
   */
  threads?: number;
  /** The system's codec by default, whose bytes are the original's own. */
  codec?: BlockCodec;
}

export interface WrittenZFile {
  readonly storedBytes: number;
  readonly originalBytes: number;
  readonly blockCount: number;
  /** The longest block as it is stored; the original reads none above ORIGINAL_READS_BYTES_MAX. */
  readonly storedBlockBytesMax: number;
}

/** A stored block longer than this fits no buffer of the original's reader (zfile.cpp:272-649). */
export const ORIGINAL_READS_BYTES_MAX = 65_536;

/** Whole blocks that are compressed at a time: what a processor keeps close at hand. */
const BATCH_BYTES = 512 * 1024;
/** Batches beside those being compressed: one is filled, the others are written. */
const BATCHES_AROUND = 3;
const THREADS_DEFAULT_MAX = 4;
const JUMP_TABLE_START_ENTRIES = 4096;

/**
 * Compresses a stream into a ZFile. Writes may have any size; blocks are cut from the stream, so
 * only the last can be short. With the system's codecs the bytes are those the original's
 * `overlaybd-zfile` and `overlaybd-commit -z` write for the same options.
 *
 *   write -> [ filling ] -> [ compressing | compressing ] -> [ writing, in order ] -> sink
 *
 * A write is done when its bytes are in a batch; what goes wrong behind it, a later call rejects.
 */
export class ZFileWriter implements ByteSink {
  readonly #sink: PatchableSink;
  readonly #blockBytes: number;
  readonly #hasBlockCrc: boolean;
  readonly #overwriteHeader: boolean;
  readonly #algorithm: ZFileAlgorithm;
  readonly #compressor: BlockCompressor;
  readonly #threads: number;
  /** One a thread: the compression it does, or did last. */
  readonly #compressing: Promise<unknown>[] = [];
  readonly #idle: BlockBatch[] = [];
  #batchCount = 0;
  #submitted = 0;
  #filling: BlockBatch | null = null;
  #filledBytes = 0;
  /** Ends when everything submitted is in the sink. */
  #writing: Promise<void>;
  #failure: { error: unknown } | null = null;
  #wake: () => void = () => undefined;
  #jumpTable = new Uint32Array(JUMP_TABLE_START_ENTRIES);
  #blockCount = 0;
  #storedBlockBytesMax = 0;
  #originalBytes = 0;
  #storedBytes = 0;
  #isFinished = false;

  constructor(sink: PatchableSink, options: ZFileWriterOptions = {}) {
    const { algorithm = 'lz4', blockBytes = zfileLimits.blockBytesMin, codec } = options;
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
    this.#threads = options.threads ?? Math.min(availableParallelism(), THREADS_DEFAULT_MAX);
    assert(this.#threads >= 1);
    const coding = { codec: algorithm, blockBytes, hasBlockCrc: this.#hasBlockCrc };
    this.#compressor = createBlockCompressor(coding, codec);
    const header = serialiseRecord(this.#record('header'));
    this.#writing = this.#store(header).catch((error: unknown) => this.#fail(error));
  }

  async write(bytes: Uint8Array): Promise<void> {
    assert(!this.#isFinished, 'a finished ZFile takes no more bytes');
    this.#originalBytes += bytes.length;
    for (let taken = 0; taken < bytes.length;) {
      this.#throwFailure();
      const batch = (this.#filling ??= this.#idleBatch() ?? (await this.#nextIdleBatch()));
      const length = Math.min(bytes.length - taken, batch.plain.length - this.#filledBytes);
      const isAll = length === bytes.length;
      batch.plain.set(isAll ? bytes : bytes.subarray(taken, taken + length), this.#filledBytes);
      this.#filledBytes += length;
      taken += length;
      if (this.#filledBytes === batch.plain.length) this.#submit(batch);
    }
  }

  /** Writes the last block, the jump table and the trailer, and rewrites the header if so asked. */
  async finish(): Promise<WrittenZFile> {
    assert(!this.#isFinished, 'a ZFile is finished once');
    this.#isFinished = true;
    if (this.#filling !== null) this.#submit(this.#filling);
    await this.settle();
    this.#throwFailure();
    const jumpTableOffset = this.#storedBytes;
    const table = Buffer.from(this.#jumpTable.buffer, 0, this.#blockCount * JUMP_ENTRY_BYTES);
    const final = { jumpTableOffset, jumpTableCrc: crc32cRaw(0, table) };
    await this.#store(table);
    await this.#store(serialiseRecord({ ...this.#record('trailer'), ...final }));
    if (this.#overwriteHeader) {
      const header = { ...this.#record('header'), ...final, isOverwritten: true };
      await this.#sink.patch(0, serialiseRecord(header));
    }
    return {
      storedBytes: this.#storedBytes,
      originalBytes: this.#originalBytes,
      blockCount: this.#blockCount,
      storedBlockBytesMax: this.#storedBlockBytesMax,
    };
  }

  /** Waits until nothing is on its way to the sink any more, whether that went well or not. */
  async settle(): Promise<void> {
    await this.#writing;
  }

  #idleBatch(): BlockBatch | undefined {
    const batch = this.#idle.pop();
    if (batch !== undefined || this.#batchCount === this.#threads + BATCHES_AROUND) return batch;
    this.#batchCount += 1;
    return this.#compressor.makeBatch(BATCH_BYTES);
  }

  async #nextIdleBatch(): Promise<BlockBatch> {
    for (;;) {
      const batch = this.#idleBatch();
      if (batch !== undefined) return batch;
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
      this.#throwFailure();
    }
  }

  #submit(batch: BlockBatch): void {
    const plainBytes = this.#filledBytes;
    this.#filling = null;
    this.#filledBytes = 0;
    const thread = this.#submitted % this.#threads;
    this.#submitted += 1;
    const before = this.#compressing[thread] ?? Promise.resolve();
    const compressing = before.then(() => this.#compressor.compress(batch, plainBytes));
    // What it rejects with is met in its turn to be written.
    this.#compressing[thread] = compressing.catch(() => undefined);
    this.#writing = this.#writeBehind(this.#writing, compressing, batch, plainBytes);
  }

  async #writeBehind(
    before: Promise<void>,
    compressing: Promise<number>,
    batch: BlockBatch,
    plainBytes: number,
  ): Promise<void> {
    try {
      const [storedBytes] = await Promise.all([compressing, before]);
      if (this.#failure === null) {
        if (storedBytes < 0) throw this.#noRoom(this.#blockCount - 1 - storedBytes);
        this.#addEntries(batch.lengths.subarray(0, Math.ceil(plainBytes / this.#blockBytes)));
        await this.#store(batch.stored.subarray(0, storedBytes));
      }
    } catch (error) {
      await before;
      this.#fail(error);
    }
    this.#idle.push(batch);
    this.#wake();
  }

  #noRoom(block: number): ReplaybdError {
    const room = this.#blockBytes + zfileLimits.expansionBytesMax;
    return new ReplaybdError(
      'ERR_ZFILE_COMPRESS',
      `block ${block}: ${this.#algorithm} needs more than ${room} bytes for it`,
    );
  }

  #fail(error: unknown): void {
    this.#failure ??= { error };
  }

  #throwFailure(): void {
    if (this.#failure !== null) throw this.#failure.error;
  }

  #addEntries(lengths: Uint32Array): void {
    const count = this.#blockCount + lengths.length;
    assert(count <= zfileLimits.blocksMax);
    if (count > this.#jumpTable.length) {
      const larger = new Uint32Array(Math.max(this.#jumpTable.length * 2, count));
      larger.set(this.#jumpTable);
      this.#jumpTable = larger;
    }
    this.#jumpTable.set(lengths, this.#blockCount);
    this.#blockCount = count;
    for (const length of lengths) {
      if (length > this.#storedBlockBytesMax) this.#storedBlockBytesMax = length;
    }
  }

  async #store(bytes: Uint8Array): Promise<void> {
    await this.#sink.write(bytes);
    this.#storedBytes += bytes.length;
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
