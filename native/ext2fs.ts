import koffi from 'koffi';
import { messageOf, ReplaybdError } from '../src/base/errors.ts';
import { attachImage, type AttachedImage, type Ext2Image } from './ext2fs-io.ts';

/**
 * The part of libext2fs that building a file system needs, through its pinned soname. Pointers are
 * plain addresses; structures are touched only where they are the on-disk format, plus one field
 * (`now`) whose place is checked by its neighbours.
 */
export const EXT4_BLOCK_BYTES = 4096;
export const EXT4_INODE_BYTES = 256;

/** A run of blocks of the device. */
export interface BlockRun {
  block: number;
  count: number;
}

/** A run of a file's blocks and where they are on the device. */
export interface FileExtent extends BlockRun {
  /** First block within the file. */
  logical: number;
}

const OPEN_READ_WRITE_64BIT = 0x20001;
const EXTENT_INSERT_AFTER = 1;
const MAP_SET = 2;
const MAGIC_FILESYSTEM = 2133571329;
const ERROR_DIRECTORY_FULL = 2133571366;
const ERROR_DIRECTORY_NO_ROOM_FOR_CHECKSUM = 2133571477;
const ERROR_BLOCK_ALLOCATION = 2133571400;
const ERROR_INODE_ALLOCATION = 2133571401;
const ERROR_FILE_NOT_FOUND = 2133571404;

/** struct struct_ext2_filsys on 64-bit machines, unchanged since 1.40. */
const FILESYSTEM = { magic: 0, blockBytes: 40, groupCount: 48, now: 184, bytes: 192 } as const;

type NativeFunction = (...parameters: unknown[]) => number | bigint;
type Library = Record<keyof typeof SIGNATURES, NativeFunction> & { message(code: number): string };

const SIGNATURES = {
  open: 'long ext2fs_open(const char *, int, int, unsigned int, uintptr_t, uintptr_t *)',
  readBitmaps: 'long ext2fs_read_bitmaps(uintptr_t)',
  close: 'long ext2fs_close(uintptr_t)',
  free: 'void ext2fs_free(uintptr_t)',
  newInode: 'long ext2fs_new_inode(uintptr_t, uint32_t, int, uintptr_t, uint32_t *)',
  inodeStats: 'void ext2fs_inode_alloc_stats2(uintptr_t, uint32_t, int, int)',
  newRange:
    'long ext2fs_new_range(uintptr_t, int, uint64_t, uint64_t, uintptr_t, uint64_t *, uint64_t *)',
  blockStats: 'void ext2fs_block_alloc_stats_range(uintptr_t, uint64_t, uint32_t, int)',
  readInode: 'long ext2fs_read_inode_full(uintptr_t, uint32_t, void *, int)',
  writeInode: 'long ext2fs_write_inode_full(uintptr_t, uint32_t, void *, int)',
  readDirectoryBlock: 'long ext2fs_read_dir_block4(uintptr_t, uint64_t, void *, int, uint32_t)',
  writeDirectoryBlock: 'long ext2fs_write_dir_block4(uintptr_t, uint64_t, void *, int, uint32_t)',
  lookup: 'long ext2fs_lookup(uintptr_t, uint32_t, const void *, int, uintptr_t, uint32_t *)',
  link: 'long ext2fs_link(uintptr_t, uint32_t, const void *, uint32_t, int)',
  unlink: 'long ext2fs_unlink(uintptr_t, uint32_t, const void *, uint32_t, int)',
  expandDirectory: 'long ext2fs_expand_dir(uintptr_t, uint32_t)',
  extentOpen: 'long ext2fs_extent_open(uintptr_t, uint32_t, uintptr_t *)',
  extentInsert: 'long ext2fs_extent_insert(uintptr_t, int, const void *)',
  extentFixParents: 'long ext2fs_extent_fix_parents(uintptr_t)',
  extentFree: 'void ext2fs_extent_free(uintptr_t)',
  mapBlock:
    'long ext2fs_bmap2(uintptr_t, uint32_t, uintptr_t, uintptr_t, int, uint64_t, uintptr_t, uint64_t *)',
  punch: 'long ext2fs_punch(uintptr_t, uint32_t, uintptr_t, uintptr_t, uint64_t, uint64_t)',
  freeAttributeBlock: 'long ext2fs_free_ext_attr(uintptr_t, uint32_t, uintptr_t)',
  xattrsOpen: 'long ext2fs_xattrs_open(uintptr_t, uint32_t, uintptr_t *)',
  xattrSet: 'long ext2fs_xattr_set(uintptr_t, const void *, const void *, size_t)',
  xattrsWrite: 'long ext2fs_xattrs_write(uintptr_t)',
  xattrsClose: 'long ext2fs_xattrs_close(uintptr_t *)',
} as const;

