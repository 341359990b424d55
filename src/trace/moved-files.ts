import PQueue from 'p-queue';
import { messageOf } from '../base/errors.ts';
import { fileMapLimits, fsReadLimits, rebaseLimits, SECTOR_BYTES } from '../base/limits.ts';
import { mergeRanges, type ByteRange } from '../base/range.ts';
import { cachedDisk, watchedDisk, type Disk } from '../image/fs/disk.ts';
import { diskRangesOf, sizedExtents, type SizedExtent } from '../image/fs/file-ranges.ts';
import type { FileSystem, FsNode } from '../image/fs/file-system.ts';
import { openFileSystem } from '../image/fs/open.ts';
import { findNode } from '../image/fs/walk.ts';
import { ExtentTableBuilder, type ExtentTable } from './extent-table.ts';
import type { FileMap, MappedPart } from './file-map.ts';
import type { MappedNode } from './node-table.ts';

/** A file of an old image as a new one has it. */
interface MovedFile {
  readonly oldSizeBytes: number;
  readonly sizeBytes: number;
  readonly isCompressed: boolean;
  readonly extents: readonly SizedExtent[];
  /** Whole blocks that are read to find it: directories, its inode, its map. */
  readonly way: readonly ByteRange[];
}

/** Where a part of the old disk is on the new one. */
export interface NewPlace {
  /** What is read on the way to it. */
  readonly way: readonly ByteRange[];
  readonly ranges: readonly ByteRange[];
}

export interface MoveOptions {
  readonly signal?: AbortSignal;
  /** Once it is aborted, what was not looked up until then is not found. */
  readonly enough?: AbortSignal;
}

/** Structures that are where the file system was made to have them. */
const PLACES = ['superblock', 'bitmaps', 'inode table', 'journal'] as const;

/**
 * Finds parts of an old disk on a new one: files, directories and links by path and byte of the file,
 * ext4's structures by their place. Only metadata of the new disk is read.
 */
export class MovedFiles {
  /** What could not be looked up for damage or network, the first hundred: untrusted text. */
  readonly problems: string[] = [];
  readonly #from: FileMap;
  readonly #fs: FileSystem;
  readonly #disk: Disk;
  readonly #places: ExtentTable;
  readonly #files = new Map<number, MovedFile | null>();
  /** By node: bytes of the file that the trace read. */
  readonly #readBytes = new Map<number, number>();

  private constructor(from: FileMap, fs: FileSystem, disk: Disk, places: ExtentTable) {
    this.#from = from;
    this.#fs = fs;
    this.#disk = disk;
    this.#places = places;
  }

  /** Errors: those of openFileSystem, and of reading the disk's first metadata. */
  static async open(from: FileMap, to: Disk): Promise<MovedFiles> {
    const disk = cachedDisk(to, fileMapLimits.pageBytes);
    const fs = await openFileSystem(disk);
    const places = new ExtentTableBuilder();
    for await (const { kind, offset, length } of fs.metadata()) {
      if (places.count >= fileMapLimits.extentsMax) break;
      places.add({ offset, length, owner: PLACES.indexOf(kind), fileOffset: 0, fileLength: 0 });
    }
    return new MovedFiles(from, fs, disk, places.finish());
  }

  /** Notes that the trace read a part, whether that is still where it was or not. */
  note({ node, kind, fileLength }: MappedPart): void {
    if (node === null || kind !== 'file') return;
    this.#readBytes.set(node, (this.#readBytes.get(node) ?? 0) + fileLength);
  }

  /** Looks up nodes of the old disk by their paths; what goes wrong with one concerns only that. */
  async find(nodes: ReadonlySet<number>, { signal, enough }: MoveOptions = {}): Promise<void> {
    const queue = new PQueue({ concurrency: fsReadLimits.concurrency });
    const wanted = [...nodes].slice(0, rebaseLimits.nodesMax);
    await queue.addAll(
      wanted.map((node) => async () => {
        signal?.throwIfAborted();
        if (enough?.aborted === true) return;
        try {
          this.#files.set(node, await this.#lookUp(this.#from.node(node)));
        } catch (error) {
          signal?.throwIfAborted();
          if (this.problems.length >= fsReadLimits.failuresToldMax) return;
          this.problems.push(messageOf(error));
        }
      }),
    );
  }

