import { codeOf, messageOf } from '../base/errors.ts';
import { fileMapLimits, fsReadLimits, SECTOR_BYTES } from '../base/limits.ts';
import { cachedDisk, watchedDisk, type Disk } from '../image/fs/disk.ts';
import { sizedExtents } from '../image/fs/file-ranges.ts';
import { fsTooLarge, type FileSystem, type FsNode } from '../image/fs/file-system.ts';
import { openFileSystem } from '../image/fs/open.ts';
import { walkTree, type WalkFilter } from '../image/fs/walk.ts';
import { AccessedRanges } from './accessed-ranges.ts';
import { ExtentTableBuilder, filePartOf, type ExtentTable } from './extent-table.ts';
import { NodeTable, type MappedNode } from './node-table.ts';
import type { TraceRecords } from './trace.ts';

/** What bytes of a disk are. 'map': where a file's content is; 'unknown': of no file that was found. */
const PART_KINDS = [
  'file',
  'directory',
  'symlink',
  'inode',
  'map',
  'superblock',
  'bitmaps',
  'inode table',
  'journal',
  'unknown',
] as const;
export type PartKind = (typeof PART_KINDS)[number];

/** Bytes of the disk of one kind. */
export interface MappedPart {
  readonly offset: number;
  readonly length: number;
  readonly kind: PartKind;
  /** The node's number in the map; null for what belongs to none. */
  readonly node: number | null;
  /** What the part holds of the node's content; an estimate where that is compressed. */
  readonly fileOffset: number;
  readonly fileLength: number;
}

/** A file that could not be mapped, and why. */
export interface UnmappedNode {
  readonly path: Buffer;
  readonly reason: string;
}

export interface FileMapOptions {
  /** Leaves out what none of these accesses read the inode or the directory of: costs little. */
  readonly accessed?: AccessedRanges;
  readonly signal?: AbortSignal;
}

/** Which file, or else what, each byte of a disk belongs to. */
export class FileMap {
  readonly type: FileSystem['type'];
  readonly blockBytes: number;
  /** Nodes whose structures are damaged, the first hundred. */
  readonly unmapped: readonly UnmappedNode[];
  readonly #nodes: NodeTable;
  readonly #content: ExtentTable;
  readonly #metadata: ExtentTable;

  /** `buildFileMap` calls this. */
  constructor(fs: FileSystem, parts: FileMapParts) {
    this.type = fs.type;
    this.blockBytes = fs.blockBytes;
    this.unmapped = parts.unmapped;
    this.#nodes = parts.nodes;
    this.#content = parts.content.finish();
    this.#metadata = parts.metadata.finish();
  }

  get nodeCount(): number {
    return this.#nodes.count;
  }

  /** `node` counts from 0, the root. */
  node(node: number): MappedNode {
    return this.#nodes.at(node);
  }

  /** The parts of [offset, offset + length) of the disk, in order: together they are all of it. */
  *parts(offset: number, length: number): Generator<MappedPart, void, undefined> {
    for (const [start, end, row] of this.#content.within(offset, offset + length)) {
      if (row !== null) {
        const kind = this.#nodes.at(row.owner).kind;
        yield {
          ...{ offset: start, length: end - start, node: row.owner },
          ...{ kind: kind === 'other' ? 'unknown' : kind, ...filePartOf(row, start, end) },
        };
        continue;
      }
      for (const [from, to, metadata] of this.#metadata.within(start, end)) {
        const base = { offset: from, length: to - from, fileOffset: 0, fileLength: 0 };
        if (metadata === null) {
          yield { ...base, kind: 'unknown', node: null };
          continue;
        }
        const node = metadata.fileOffset === NO_NODE ? null : metadata.fileOffset;
        yield { ...base, kind: PART_KINDS[metadata.owner], node };
      }
    }
  }
}

/** What a map is made of. */
interface FileMapParts {
  readonly nodes: NodeTable;
  /** Owner: the node. */
  readonly content: ExtentTableBuilder;
  /** Owner: the number of the kind; in place of the file's byte, the node or NO_NODE. */
  readonly metadata: ExtentTableBuilder;
  readonly unmapped: UnmappedNode[];
}

const NO_NODE = -1;

/**
 * Maps the file system of a disk, ext4 or erofs, by reading its metadata and nothing else. Damage ends
 * at what it concerns: a file, or the rest of the walk; the bytes are unknown then. Errors: those of
 * openFileSystem and of reading the disk; ERR_FS_LIMIT.
 */
export async function buildFileMap(disk: Disk, options: FileMapOptions = {}): Promise<FileMap> {
  return await new FileMapBuilder(cachedDisk(disk, fileMapLimits.pageBytes), options).build();
}

/** More of a trace than this is of no file that was found: all of them are looked for. */
const UNKNOWN_SHARE_MAX = 0.02;

/**
 * As buildFileMap, for what a trace's records read: of the disk, little more is read than they did. A
 * run that did not read the way to its files, as it had that in memory, costs all of the metadata.
 */
