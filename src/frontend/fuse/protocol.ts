import { constants } from 'node:os';
import { fuseLimits, SECTOR_BYTES } from '../../base/limits.ts';

/*
 * The FUSE wire protocol (linux/fuse.h, version 7), as far as one regular file needs it. Structures
 * are in host order, and this project runs on little-endian machines only.
 *
 *   request   fuse_in_header: length u32, opcode u32, unique u64, node u64, uid, gid, pid u32, u32
 *             then the operation's own structure at byte 40, then data
 *   reply     fuse_out_header: length u32, error i32 (negative errno), unique u64; then data
 */
export const opcodes = {
  forget: 2,
  getattr: 3,
  setattr: 4,
  open: 14,
  read: 15,
  write: 16,
  statfs: 17,
  release: 18,
  fsync: 20,
  flush: 25,
  init: 26,
  interrupt: 36,
  destroy: 38,
  batchForget: 42,
  fallocate: 43,
  lseek: 46,
} as const;

export const REQUEST_HEADER_BYTES = 40;
export const REPLY_HEADER_BYTES = 16;

/** Where a WRITE's data begins in its request. */
export const WRITE_DATA_AT = 80;

/** The kernel hands a request only to a reader whose buffer has room for the largest one. */
export const REQUEST_BYTES_MIN = 8192;

// Flags of INIT. BIG_WRITES allows writes above a page, MAX_PAGES requests above 32 pages.
const INIT_ASYNC_READ = 1 << 0;
const INIT_BIG_WRITES = 1 << 5;
const INIT_ASYNC_DIO = 1 << 15;
const INIT_MAX_PAGES = 1 << 22;

const OPEN_KEEP_CACHE = 1 << 1;
const OPEN_NO_FLUSH = 1 << 5;

const PROTOCOL_MAJOR = 7;
/** 7.28 brought MAX_PAGES; nothing of a later minor version is used. */
const PROTOCOL_MINOR = 28;
const PAGE_BYTES = 4096;

const S_IFREG = 0o100000;
/** The kernel may keep what it was told: it is told when the size of the device changes. */
const ATTRIBUTES_VALID_SECONDS = 86_400n;
const ROOT_INODE = 1n;

/** O_RDONLY is 0. */
const O_ACCMODE = 3;

/** A message of our own, in the place of a reply's error: forget what you know of an inode. */
const NOTIFY_INVALIDATE_INODE = 2;
const NOTIFY_UNIQUE = 0;
/** Its attributes alone, not the data that is cached. */
const ATTRIBUTES_ONLY = -1n;

const SETATTR_SIZE = 1 << 3;

export const FALLOCATE_KEEP_SIZE = 1;
export const FALLOCATE_PUNCH_HOLE = 2;
export const FALLOCATE_ZERO_RANGE = 16;

/** What the file looks like to the kernel. */
export interface FuseFile {
  sizeBytes: number;
  readOnly: boolean;
}

/** Reads a u64 that is known to be below 2^53 (offsets, lengths, request numbers). */
function readNumber(bytes: Buffer, at: number): number {
  return bytes.readUInt32LE(at + 4) * 2 ** 32 + bytes.readUInt32LE(at);
}

/** The fields of the request that a buffer holds; the buffer is filled again and again. */
export class FuseRequest {
  readonly bytes: Buffer;

  constructor(bytes: Buffer) {
    this.bytes = bytes;
  }

  get length(): number {
    return this.bytes.readUInt32LE(0);
  }

  get opcode(): number {
    return this.bytes.readUInt32LE(4);
  }

  /** Names the request in its reply. */
  get unique(): number {
    return readNumber(this.bytes, 8);
  }

  /** READ, WRITE, FALLOCATE and LSEEK: byte of the file. */
  get offset(): number {
    return readNumber(this.bytes, 48);
  }

  /** READ and WRITE: bytes. */
  get size(): number {
    return this.bytes.readUInt32LE(56);
  }

  /** FALLOCATE: bytes, and how. */
  get fallocateLength(): number {
    return readNumber(this.bytes, 56);
  }

  get fallocateMode(): number {
    return this.bytes.readUInt32LE(64);
  }

  /** LSEEK: SEEK_DATA or SEEK_HOLE. */
  get whence(): number {
    return this.bytes.readUInt32LE(56);
  }

  /** OPEN: the access mode is not O_RDONLY. */
  get opensForWriting(): boolean {
    return (this.bytes.readUInt32LE(40) & O_ACCMODE) !== 0;
  }

  /** SETATTR: the new size, or null when the size is to stay. */
  get newSize(): number | null {
    const changesSize = (this.bytes.readUInt32LE(40) & SETATTR_SIZE) !== 0;
    return changesSize ? readNumber(this.bytes, 56) : null;
  }
}

/**
 * A reply under construction. The header lies directly before the payload, so that one write sends
 * both, and the payload begins on a page. It has room for `payloadBytes` and a sector more,
 * because reads of the device are whole sectors.
 */
export class FuseReply {
  readonly bytes: Buffer;
  /** Whole sectors, made on first use: a view a read would cost more than the read. */
  readonly #views: Buffer[] = [];

  constructor(payloadBytes: number) {
    this.bytes = Buffer.allocUnsafeSlow(PAGE_BYTES + payloadBytes + 2 * SECTOR_BYTES);
  }

  /** Where the header begins: what is written to the kernel starts here. */
  static readonly HEADER_AT = PAGE_BYTES - REPLY_HEADER_BYTES;

