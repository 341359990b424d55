import { tarLimits } from '../../base/limits.ts';
import type { ByteRange } from '../../base/range.ts';
import { tarError, type TarEntry, type TarVisitor } from './entry.ts';
import { FIELD, isZeroBlock, numberField, TAR_BLOCK_BYTES } from './fields.ts';
import { entryOf, parseHeader, type GnuNames, type TarHeader } from './header.ts';
import {
  copyPaxFields,
  emptyPaxFields,
  readPaxRecords,
  type PaxFields,
  type PaxKind,
  type PaxSparse,
} from './pax.ts';
import {
  checkMap,
  ContentMap,
  readGnuExtension,
  readGnuHeaderMap,
  readPaxMap,
} from './sparse-map.ts';

/**
 * Reads a tar as it arrives - ustar, pax, GNU and older - and hands its entries to a visitor,
 * synchronously; content is passed on where it lies. It waits for one of these at a time:
 *
 *   header -> [ pax or long name -> header ]* -> [ sparse map ] -> content -> padding -> header ...
 *   two blocks of zeros -> the end; what follows is passed over
 */
export class TarReader {
  readonly #visitor: TarVisitor;
  /** Of the next byte. */
  #position = 0;
  #isAtEnd = false;
  #entries = 0;

  /** Bytes that are wanted whole, as far as they are there, and what takes them and their place. */
  #gathered = Buffer.alloc(TAR_BLOCK_BYTES);
  #gatheredBytes = 0;
  #wantedBytes = TAR_BLOCK_BYTES;
  #take: (bytes: Buffer, position: number) => void;

  /** Content of the current entry, and its padding, that is still to come. */
  #ranges: readonly ByteRange[] = [];
  #rangeIndex = 0;
  #rangeDone = 0;
  #contentLeft = 0;
  #paddingLeft = 0;

  #global: PaxFields = emptyPaxFields();
  #pax: PaxFields | null = null;
  #gnu: GnuNames = {};

  constructor(visitor: TarVisitor) {
    this.#visitor = visitor;
    this.#take = (bytes, position) => this.#takeHeader(bytes, position);
  }