let loaded: Library | undefined;

function load(): Library {
  if (loaded !== undefined) return loaded;
  try {
    const ext2fs = koffi.load('libext2fs.so.2');
    const comErr = koffi.load('libcom_err.so.2');
    ext2fs.func('void initialize_ext2_error_table()')();
    const errorMessage = comErr.func('const char *error_message(long)');
    const functions = Object.entries(SIGNATURES).map(([name, signature]) => [
      name,
      ext2fs.func(signature),
    ]);
    const library = {
      ...(Object.fromEntries(functions) as Record<keyof typeof SIGNATURES, NativeFunction>),
      message: (code: number) => String(errorMessage(code)),
    };
    loaded = library;
    return loaded;
  } catch (error) {
    throw new ReplaybdError(
      'ERR_LIB_MISSING',
      `libext2fs.so.2: cannot be loaded (${messageOf(error)}); it writes ext4 file systems. ` +
        'Install it: Debian and Ubuntu have it in libext2fs2 (libext2fs2t64 in newer releases).',
      { cause: error },
    );
  }
}

/** An ext4 file system, open for writing. Not for two threads at once. */
export class Ext2Filesystem {
  readonly #library: Library;
  readonly #handle: number;
  readonly #image: AttachedImage;
  readonly #name: string;
  readonly #out32 = new Uint32Array(32);
  readonly #out64 = new BigUint64Array(32);
  readonly #outMore64 = new BigUint64Array(32);