  /** The first `sectors` of the payload. */
  payload(sectors: number): Buffer {
    return (this.#views[sectors] ??= this.bytes.subarray(
      PAGE_BYTES,
      PAGE_BYTES + sectors * SECTOR_BYTES,
    ));
  }

  /** Drops the first `skipped` bytes of a payload, keeping `length`. */
  shift(skipped: number, length: number): void {
    this.bytes.copyWithin(PAGE_BYTES, PAGE_BYTES + skipped, PAGE_BYTES + skipped + length);
  }

  /** Fills in the header; returns how many bytes to write, starting at HEADER_AT. */
  finish(unique: number, payloadBytes: number, error = 0): number {
    const length = REPLY_HEADER_BYTES + payloadBytes;
    const low = unique % 2 ** 32;
    this.bytes.writeUInt32LE(length, FuseReply.HEADER_AT);
    this.bytes.writeInt32LE(-error, FuseReply.HEADER_AT + 4);
    this.bytes.writeUInt32LE(low, FuseReply.HEADER_AT + 8);
    this.bytes.writeUInt32LE((unique - low) / 2 ** 32, FuseReply.HEADER_AT + 12);
    return length;
  }

  /** A structure of `length` bytes, zeroed. */
  #structure(length: number): Buffer {
    return this.bytes.subarray(PAGE_BYTES, PAGE_BYTES + length).fill(0);
  }

  /** fuse_init_out; returns its size. Null when the kernel's version is too old. */
  init(request: FuseRequest, file: FuseFile): number | null {
    const major = request.bytes.readUInt32LE(40);
    const minor = request.bytes.readUInt32LE(44);
    if (major < PROTOCOL_MAJOR || (major === PROTOCOL_MAJOR && minor < PROTOCOL_MINOR)) return null;
    const offered = request.bytes.readUInt32LE(52);
    const wanted = INIT_ASYNC_READ | INIT_BIG_WRITES | INIT_ASYNC_DIO | INIT_MAX_PAGES;
    const out = this.#structure(64);
    out.writeUInt32LE(PROTOCOL_MAJOR, 0);
    out.writeUInt32LE(PROTOCOL_MINOR, 4);
    out.writeUInt32LE(request.bytes.readUInt32LE(48), 8);
    out.writeUInt32LE((offered & wanted) >>> 0, 12);
    const background = file.readOnly ? fuseLimits.backgroundMax : fuseLimits.writableBackgroundMax;
    out.writeUInt16LE(background, 16);
    out.writeUInt16LE((background * 3) / 4, 18);
    out.writeUInt32LE(writeBytesMax(file), 20);
    out.writeUInt32LE(1, 24);
    out.writeUInt16LE(fuseLimits.readBytesMax / PAGE_BYTES, 28);
    return 64;
  }

  /** fuse_attr_out. */
  attributes(file: FuseFile): number {
    const out = this.#structure(104);
    out.writeBigUInt64LE(ATTRIBUTES_VALID_SECONDS, 0);
    out.writeBigUInt64LE(ROOT_INODE, 16);
    out.writeBigUInt64LE(BigInt(file.sizeBytes), 24);
    out.writeBigUInt64LE(BigInt(file.sizeBytes / SECTOR_BYTES), 32);
    out.writeUInt32LE(S_IFREG | (file.readOnly ? 0o444 : 0o644), 76);
    out.writeUInt32LE(1, 80);
    out.writeUInt32LE(PAGE_BYTES, 96);
    return 104;
  }

  /** A whole fuse_notify_inval_inode_out: the file's attributes are to be asked for again. */
  attributesChanged(): number {
    const out = this.#structure(24);
    out.writeBigUInt64LE(ROOT_INODE, 0);
    out.writeBigInt64LE(ATTRIBUTES_ONLY, 8);
    return this.finish(NOTIFY_UNIQUE, out.length, -NOTIFY_INVALIDATE_INODE);
  }

  /** fuse_open_out. What never changes may stay in the page cache from one open to the next. */
  open(file: FuseFile): number {
    const out = this.#structure(16);
    out.writeUInt32LE(file.readOnly ? OPEN_KEEP_CACHE | OPEN_NO_FLUSH : 0, 8);
    return 16;
  }

  /** fuse_write_out. */
  written(size: number): number {
    this.#structure(8).writeUInt32LE(size, 0);
    return 8;
  }

  /** fuse_lseek_out. */
  position(offset: number): number {
    this.#structure(8).writeBigUInt64LE(BigInt(offset), 0);
    return 8;
  }

  /** fuse_statfs_out. */
  statfs(file: FuseFile): number {
    const out = this.#structure(80);
    out.writeBigUInt64LE(BigInt(Math.ceil(file.sizeBytes / PAGE_BYTES)), 0);
    out.writeBigUInt64LE(1n, 24);
    out.writeUInt32LE(PAGE_BYTES, 40);
    out.writeUInt32LE(255, 44);
    out.writeUInt32LE(PAGE_BYTES, 48);
    return 80;
  }
}

/** What the kernel is told to put into one WRITE; a page where none will come. */
export function writeBytesMax(file: FuseFile): number {
  return file.readOnly ? PAGE_BYTES : fuseLimits.writeBytesMax;
}

/** A buffer that every request to such a file fits into. */
export function requestBufferBytes(file: FuseFile): number {
  return Math.max(REQUEST_BYTES_MIN, WRITE_DATA_AT + writeBytesMax(file));
}

export const { EINVAL, EIO, ENOSPC, ENOSYS, ENXIO, EOPNOTSUPP, EPROTO, EROFS } = constants.errno;