  /** Takes the next bytes, which are not kept. Errors: ERR_TAR_*, and the visitor's. */
  push(chunk: Uint8Array): void {
    const bytes = Buffer.from(chunk.buffer, chunk.byteOffset, chunk.length);
    let at = 0;
    while (at < bytes.length && !this.#isAtEnd) {
      let count: number;
      if (this.#contentLeft > 0) count = this.#passContent(bytes, at);
      else if (this.#paddingLeft > 0) count = this.#passPadding(bytes.length - at);
      else count = this.#gather(bytes, at);
      at += count;
      this.#position += count;
    }
  }

  /**
   * Passes over what is left of an entry's content, which need not be pushed then and which the
   * visitor does not see; how many bytes that are.
   */
  skipContent(): number {
    const bytes = this.#contentLeft + this.#paddingLeft;
    if (this.#contentLeft > 0) this.#visitor.endEntry();
    this.#contentLeft = 0;
    this.#paddingLeft = 0;
    this.#position += bytes;
    return bytes;
  }

  /** Says that nothing follows. Errors: ERR_TAR_TRUNCATED. */
  end(): void {
    const isBetween =
      this.#gatheredBytes === 0 &&
      this.#contentLeft === 0 &&
      this.#paddingLeft === 0 &&
      this.#isBeforeEntry();
    if (this.#isAtEnd || isBetween) return;
    throw tarError('ERR_TAR_TRUNCATED', this.#position, 'more of an entry', 'the end');
  }

  /** A first header is what comes next, and neither a map nor the second block of the end. */
  #isBeforeEntry(): boolean {
    return this.#isHeaderNext && this.#pax === null && Object.keys(this.#gnu).length === 0;
  }

  #isHeaderNext = true;

  #want(bytes: number, take: (bytes: Buffer, position: number) => void): void {
    this.#isHeaderNext = false;
    this.#wantedBytes = bytes;
    this.#take = take;
  }

  #wantHeader(): void {
    this.#want(TAR_BLOCK_BYTES, (block, position) => this.#takeHeader(block, position));
    this.#isHeaderNext = true;
  }

  #gather(bytes: Buffer, at: number): number {
    const wanted = this.#wantedBytes;
    if (this.#gatheredBytes === 0 && bytes.length - at >= wanted) {
      this.#take(bytes.subarray(at, at + wanted), this.#position);
      return wanted;
    }
    const count = Math.min(wanted - this.#gatheredBytes, bytes.length - at);
    if (this.#gathered.length < wanted) this.#gathered = Buffer.alloc(wanted);
    bytes.copy(this.#gathered, this.#gatheredBytes, at, at + count);
    this.#gatheredBytes += count;
    if (this.#gatheredBytes === wanted) {
      this.#gatheredBytes = 0;
      const whole = this.#gathered.subarray(0, wanted);
      // Only blocks are common.
      if (wanted > TAR_BLOCK_BYTES) this.#gathered = Buffer.alloc(TAR_BLOCK_BYTES);
      this.#take(whole, this.#position + count - wanted);
    }
    return count;
  }

  #takeHeader(block: Buffer, position: number): void {
    if (isZeroBlock(block)) {
      if (!this.#isBeforeEntry()) {
        throw tarError('ERR_TAR_HEADER', position, 'the entry of a pax header', 'the end');
      }
      this.#want(TAR_BLOCK_BYTES, (second) => {
        if (!isZeroBlock(second)) {
          throw tarError('ERR_TAR_HEADER', position, 'two blocks of zeros at the end', 'one');
        }
        this.#isAtEnd = true;
      });
      return;
    }
    const header = parseHeader(block, position);
    this.#entries += 1;
    if (this.#entries > tarLimits.entriesMax) {
      throw tarError(
        'ERR_TAR_ENTRIES',
        position,
        `at most ${tarLimits.entriesMax} headers`,
        'more',
      );
    }
    switch (header.flag) {
      case 'x':
      case 'X':
        this.#wantText(header, (records) => this.#takePax(records, 'local', position));
        return;
      case 'g':
        this.#wantText(header, (records) => this.#takePax(records, 'global', position));
        return;
      case 'L':
        this.#wantText(header, (text) => (this.#gnu.path = textOf(text)));
        return;
      case 'K':
        this.#wantText(header, (text) => (this.#gnu.linkTarget = textOf(text)));
        return;
      default:
        this.#takeEntry(header);
    }
  }

  /** The content of a header about headers. */
  #wantText({ size, position }: TarHeader, take: (text: Buffer) => void): void {
    const max = tarLimits.headerBytesMax;
    if (size > max) {
      const expected = `at most ${max} bytes of pax header or name`;
      throw tarError('ERR_TAR_HEADER', position, expected, String(size));
    }
    const done = (bytes: Buffer) => {
      this.#wantHeader();
      take(bytes.subarray(0, size));
    };
    if (size === 0) done(Buffer.alloc(0));
    else this.#want(size + paddingOf(size), done);
  }