  /** Where a part is now; null when it is not to be found. */
  placeOf(part: MappedPart): NewPlace | null {
    if (part.kind === 'unknown') return null;
    if (part.node === null) return this.#samePlace(part);
    const file = this.#files.get(part.node) ?? null;
    if (file === null) return null;
    const { way } = file;
    // Of an inode, of what maps a file, and of a link, all that is needed lies on the way.
    if (part.kind !== 'file' && part.kind !== 'directory') return { way, ranges: [] };
    const isWhole = (this.#readBytes.get(part.node) ?? 0) >= file.oldSizeBytes;
    const ranges = newFileParts(part, file, isWhole).flatMap((range) =>
      diskRangesOf(file.extents, this.#toBlockEnd(range, file), file.isCompressed).map(
        wholeSectors,
      ),
    );
    return ranges.length === 0 ? null : { way, ranges };
  }

  /** Of the block that a file ends in, guests read all. */
  #toBlockEnd({ offset, length }: ByteRange, { sizeBytes }: MovedFile): ByteRange {
    const isEnd = offset + length === sizeBytes;
    return { offset, length: isEnd ? length + this.#fs.blockBytes : length };
  }

  /** A file system's own structures: at the same place, if that is what is there. */
  #samePlace({ offset, length, kind }: MappedPart): NewPlace | null {
    const isSame = [...this.#places.within(offset, offset + length)].every(
      ([, , row]) => row !== null && PLACES[row.owner] === kind,
    );
    return isSame ? { way: [], ranges: [wholeSectors({ offset, length })] } : null;
  }

  async #lookUp({ kind, sizeBytes, paths }: MappedNode): Promise<MovedFile | null> {
    for (const path of paths) {
      const reads: ByteRange[] = [];
      const fs = this.#fs.on(
        watchedDisk(this.#disk, (offset, length) => {
          reads.push(alignTo(this.#fs.blockBytes, { offset, length }));
        }),
      );
      const node = await findNode(fs, path);
      if (node === null || !isLike(node, kind)) continue;
      const extents = await sizedExtents(node, fs.blockBytes);
      const { isCompressed } = node;
      const way = mergeRanges(reads);
      return { oldSizeBytes: sizeBytes, sizeBytes: node.sizeBytes, isCompressed, extents, way };
    }
    return null;
  }
}

/** A path of a link leads to whatever it points to. */
function isLike(node: FsNode, kind: MappedNode['kind']): boolean {
  return node.kind === kind || kind === 'symlink';
}

/**
 * The bytes of a file's new version that stand for a part of the old one: the same bytes. Where sizes
 * differ and the part goes on to the old end, also as much of the new end (programs and archives keep
 * tables there); of a file that was read whole and has not grown to more than twice its size, all that
 * has been added.
 */
export function newFileParts(
  part: { fileOffset: number; fileLength: number },
  file: { oldSizeBytes: number; sizeBytes: number },
  isWhole: boolean,
): ByteRange[] {
  const { oldSizeBytes, sizeBytes } = file;
  const start = part.fileOffset;
  const end = Math.min(start + part.fileLength, oldSizeBytes);
  const parts = [{ offset: start, length: Math.min(end, sizeBytes) - start }];
  if (sizeBytes !== oldSizeBytes && end === oldSizeBytes) {
    const added = isWhole && sizeBytes <= 2 * oldSizeBytes ? sizeBytes - oldSizeBytes : 0;
    const tail = Math.min(end - start, rebaseLimits.tailBytes, sizeBytes);
    const length = Math.max(tail, added);
    parts.push({ offset: sizeBytes - length, length });
  }
  return parts.filter(({ length }) => length > 0);
}

function wholeSectors(range: ByteRange): ByteRange {
  return alignTo(SECTOR_BYTES, range);
}

function alignTo(unit: number, { offset, length }: ByteRange): ByteRange {
  const first = offset - (offset % unit);
  return { offset: first, length: Math.ceil((offset + length) / unit) * unit - first };
}
