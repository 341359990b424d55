import koffi from 'koffi';
import { libc } from './libc.ts';

/**
 * The bytes under a file system, for libext2fs to work on instead of a file. Ranges are inside
 * `sizeBytes`. What its methods throw comes out of the library call that led to them.
 */
export interface Ext2Image {
  readonly sizeBytes: number;
  /** Fills `into` (whole). */
  read(position: number, into: Buffer): void;
  write(position: number, bytes: Buffer): void;
}

/** An image the library can open: `name` is what ext2fs_open is to be given, with `manager`. */
export interface AttachedImage {
  readonly manager: number;
  readonly name: string;
  /** What the image threw since the last time; undefined when nothing did. */
  takeError(): unknown;
  detach(): void;
}

/** struct struct_io_manager and struct_io_channel on 64-bit machines, unchanged since 1.43. */
const MANAGER = {
  ...{ magic: 0, name: 8, open: 16, close: 24, setBlockBytes: 32, read: 40, write: 48, flush: 56 },
  ...{ setOption: 72, read64: 88, write64: 96, bytes: 240 },
} as const;
const CHANNEL = {
  ...{ magic: 0, manager: 8, name: 16, blockBytes: 24, references: 48, bytes: 256 },
} as const;
const MAGIC_CHANNEL = 2133571333;
const MAGIC_MANAGER = 2133571335;
const ERROR_SHORT_READ = 2133571364;
const ERROR_SHORT_WRITE = 2133571365;
const ERROR_BAD_DEVICE_NAME = 2133571362;

/** Blocks have 1024 bytes until the superblock says otherwise. */
const FIRST_BLOCK_BYTES = 1024;
/** Larger requests go through in pieces. */
const PIECE_BYTES = 1024 * 1024;

interface OpenChannel {
  image: Ext2Image;
  blockBytes: number;
  error: unknown;
}

const allocate = libc.func('uintptr_t calloc(size_t count, size_t bytes)');
const release = libc.func('void free(uintptr_t address)');
const copyIn = libc.func('uintptr_t memcpy(void *target, uintptr_t source, size_t bytes)');
const copyOut = libc.func('uintptr_t memcpy(uintptr_t target, const void *source, size_t bytes)');

/** By name until opened, then by the address of the library's channel. */
const attached = new Map<string, OpenChannel>();
const channels = new Map<number, OpenChannel>();
const scratch = Buffer.alloc(PIECE_BYTES);
let attachedCount = 0;
let manager: { address: number; name: number } | undefined;

/** Makes an image known to the library on this thread. */
export function attachImage(image: Ext2Image): AttachedImage {
  manager ??= makeManager();
  attachedCount += 1;
  const name = `image-${attachedCount}`;
  const channel: OpenChannel = { image, blockBytes: FIRST_BLOCK_BYTES, error: undefined };
  attached.set(name, channel);
  return {
    manager: manager.address,
    name,
    takeError() {
      const { error } = channel;
      channel.error = undefined;
      return error;
    },
    detach: () => void attached.delete(name),
  };
}

function makeManager(): { address: number; name: number } {
  const name = address(allocate(1, 16));
  copyOut(name, Buffer.from('replaybd\0'), 9);
  const bytes = Buffer.alloc(MANAGER.bytes);
  const put = (at: number, value: number | bigint) => bytes.writeBigUInt64LE(BigInt(value), at);
  put(MANAGER.magic, MAGIC_MANAGER);
  put(MANAGER.name, name);
  const ioOpen = 'long ext2_io_open(const char *name, int flags, uintptr_t channelOut)';
  put(MANAGER.open, callback(ioOpen, openChannel));
  put(MANAGER.close, callback('long ext2_io_close(uintptr_t channel)', closeChannel));
  const ioBlockBytes = 'long ext2_io_block_bytes(uintptr_t channel, int bytes)';
  put(MANAGER.setBlockBytes, callback(ioBlockBytes, setBlockBytes));
  // The same with a 32-bit and a 64-bit block number: both are one register.
  const ioTransfer =
    'long ext2_io_transfer(uintptr_t channel, uint64_t block, int count, uintptr_t data)';
  const read = callback(ioTransfer, transfer(readInto, ERROR_SHORT_READ));
  const write = callback(ioTransfer, transfer(writeFrom, ERROR_SHORT_WRITE));
  put(MANAGER.read, read);
  put(MANAGER.read64, read);
  put(MANAGER.write, write);
  put(MANAGER.write64, write);
  put(
    MANAGER.flush,
    callback('long ext2_io_flush(uintptr_t channel)', () => 0),
  );
  const ioOption = 'long ext2_io_option(uintptr_t channel, uintptr_t option, uintptr_t value)';
  put(
    MANAGER.setOption,
    callback(ioOption, () => 0),
  );
  const target = address(allocate(1, MANAGER.bytes));
  copyOut(target, bytes, bytes.length);
  return { address: target, name };
}