  /**
   * Opens the file system in `image`, which messages call `name`. What the library itself dates is
   * dated `nowSeconds`, never by the clock. Errors: ERR_LIB_MISSING, ERR_EXT4_LIBRARY.
   */
  constructor(image: Ext2Image, name: string, nowSeconds: number) {
    this.#library = load();
    this.#name = name;
    this.#image = attachImage(image);
    const handle = new BigUint64Array(32);
    try {
      const code = this.#library.open(
        this.#image.name,
        OPEN_READ_WRITE_64BIT,
        0,
        0,
        this.#image.manager,
        handle,
      );
      this.#check('ext2fs_open', code);
    } finally {
      this.#image.detach();
    }
    this.#handle = Number(handle[0]);
    try {
      this.#fixClock(nowSeconds);
      this.#check('ext2fs_read_bitmaps', this.#library.readBitmaps(this.#handle));
    } catch (error) {
      this.abandon();
      throw error;
    }
  }

  /** Writes everything to the image and closes. After an error the file system is still to be
   * abandoned. */
  close(): void {
    this.#check('ext2fs_close', this.#library.close(this.#handle));
  }

  /** Closes without making the image consistent. */
  abandon(): void {
    this.#library.free(this.#handle);
  }

  /** Takes the lowest free inode and accounts it. */
  newInode(isDirectory: boolean): number {
    const code = this.#library.newInode(this.#handle, 2, 0, 0, this.#out32);
    this.#check('ext2fs_new_inode', code);
    const inode = this.#out32[0] ?? 0;
    this.#library.inodeStats(this.#handle, inode, 1, isDirectory ? 1 : 0);
    return inode;
  }

  /** Takes the first free run at or after `goal`: at most `count` blocks, at least one. */
  takeBlocks(goal: number, count: number): BlockRun {
    const code = this.#library.newRange(
      this.#handle,
      0,
      goal,
      count,
      0,
      this.#out64,
      this.#outMore64,
    );
    this.#check('ext2fs_new_range', code);
    const run = {
      block: Number(this.#out64[0]),
      count: Math.min(count, Number(this.#outMore64[0])),
    };
    this.#library.blockStats(this.#handle, run.block, run.count, 1);
    return run;
  }

  /** Fills `into` (256 bytes) with the inode. */
  readInode(inode: number, into: Buffer): void {
    const code = this.#library.readInode(this.#handle, inode, into, EXT4_INODE_BYTES);
    this.#check('ext2fs_read_inode_full', code);
  }

  /** Writes an inode of 256 bytes; the library adds its checksum. */
  writeInode(inode: number, bytes: Buffer): void {
    const code = this.#library.writeInode(this.#handle, inode, bytes, EXT4_INODE_BYTES);
    this.#check('ext2fs_write_inode_full', code);
  }

  /** Fills `into` (a block) with a block of directory `inode`; checks its form and checksum. */
  readDirectoryBlock(inode: number, block: number, into: Buffer): void {
    const code = this.#library.readDirectoryBlock(this.#handle, block, into, 0, inode);
    this.#check('ext2fs_read_dir_block4', code);
  }

  /** Writes one block of directory `inode`; the library fills in the checksum of its tail. */
  writeDirectoryBlock(inode: number, block: number, bytes: Buffer): void {
    const code = this.#library.writeDirectoryBlock(this.#handle, block, bytes, 0, inode);
    this.#check('ext2fs_write_dir_block4', code);
  }

  /** Appends extents, sorted, to an inode that has none; accounts the tree's own blocks. */
  insertExtents(inode: number, extents: readonly FileExtent[]): void {
    const handleOut = new BigUint64Array(32);
    this.#check('ext2fs_extent_open', this.#library.extentOpen(this.#handle, inode, handleOut));
    const handle = Number(handleOut[0]);
    const native = Buffer.alloc(128);
    try {
      for (const extent of extents) {
        native.writeBigUInt64LE(BigInt(extent.block), 0);
        native.writeBigUInt64LE(BigInt(extent.logical), 8);
        native.writeUInt32LE(extent.count, 16);
        const code = this.#library.extentInsert(handle, EXTENT_INSERT_AFTER, native);
        this.#check('ext2fs_extent_insert', code);
        this.#check('ext2fs_extent_fix_parents', this.#library.extentFixParents(handle));
      }
    } finally {
      this.#library.extentFree(handle);
    }
  }

  /** Where block `logical` of a file is; 0 for a hole. */
  blockOf(inode: number, logical: number): number {
    this.#out64[0] = 0n;
    const code = this.#library.mapBlock(this.#handle, inode, 0, 0, 0, logical, 0, this.#out64);
    this.#check('ext2fs_bmap2', code);
    return Number(this.#out64[0]);
  }

  /** Says where block `logical` of a file is. Its size and its count of blocks are the caller's. */
  setBlockOf(inode: number, logical: number, block: number): void {
    this.#out64[0] = BigInt(block);
    const code = this.#library.mapBlock(
      this.#handle,
      inode,
      0,
      0,
      MAP_SET,
      logical,
      0,
      this.#out64,
    );
    this.#check('ext2fs_bmap2', code);
  }

  /** The inode that `name` stands for in a directory, or null. */
  lookup(directory: number, name: Buffer): number | null {
    const code = Number(
      this.#library.lookup(this.#handle, directory, name, name.length, 0, this.#out32),
    );
    if (code === ERROR_FILE_NOT_FOUND) return null;
    this.#check('ext2fs_lookup', code);
    return this.#out32[0] ?? null;
  }

  /** Adds an entry, growing the directory where needed. Link counts are the caller's. */
  link(directory: number, name: Buffer, inode: number, fileType: number): void {
    const text = withNul(name);
    let code = Number(this.#library.link(this.#handle, directory, text, inode, fileType));
    if (code === ERROR_DIRECTORY_FULL || code === ERROR_DIRECTORY_NO_ROOM_FOR_CHECKSUM) {
      const expanded = this.#library.expandDirectory(this.#handle, directory);
      this.#check('ext2fs_expand_dir', expanded);
      code = Number(this.#library.link(this.#handle, directory, text, inode, fileType));
    }
    this.#check('ext2fs_link', code);
  }

  /** Removes an entry. Link counts are the caller's. */
  unlink(directory: number, name: Buffer): void {
    const code = this.#library.unlink(this.#handle, directory, withNul(name), 0, 0);
    this.#check('ext2fs_unlink', code);
  }

  /**
   * Gives an inode exactly these extended attributes. Names are full: `user.x`. A block that the old
   * ones took is freed, but may still be in the library's cache.
   */
  setAttributes(inode: number, attributes: readonly { name: Buffer; value: Buffer }[]): void {
    const freed = this.#library.freeAttributeBlock(this.#handle, inode, 0);
    this.#check('ext2fs_free_ext_attr', freed);
    const handleOut = new BigUint64Array(32);
    this.#check('ext2fs_xattrs_open', this.#library.xattrsOpen(this.#handle, inode, handleOut));
    const handle = Number(handleOut[0]);
    try {
      if (attributes.length === 0) {
        this.#check('ext2fs_xattrs_write', this.#library.xattrsWrite(handle));
      }
      for (const { name, value } of attributes) {
        const code = this.#library.xattrSet(handle, withNul(name), value, value.length);
        this.#check('ext2fs_xattr_set', code);
      }
    } finally {
      this.#library.xattrsClose(handleOut);
    }
  }

  /** Frees the blocks of a file's content, and nothing else of it. */
  freeContent(inode: number): void {
    const code = this.#library.punch(this.#handle, inode, 0, 0, 0, 2n ** 64n - 1n);
    this.#check('ext2fs_punch', code);
  }

  /** Accounts an inode as free. */
  freeInode(inode: number, isDirectory: boolean): void {
    this.#library.inodeStats(this.#handle, inode, -1, isDirectory ? 1 : 0);
  }

  #fixClock(nowSeconds: number): void {
    const view = new DataView(koffi.view(this.#handle, FILESYSTEM.bytes));
    const known =
      Number(view.getBigInt64(FILESYSTEM.magic, true)) === MAGIC_FILESYSTEM &&
      view.getUint32(FILESYSTEM.blockBytes, true) === EXT4_BLOCK_BYTES &&
      view.getUint32(FILESYSTEM.groupCount, true) > 0 &&
      view.getBigInt64(FILESYSTEM.now, true) === 0n;
    if (!known) {
      throw new ReplaybdError(
        'ERR_EXT4_LIBRARY',
        'libext2fs.so.2: its structures are not those of versions 1.43 to 1.47; ' +
          'the file system could not be made reproducible. Install one of these.',
      );
    }
    view.setBigInt64(FILESYSTEM.now, BigInt(nowSeconds), true);
  }

  #check(call: string, result: number | bigint): void {
    const code = Number(result);
    const thrown = this.#image.takeError();
    if (thrown !== undefined) throw thrown;
    if (code === 0) return;
    const isWithoutInodes = code === ERROR_INODE_ALLOCATION;
    const full = code === ERROR_BLOCK_ALLOCATION || isWithoutInodes;
    const remedy = `Give it ${isWithoutInodes ? 'more inodes or ' : ''}a larger virtual size.`;
    const reason = full
      ? `the content does not fit into the file system. ${remedy}`
      : this.#library.message(code);
    throw new ReplaybdError(
      full ? 'ERR_EXT4_FULL' : 'ERR_EXT4_LIBRARY',
      `${this.#name}: ${call}: ${reason}`,
      full ? { errno: 'ENOSPC' } : {},
    );
  }
}

function withNul(name: Buffer): Buffer {
  return Buffer.concat([name, Buffer.alloc(1)]);
}