  #takePax(records: Buffer, kind: PaxKind, position: number): void {
    const fields = kind === 'global' ? this.#global : copyPaxFields(this.#global);
    readPaxRecords(records, fields, kind, position);
    if (kind === 'local') this.#pax = fields;
  }

  #takeEntry(header: TarHeader): void {
    const pax = this.#pax ?? copyPaxFields(this.#global);
    const entry = entryOf(header, pax, this.#gnu);
    this.#pax = null;
    this.#gnu = {};
    if (header.flag === 'S') this.#takeGnuSparse(entry, header);
    else if (entry.type === 'file' && isSparse(pax.sparse)) this.#takePaxSparse(entry, pax.sparse);
    else this.#begin(entry, [{ offset: 0, length: entry.storedBytes }], entry.storedBytes);
  }

  #takeGnuSparse(entry: TarEntry, header: TarHeader): void {
    const { position } = entry;
    const sizeBytes = numberField(header.block, FIELD.gnuRealSize);
    if (header.format !== 'gnu' || sizeBytes === null || sizeBytes < 0) {
      throw tarError('ERR_TAR_SPARSE', position, 'the size of a sparse file', 'none');
    }
    const map: ByteRange[] = [];
    const begin = () => {
      entry.sizeBytes = sizeBytes;
      this.#begin(entry, map, entry.storedBytes);
    };
    const takeExtension = (block: Buffer) => {
      if (readGnuExtension(block, map, position)) return;
      this.#wantHeader();
      begin();
    };
    if (readGnuHeaderMap(header.block, map, position)) this.#want(TAR_BLOCK_BYTES, takeExtension);
    else begin();
  }

  #takePaxSparse(entry: TarEntry, sparse: PaxSparse): void {
    const { position, storedBytes } = entry;
    if (sparse.sizeBytes === undefined) {
      throw tarError('ERR_TAR_SPARSE', position, 'the size of a sparse file', 'none');
    }
    entry.sizeBytes = sparse.sizeBytes;
    entry.path = sparse.name ?? entry.path;
    const { major = 0, minor = 0 } = sparse;
    if (major === 0) {
      const map = sparse.map === undefined ? sparse.ranges : readPaxMap(sparse.map, position);
      this.#begin(entry, map, storedBytes);
      return;
    }
    if (major !== 1 || minor !== 0) {
      const found = `${major}.${minor}`;
      throw tarError('ERR_TAR_SPARSE', position, 'sparse format 0.0, 0.1 or 1.0', found);
    }
    const map = new ContentMap(position);
    this.#want(TAR_BLOCK_BYTES, (block) => {
      const isComplete = map.push(block);
      if (map.bytesRead > storedBytes) {
        throw tarError('ERR_TAR_SPARSE', position, 'a sparse map within the content', 'more');
      }
      if (!isComplete) return;
      this.#wantHeader();
      entry.storedBytes = storedBytes - map.bytesRead;
      this.#begin(entry, map.ranges, entry.storedBytes);
    });
  }

  #begin(entry: TarEntry, ranges: readonly ByteRange[], storedBytes: number): void {
    checkMap(ranges, entry.sizeBytes, storedBytes, entry.position);
    if (!this.#isHeaderNext) this.#wantHeader();
    this.#ranges = ranges;
    this.#rangeIndex = 0;
    this.#rangeDone = 0;
    this.#contentLeft = storedBytes;
    this.#paddingLeft = paddingOf(storedBytes);
    this.#visitor.entry(entry);
    if (storedBytes === 0) this.#visitor.endEntry();
  }

  #passContent(bytes: Buffer, at: number): number {
    const range = this.#ranges[this.#rangeIndex];
    if (range === undefined) throw new Error('tar: content beyond the sparse map');
    const count = Math.min(range.length - this.#rangeDone, bytes.length - at);
    if (count > 0) {
      this.#visitor.content(range.offset + this.#rangeDone, bytes.subarray(at, at + count));
    }
    this.#rangeDone += count;
    if (this.#rangeDone === range.length) {
      this.#rangeIndex += 1;
      this.#rangeDone = 0;
    }
    this.#contentLeft -= count;
    if (this.#contentLeft === 0) this.#visitor.endEntry();
    return count;
  }

  #passPadding(bytesLeft: number): number {
    const count = Math.min(this.#paddingLeft, bytesLeft);
    this.#paddingLeft -= count;
    return count;
  }
}

/** What fills content up to whole blocks. */
function paddingOf(bytes: number): number {
  return (TAR_BLOCK_BYTES - (bytes % TAR_BLOCK_BYTES)) % TAR_BLOCK_BYTES;
}

/** GNU ends long names with a NUL. */
function textOf(bytes: Buffer): string {
  const end = bytes.indexOf(0);
  return bytes.toString('latin1', 0, end === -1 ? bytes.length : end);
}

function isSparse(sparse: PaxSparse): boolean {
  return (
    sparse.major !== undefined ||
    sparse.map !== undefined ||
    sparse.sizeBytes !== undefined ||
    sparse.ranges.length > 0
  );
}