const prototypes = new Map<string, ReturnType<typeof koffi.pointer>>();

/** The address of a C function that calls `call`. One prototype serves all its callbacks. */
function callback(prototype: string, call: (...parameters: never[]) => number): bigint {
  let type = prototypes.get(prototype);
  if (type === undefined) {
    type = koffi.pointer(koffi.proto(prototype));
    prototypes.set(prototype, type);
  }
  return koffi.register(call, type);
}

function openChannel(name: string, _flags: number, channelOut: number | bigint): number {
  const channel = attached.get(name);
  if (channel === undefined || manager === undefined) return ERROR_BAD_DEVICE_NAME;
  const bytes = Buffer.alloc(CHANNEL.bytes);
  bytes.writeBigUInt64LE(BigInt(MAGIC_CHANNEL), CHANNEL.magic);
  bytes.writeBigUInt64LE(BigInt(manager.address), CHANNEL.manager);
  bytes.writeBigUInt64LE(BigInt(manager.name), CHANNEL.name);
  bytes.writeInt32LE(FIRST_BLOCK_BYTES, CHANNEL.blockBytes);
  bytes.writeInt32LE(1, CHANNEL.references);
  const target = address(allocate(1, CHANNEL.bytes));
  copyOut(target, bytes, bytes.length);
  channels.set(target, channel);
  const pointer = Buffer.alloc(8);
  pointer.writeBigUInt64LE(BigInt(target));
  copyOut(channelOut, pointer, pointer.length);
  return 0;
}

function closeChannel(channel: number | bigint): number {
  channels.delete(Number(channel));
  release(channel);
  return 0;
}

function setBlockBytes(channel: number | bigint, bytes: number): number {
  const open = channels.get(Number(channel));
  if (open === undefined) return ERROR_BAD_DEVICE_NAME;
  open.blockBytes = bytes;
  // The library reads the size back from the channel.
  const field = Buffer.alloc(4);
  field.writeInt32LE(bytes);
  copyOut(Number(channel) + CHANNEL.blockBytes, field, field.length);
  return 0;
}

type Move = (image: Ext2Image, position: number, data: number, bytes: number) => void;

/** `count` blocks, or as many bytes when it is negative. */
function transfer(move: Move, errorCode: number) {
  return (
    channel: number | bigint,
    block: number | bigint,
    count: number,
    data: number | bigint,
  ): number => {
    const open = channels.get(Number(channel));
    if (open === undefined) return errorCode;
    const { image, blockBytes } = open;
    const position = Number(block) * blockBytes;
    const length = count < 0 ? -count : count * blockBytes;
    if (position + length > image.sizeBytes) return errorCode;
    try {
      for (let done = 0; done < length; done += PIECE_BYTES) {
        const bytes = Math.min(PIECE_BYTES, length - done);
        move(image, position + done, Number(data) + done, bytes);
      }
      return 0;
    } catch (error) {
      open.error ??= error;
      return errorCode;
    }
  };
}

function readInto(image: Ext2Image, position: number, data: number, bytes: number): void {
  const piece = scratch.subarray(0, bytes);
  image.read(position, piece);
  copyOut(data, piece, bytes);
}

function writeFrom(image: Ext2Image, position: number, data: number, bytes: number): void {
  const piece = scratch.subarray(0, bytes);
  copyIn(piece, data, bytes);
  image.write(position, piece);
}

function address(value: unknown): number {
  return Number(value);
}
