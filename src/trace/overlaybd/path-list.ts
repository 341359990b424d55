import PQueue from 'p-queue';
import { messageOf, ReplaybdError } from '../../base/errors.ts';
import { fsReadLimits, overlaybdTraceLimits, SECTOR_BYTES } from '../../base/limits.ts';
import type { ByteRange } from '../../base/range.ts';
import { cachedDisk, watchedDisk, type Disk } from '../../image/fs/disk.ts';
import { fsTooLarge, type FileSystem, type FsNode } from '../../image/fs/file-system.ts';
import { openFileSystem } from '../../image/fs/open.ts';
import { findNode, walkTree } from '../../image/fs/walk.ts';

/** What a list of paths comes to on a disk. */
export interface ListedRanges {
  /** In the order of the list: for each path what finding it reads, then its content. */
  readonly ranges: readonly ByteRange[];
  /** Files that were found, those of directories included. */
  readonly files: number;
  /** Paths that are not in the image. */
  readonly missing: readonly string[];
  /** Paths whose content cannot be told, each with the reason. */
  readonly failed: readonly FailedPath[];
}

export interface FailedPath {
  readonly path: string;
  readonly reason: string;
}

const LINE_FEED = '\n'.charCodeAt(0);
const SLASH = '/'.charCodeAt(0);
const STAR = '*'.charCodeAt(0);

/**
 * The lines of a list of paths, without empty ones. A path is bytes, whatever they are; there are no
 * comments. Errors: ERR_PATH_LIST_SIZE, ERR_PATH_LIST_FORMAT for a file that is no text.
 */
export function parsePathList(bytes: Uint8Array, name: string): Buffer[] {
  const { pathListBytesMax } = overlaybdTraceLimits;
  if (bytes.length > pathListBytesMax) {
    throw new ReplaybdError(
      'ERR_PATH_LIST_SIZE',
      `${name}: list of paths: expected at most ${pathListBytesMax} bytes, found ${bytes.length}`,
    );
  }
  if (bytes.includes(0)) {
    throw new ReplaybdError(
      'ERR_PATH_LIST_FORMAT',
      `${name}: expected a trace or a list of paths, found neither: it holds zero bytes`,
    );
  }
  const text = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length);
  const lines: Buffer[] = [];
  for (let at = 0; at < text.length;) {
    const feed = text.indexOf(LINE_FEED, at);
    const end = feed < 0 ? text.length : feed;
    if (trimmed(text.subarray(at, end)).length > 0) lines.push(text.subarray(at, end));
    at = end + 1;
  }
  return lines;
}

/**
 * Finds files in the file system of a disk, whole, by reading its metadata. A path that ends with a
 * slash, or with slash and star, stands for all files below it. Errors: those of openFileSystem, of
 * reading the disk's first bytes; what is wrong with a file only concerns that file.
 */
export async function rangesOfPaths(
  disk: Disk,
  paths: readonly Buffer[],
  signal?: AbortSignal,
): Promise<ListedRanges> {
  const cached = cachedDisk(disk);
  const superblock: ByteRange[] = [];
  const fs = await openFileSystem(watchedDisk(cached, (...read) => superblock.push(rangeOf(read))));
  const found = new RangeCount(disk);
  const queue = new PQueue({ concurrency: fsReadLimits.concurrency });
  const lookups = paths.map((path) => new PathLookup(fs, cached, path, found));
  await queue.addAll(
    lookups.map((lookup) => async () => {
      signal?.throwIfAborted();
      await lookup.run();
    }),
  );
  const ranges = [...superblock];
  for (const lookup of lookups) for (const range of lookup.ranges) ranges.push(range);
  return {
    ranges,
    files: lookups.reduce((sum, { files }) => sum + files, 0),
    missing: lookups.filter(({ isMissing }) => isMissing).map(({ name }) => name),
    failed: lookups.flatMap(({ failed }) => failed),
  };
}

/** Bounds what all paths of a list together come to. */
class RangeCount {
  readonly #disk: Disk;
  #left: number = fsReadLimits.rangesMax;

  constructor(disk: Disk) {
    this.#disk = disk;
  }

  get isUsedUp(): boolean {
    return this.#left === 0;
  }

  take(): void {
    if (this.isUsedUp) {
      throw fsTooLarge(this.#disk, 'list of paths: ranges', fsReadLimits.rangesMax);
    }
    this.#left -= 1;
  }
}

/** One line of a list. */
class PathLookup {
  readonly ranges: ByteRange[] = [];
  files = 0;
  isMissing = false;
  readonly failed: FailedPath[] = [];
  readonly #fs: FileSystem;
  readonly #path: Buffer;
  readonly #count: RangeCount;

  constructor(fs: FileSystem, disk: Disk, path: Buffer, count: RangeCount) {
    this.#path = path;
    this.#count = count;
    // A guest reads metadata in whole blocks.
    this.#fs = fs.on(watchedDisk(disk, (...read) => this.#push(rangeOf(read, fs.blockBytes))));
  }

  get name(): string {
    return this.#path.toString();
  }

  async run(): Promise<void> {
    try {
      const found = await this.#find();
      if (found === null) this.isMissing = true;
      else if (found.isTree && found.node.kind === 'directory') await this.#addTree(found.node);
      else await this.#add(found.node);
    } catch (error) {
      this.#fail(this.name, error);
    }
  }

  /** A name may end with spaces or a carriage return; more often they are not meant. */
  async #find(): Promise<{ node: FsNode; isTree: boolean } | null> {
    const plain = trimmed(this.#path);
    for (const path of plain.equals(this.#path) ? [plain] : [this.#path, plain]) {
      const node = await findNode(this.#fs, path);
      if (node !== null) return { node, isTree: path.at(-1) === SLASH };
    }
    if (plain.at(-1) !== STAR || plain.at(-2) !== SLASH) return null;
    const node = await findNode(this.#fs, plain.subarray(0, -1));
    return node === null ? null : { node, isTree: true };
  }

  async #addTree(directory: FsNode): Promise<void> {
    for await (const { path, node } of walkTree(this.#fs, directory)) {
      if (node.kind !== 'file') continue;
      try {
        await this.#add(node);
      } catch (error) {
        if (this.#count.isUsedUp) throw error;
        this.#fail(`${this.name.replace(/\*\s*$/, '')}${path.toString()}`, error);
      }
    }
  }

  #fail(path: string, error: unknown): void {
    if (this.failed.length >= fsReadLimits.failuresToldMax) return;
    this.failed.push({ path, reason: messageOf(error) });
  }

  async #add(node: FsNode): Promise<void> {
    for (const { offset, length } of await node.extents()) {
      this.#push(rangeOf([offset, length]));
    }
    if (node.kind === 'file') this.files += 1;
  }

  #push(range: ByteRange): void {
    this.#count.take();
    this.ranges.push(range);
  }
}

/** Without spaces and carriage returns at either end. */
function trimmed(path: Buffer): Buffer {
  let start = 0;
  let end = path.length;
  const isBlank = (byte: number | undefined) => byte === 0x20 || byte === 0x0d || byte === 0x09;
  while (start < end && isBlank(path[start])) start += 1;
  while (end > start && isBlank(path[end - 1])) end -= 1;
  return path.subarray(start, end);
}

/** Widened to whole sectors. */
function rangeOf([offset, length]: [number, number], unit = SECTOR_BYTES): ByteRange {
  const first = offset - (offset % unit);
  return { offset: first, length: Math.ceil((offset + length) / unit) * unit - first };
}
