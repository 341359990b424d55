import { fileMapLimits } from '../base/limits.ts';
import type { Disk } from '../image/fs/disk.ts';
import { fsTooLarge, type FsNode, type NodeKind } from '../image/fs/file-system.ts';

/** A file, directory or link of a file map. */
export interface MappedNode {
  /** Inode number (ext4) or nid (erofs). */
  readonly id: number;
  readonly kind: NodeKind;
  readonly sizeBytes: number;
  /** Names of one inode, as bytes without the leading slash; the root's is empty. */
  readonly paths: readonly Buffer[];
}

const KINDS: readonly NodeKind[] = ['file', 'directory', 'symlink', 'other'];
const PATHS_MIN = 1024;
const BYTES_MIN = 65_536;

/** Inodes, each with all its paths: a number an inode, the paths' bytes end to end. */
export class NodeTable {
  readonly #disk: Disk;
  readonly #ids: number[] = [];
  readonly #kinds: number[] = [];
  readonly #sizes: number[] = [];
  /** By node: its first path. */
  readonly #firstPath: number[] = [];
  readonly #nodeOfId = new Map<number, number>();
  /** Of nodes with several paths: all but the first. */
  readonly #furtherPaths = new Map<number, number[]>();
  #pathEnds = new Uint32Array(PATHS_MIN);
  #pathCount = 0;
  #bytes = Buffer.alloc(BYTES_MIN);

  constructor(disk: Disk) {
    this.#disk = disk;
  }

  get count(): number {
    return this.#ids.length;
  }

  /** The node's number, and whether this is the first of its paths. Errors: ERR_FS_LIMIT. */
  add(path: Buffer, { id, kind, sizeBytes }: FsNode): { node: number; isNew: boolean } {
    const pathNumber = this.#addPath(path);
    const known = this.#nodeOfId.get(id);
    if (known !== undefined) {
      const further = this.#furtherPaths.get(known) ?? [];
      further.push(pathNumber);
      this.#furtherPaths.set(known, further);
      return { node: known, isNew: false };
    }
    const node = this.count;
    this.#nodeOfId.set(id, node);
    this.#ids.push(id);
    this.#kinds.push(KINDS.indexOf(kind));
    this.#sizes.push(sizeBytes);
    this.#firstPath.push(pathNumber);
    return { node, isNew: true };
  }

  at(node: number): MappedNode {
    const paths = [this.#firstPath[node], ...(this.#furtherPaths.get(node) ?? [])];
    return {
      id: this.#ids[node],
      kind: KINDS[this.#kinds[node]],
      sizeBytes: this.#sizes[node],
      paths: paths.map((path) => this.#pathAt(path)),
    };
  }

  #addPath(path: Buffer): number {
    const number = this.#pathCount;
    const start = this.#endOf(number - 1);
    const end = start + path.length;
    const { nodesMax, pathBytesMax } = fileMapLimits;
    if (number >= nodesMax) throw fsTooLarge(this.#disk, 'file map: paths', nodesMax);
    if (end > pathBytesMax) throw fsTooLarge(this.#disk, 'file map: bytes of paths', pathBytesMax);
    if (number === this.#pathEnds.length) {
      const larger = new Uint32Array(number * 2);
      larger.set(this.#pathEnds);
      this.#pathEnds = larger;
    }
    if (end > this.#bytes.length) {
      const larger = Buffer.alloc(Math.max(end, this.#bytes.length * 2));
      this.#bytes.copy(larger);
      this.#bytes = larger;
    }
    path.copy(this.#bytes, start);
    this.#pathEnds[number] = end;
    this.#pathCount += 1;
    return number;
  }

  #pathAt(number: number): Buffer {
    return this.#bytes.subarray(this.#endOf(number - 1), this.#endOf(number));
  }

  #endOf(number: number): number {
    return number < 0 ? 0 : this.#pathEnds[number];
  }
}
