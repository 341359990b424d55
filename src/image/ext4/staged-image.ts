import { closeSync, fstatSync, openSync, readSync, writeSync } from 'node:fs';
import { EXT4_BLOCK_BYTES } from '../../../native/ext2fs.ts';
import type { Ext2Image } from '../../../native/ext2fs-io.ts';
import { ReplaybdError } from '../../base/errors.ts';
import { ext4Limits } from '../../base/limits.ts';
import { mergeRanges, rangeEnd, type ByteRange } from '../../base/range.ts';

/** What a commit writes at a time. */
const RUN_BLOCKS_MAX = 256;

/** A disk image in a file, closed when its scope ends. */
export class ImageFile implements Ext2Image, Disposable {
  readonly sizeBytes: number;
  readonly #fd: number;
  readonly #path: string;

  constructor(path: string) {
    this.#path = path;
    this.#fd = openSync(path, 'r+');
    this.sizeBytes = fstatSync(this.#fd).size;
  }

  read(position: number, into: Buffer): void {
    let done = 0;
    while (done < into.length) {
      const count = readSync(this.#fd, into, done, into.length - done, position + done);
      if (count === 0) {
        throw new ReplaybdError(
          'ERR_EXT4_SIZE',
          `${this.#path}: became shorter than ${this.sizeBytes} bytes while it was used.`,
        );
      }
      done += count;
    }
  }

  write(position: number, bytes: Buffer): void {
    let done = 0;
    while (done < bytes.length) {
      done += writeSync(this.#fd, bytes, done, bytes.length - done, position + done);
    }
  }

  [Symbol.dispose](): void {
    closeSync(this.#fd);
  }
}

/**
 * Keeps what libext2fs writes in memory until `commit`, so that an image is what it was if that never
 * comes. File content goes past it, to blocks that the file system on disk does not use:
 *
 *   metadata -> staged blocks -> commit (only blocks that differ)
 *   content  ------------------> image
 */
export class StagedImage implements Ext2Image {
  readonly sizeBytes: number;
  readonly #image: Ext2Image;
  readonly #staged = new Map<number, Buffer>();
  readonly #written: ByteRange[] = [];

  constructor(image: Ext2Image) {
    this.#image = image;
    this.sizeBytes = image.sizeBytes;
  }

  read(position: number, into: Buffer): void {
    const { first, end } = blocksOf(position, into.length);
    for (let block = first; block < end; block += 1) {
      const staged = this.#staged.get(block);
      const { from, length, at } = overlap(block, position, into.length);
      if (staged !== undefined) staged.copy(into, at, from, from + length);
      else this.#image.read(position + at, into.subarray(at, at + length));
    }
  }

  write(position: number, bytes: Buffer): void {
    const { first, end } = blocksOf(position, bytes.length);
    for (let block = first; block < end; block += 1) {
      const { from, length, at } = overlap(block, position, bytes.length);
      bytes.copy(this.#stage(block, length === EXT4_BLOCK_BYTES), from, at, at + length);
    }
  }

  /** Writes whole blocks at once. */
  writeContent(position: number, bytes: Buffer): void {
    const { first, end } = blocksOf(position, bytes.length);
    if (this.#staged.size > 0) {
      for (let block = first; block < end; block += 1) this.#staged.delete(block);
    }
    this.#image.write(position, bytes);
    this.#note(position, bytes.length);
  }

  /** Writes what was staged and differs; returns every range that was written since the start. */
  commit(): ByteRange[] {
    const blocks = [...this.#staged.keys()].sort((a, b) => a - b);
    const present = Buffer.alloc(EXT4_BLOCK_BYTES);
    const run = Buffer.alloc(RUN_BLOCKS_MAX * EXT4_BLOCK_BYTES);
    let runStart = 0;
    let runBlocks = 0;
    const flush = () => {
      if (runBlocks === 0) return;
      const length = runBlocks * EXT4_BLOCK_BYTES;
      this.#image.write(runStart * EXT4_BLOCK_BYTES, run.subarray(0, length));
      this.#note(runStart * EXT4_BLOCK_BYTES, length);
      runBlocks = 0;
    };
    for (const block of blocks) {
      const staged = this.#staged.get(block);
      if (staged === undefined) continue;
      this.#image.read(block * EXT4_BLOCK_BYTES, present);
      if (staged.equals(present)) continue;
      if (runBlocks === RUN_BLOCKS_MAX || block !== runStart + runBlocks) flush();
      if (runBlocks === 0) runStart = block;
      staged.copy(run, runBlocks * EXT4_BLOCK_BYTES);
      runBlocks += 1;
    }
    flush();
    this.#staged.clear();
    return mergeRanges(this.#written);
  }

  #stage(block: number, isWhole: boolean): Buffer {
    const known = this.#staged.get(block);
    if (known !== undefined) return known;
    if (this.#staged.size === ext4Limits.stagedBlocksMax) {
      throw new ReplaybdError(
        'ERR_EXT4_STAGED',
        `ext4: more than ${ext4Limits.stagedBlocksMax} blocks of metadata would change at once. ` +
          'Apply the content in smaller parts.',
      );
    }
    const bytes = Buffer.allocUnsafeSlow(EXT4_BLOCK_BYTES);
    if (!isWhole) this.#image.read(block * EXT4_BLOCK_BYTES, bytes);
    this.#staged.set(block, bytes);
    return bytes;
  }

  #note(offset: number, length: number): void {
    const last = this.#written.at(-1);
    if (last !== undefined && rangeEnd(last) === offset) last.length += length;
    else this.#written.push({ offset, length });
  }
}

function blocksOf(position: number, length: number): { first: number; end: number } {
  return {
    first: Math.floor(position / EXT4_BLOCK_BYTES),
    end: Math.ceil((position + length) / EXT4_BLOCK_BYTES),
  };
}

/** The part of a block that a range covers: from where in the block, where in the range. */
function overlap(
  block: number,
  position: number,
  length: number,
): { from: number; length: number; at: number } {
  const start = block * EXT4_BLOCK_BYTES;
  const from = Math.max(0, position - start);
  const end = Math.min(EXT4_BLOCK_BYTES, position + length - start);
  return { from, length: end - from, at: start + from - position };
}
