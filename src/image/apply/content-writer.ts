import { EXT4_BLOCK_BYTES, type FileExtent } from '../../../native/ext2fs.ts';
import { BlockPlacer, type BlockTarget } from '../ext4/block-placer.ts';

const CHUNK_BYTES = 1024 * 1024;
/** From here on, whole blocks go to the image from where they lie. */
const DIRECT_BYTES_MIN = 64 * 1024;

/**
 * Writes one file's content, which comes in pieces of any size, in order. Places are whole blocks, so
 * pieces are put together first, unless they are large and begin with a block:
 *
 *   piece -> [ chunk: whole blocks from #base, #filled bytes ] -> placer -> image
 *        '-------- large, on a block boundary ------------------^
 */
export class ContentWriter {
  readonly #target: BlockTarget;
  readonly #chunk: Buffer;
  #placer: BlockPlacer;
  /** Of the file: where the chunk begins, a block boundary. */
  #base = 0;
  #filled = 0;

  constructor(target: BlockTarget) {
    this.#target = target;
    this.#chunk = Buffer.alloc(CHUNK_BYTES);
    this.#placer = new BlockPlacer(target);
  }

  /** `offset` is at or behind the end of the last piece; zeros between need not be written. */
  write(offset: number, bytes: Buffer): void {
    this.#moveTo(offset);
    let done = 0;
    while (done < bytes.length) {
      const left = bytes.length - done;
      const intoBlock = this.#filled % EXT4_BLOCK_BYTES;
      const isLarge = left >= DIRECT_BYTES_MIN;
      if (isLarge && intoBlock === 0) {
        this.#flush();
        const length = left - (left % EXT4_BLOCK_BYTES);
        this.#placer.place(this.#base / EXT4_BLOCK_BYTES, bytes.subarray(done, done + length));
        this.#base += length;
        done += length;
        continue;
      }
      const room = isLarge ? EXT4_BLOCK_BYTES - intoBlock : CHUNK_BYTES - this.#filled;
      const length = Math.min(left, room);
      bytes.copy(this.#chunk, this.#filled, done, done + length);
      this.#filled += length;
      done += length;
      if (this.#filled === CHUNK_BYTES) this.#flush();
    }
  }

  /** Ends the file; where its content went. The writer is then ready for the next one. */
  finish(): FileExtent[] {
    this.#flush();
    const { extents } = this.#placer;
    this.#placer = new BlockPlacer(this.#target);
    this.#base = 0;
    return extents;
  }

  #moveTo(offset: number): void {
    const gap = offset - this.#base - this.#filled;
    if (gap === 0) return;
    if (this.#filled + gap < CHUNK_BYTES) {
      this.#chunk.fill(0, this.#filled, this.#filled + gap);
      this.#filled += gap;
      return;
    }
    this.#flush();
    const intoBlock = offset % EXT4_BLOCK_BYTES;
    this.#base = offset - intoBlock;
    this.#chunk.fill(0, 0, intoBlock);
    this.#filled = intoBlock;
  }

  /** Writes what there is; the last block's end is filled up with zeros. */
  #flush(): void {
    if (this.#filled === 0) return;
    const end = Math.ceil(this.#filled / EXT4_BLOCK_BYTES) * EXT4_BLOCK_BYTES;
    this.#chunk.fill(0, this.#filled, end);
    this.#placer.place(this.#base / EXT4_BLOCK_BYTES, this.#chunk.subarray(0, end));
    this.#base += end;
    this.#filled = 0;
  }
}