export async function mapAccessedFiles(
  disk: Disk,
  records: Pick<TraceRecords, 'count' | 'lba' | 'sectors'>,
  signal?: AbortSignal,
): Promise<FileMap> {
  const cached = cachedDisk(disk, fileMapLimits.pageBytes);
  const whole = signal === undefined ? {} : { signal };
  const options = { ...whole, accessed: new AccessedRanges(records) };
  const map = await new FileMapBuilder(cached, options).build();
  if (unknownShare(map, records) <= UNKNOWN_SHARE_MAX) return map;
  return await new FileMapBuilder(cached, whole).build();
}

function unknownShare(
  map: FileMap,
  { count, lba, sectors }: Pick<TraceRecords, 'count' | 'lba' | 'sectors'>,
): number {
  let bytes = 0;
  let unknownBytes = 0;
  for (let i = 0; i < count; i += 1) {
    for (const part of map.parts(lba[i] * SECTOR_BYTES, sectors[i] * SECTOR_BYTES)) {
      bytes += part.length;
      if (part.kind === 'unknown') unknownBytes += part.length;
    }
  }
  return bytes === 0 ? 0 : unknownBytes / bytes;
}

class FileMapBuilder {
  readonly #disk: Disk;
  readonly #options: FileMapOptions;
  readonly #parts: FileMapParts;
  /** The node whose map is being read. */
  #mapOf: number | null = null;

  constructor(disk: Disk, options: FileMapOptions) {
    this.#disk = disk;
    this.#options = options;
    this.#parts = {
      nodes: new NodeTable(disk),
      content: new ExtentTableBuilder(),
      metadata: new ExtentTableBuilder(),
      unmapped: [],
    };
  }

  async build(): Promise<FileMap> {
    const opened = await openFileSystem(this.#disk);
    const fs = opened.on(watchedDisk(this.#disk, (...read) => this.#onRead(...read)));
    await this.#contained('', async () => {
      const root = await fs.node(fs.rootId);
      await this.#add(fs, Buffer.alloc(0), root);
      for await (const { path, node } of walkTree(fs, root, this.#filter(fs))) {
        this.#options.signal?.throwIfAborted();
        await this.#add(fs, path, node);
      }
    });
    await this.#contained('', async () => {
      for await (const { kind, offset, length } of fs.metadata()) {
        this.#addMetadata(kind, offset, length, null);
      }
    });
    return new FileMap(fs, this.#parts);
  }

  /** Directories and inodes that no access read have nothing to do with the accesses. */
  #filter(fs: FileSystem): WalkFilter {
    const { accessed } = this.#options;
    if (accessed === undefined) {
      return { isFound: async () => true, isEntered: async () => true };
    }
    return {
      isFound: async (id) => accessed.overlaps(await fs.nodeOffset(id), 1),
      isEntered: async (directory) => {
        const extents = await directory.extents();
        return extents.some(({ offset, length }) => accessed.overlaps(offset, length));
      },
    };
  }

  async #add(fs: FileSystem, path: Buffer, found: FsNode): Promise<void> {
    const { nodes, content } = this.#parts;
    const { node, isNew } = nodes.add(path, found);
    if (!isNew) return;
    // Those of ext4 have tables of their own; here, inodes lie among the data.
    const { offset, length } = found.inode;
    if (fs.type === 'erofs') this.#addMetadata('inode', offset, length, node);
    await this.#contained(path, async () => {
      this.#mapOf = node;
      const extents = await sizedExtents(found, fs.blockBytes);
      for (const extent of extents) {
        this.#checkRoom();
        content.add({ ...extent, owner: node });
      }
    });
    this.#mapOf = null;
  }

  #onRead(offset: number, length: number): void {
    if (this.#mapOf !== null) this.#addMetadata('map', offset, length, this.#mapOf);
  }

  #addMetadata(kind: PartKind, offset: number, length: number, node: number | null): void {
    this.#checkRoom();
    const owner = PART_KINDS.indexOf(kind);
    const fileOffset = node ?? NO_NODE;
    this.#parts.metadata.add({ offset, length, owner, fileOffset, fileLength: 0 });
  }

  #checkRoom(): void {
    const { content, metadata } = this.#parts;
    if (content.count + metadata.count < fileMapLimits.extentsMax) return;
    throw fsTooLarge(this.#disk, 'file map: extents', fileMapLimits.extentsMax);
  }

  /** Damage is told, and everything else that goes wrong is thrown. */
  async #contained(path: Buffer | string, work: () => Promise<void>): Promise<void> {
    try {
      await work();
    } catch (error) {
      if (codeOf(error) !== 'ERR_FS_DAMAGED' && codeOf(error) !== 'ERR_FS_UNSUPPORTED') throw error;
      const { unmapped } = this.#parts;
      if (unmapped.length >= fsReadLimits.failuresToldMax) return;
      unmapped.push({ path: Buffer.from(path), reason: messageOf(error) });
    }
  }
}
