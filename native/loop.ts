import { closeSync, existsSync, openSync, readFileSync, readdirSync, statSync } from 'node:fs';
import koffi from 'koffi';
import { codeOf, ReplaybdError } from '../src/base/errors.ts';
import { loopLimits, SECTOR_BYTES } from '../src/base/limits.ts';
import { errnoError, libc } from './libc.ts';

const ioctlValue = libc.func('int ioctl(int fd, ulong request, long value)');
const ioctlBytes = libc.func('int ioctl(int fd, ulong request, void *argument)');

// linux/loop.h
const LOOP_CLR_FD = 0x4c01;
const LOOP_SET_CAPACITY = 0x4c07;
const LOOP_SET_DIRECT_IO = 0x4c08;
const LOOP_CONFIGURE = 0x4c0a;
const LOOP_CTL_GET_FREE = 0x4c82;
/** linux/fs.h: how far to read ahead, in sectors. */
const BLKRASET = 0x1262;
const LO_FLAGS_READ_ONLY = 1;
const LO_FLAGS_AUTOCLEAR = 4;
const LO_FLAGS_DIRECT_IO = 16;

/*
 * struct loop_config: fd u32, block_size u32, struct loop_info64 at byte 8, 8 reserved words.
 * struct loop_info64: ... lo_flags u32 at 52, lo_file_name[64] at 56 ...
 */
const CONFIG_BYTES = 304;
const FLAGS_AT = 8 + 52;
const FILE_NAME_AT = 8 + 56;
const FILE_NAME_BYTES_MAX = 63;

const LOOP_MAJOR = 7;
const S_IFBLK = 0o60000;

export interface LoopRequest {
  /** The backing file. */
  file: string;
  sizeBytes: number;
  readOnly: boolean;
  /** Logical block size, 512 or 4096; `sizeBytes` must be a multiple of it. */
  blockBytes: number;
  /** How far the kernel reads ahead of a sequential reader. */
  readAheadKiB: number;
}

/** The backing file, and the size that it should have. */
export type ResizeLoopRequest = Pick<LoopRequest, 'file' | 'sizeBytes'>;

export interface LoopDevice {
  /** /dev/loopN */
  device: string;
  number: number;
  /**
   * Open on the device. The kernel detaches the loop by itself (autoclear) once this descriptor
   * and everything else that has the device open, such as a mount, is gone.
   */
  fd: number;
  /** The loop bypasses the page cache of the backing file. */
  directIo: boolean;
}

/**
 * Attaches a file to a free loop device. The kernel asks the file for its attributes meanwhile: a
 * thread that serves the file must not call this. Errors: ERR_LOOP_SIZE, ERR_LOOP_BUSY, or the
 * errno of the call.
 */
export function attachLoop(request: LoopRequest): LoopDevice {
  const { file, sizeBytes, blockBytes } = request;
  if (sizeBytes % blockBytes !== 0) {
    throw new ReplaybdError(
      'ERR_LOOP_SIZE',
      `${file}: ${sizeBytes} bytes is not a multiple of the loop block size ${blockBytes}. ` +
        'Use blocks of 512 bytes.',
      { errno: 'EINVAL' },
    );
  }
  const control = openSync('/dev/loop-control', 'r+');
  try {
    const backing = openSync(file, request.readOnly ? 'r' : 'r+');
    try {
      return attachToFree(control, backing, request);
    } finally {
      closeSync(backing);
    }
  } finally {
    closeSync(control);
  }
}

/** Another process can take a free device between the question and the configuration. */
function attachToFree(control: number, backing: number, request: LoopRequest): LoopDevice {
  for (let attempt = 0; attempt < loopLimits.attemptsMax; attempt += 1) {
    const number = ioctlValue(control, LOOP_CTL_GET_FREE, 0);
    if (number < 0) throw errnoError('LOOP_CTL_GET_FREE', '/dev/loop-control');
    const device = ensureLoopNode(number);
    const fd = openSync(device, request.readOnly ? 'r' : 'r+');
    try {
      if (!configureLoop(fd, device, backing, request)) {
        closeSync(fd);
        continue;
      }
      return { device, number, fd, directIo: tuneLoop(fd, number, request) };
    } catch (error) {
      closeSync(fd);
      throw error;
    }
  }
  throw new ReplaybdError(
    'ERR_LOOP_BUSY',
    `${request.file}: other processes took ${loopLimits.attemptsMax} free loop devices in a row. ` +
      'Try again.',
    { errno: 'EBUSY' },
  );
}

/** False when somebody else configured the device first. */
function configureLoop(fd: number, device: string, backing: number, request: LoopRequest): boolean {
  const config = Buffer.alloc(CONFIG_BYTES);
  config.writeUInt32LE(backing, 0);
  config.writeUInt32LE(request.blockBytes, 4);
  const readOnly = request.readOnly ? LO_FLAGS_READ_ONLY : 0;
  config.writeUInt32LE(LO_FLAGS_AUTOCLEAR | LO_FLAGS_DIRECT_IO | readOnly, FLAGS_AT);
  config.write(request.file, FILE_NAME_AT, FILE_NAME_BYTES_MAX);
  if (ioctlBytes(fd, LOOP_CONFIGURE, config) === 0) return true;
  if (koffi.errno() === koffi.os.errno.EBUSY) return false;
  throw errnoError(`LOOP_CONFIGURE ${device}`, request.file);
}

function checkLoopSize(number: number, { file, sizeBytes }: ResizeLoopRequest): void {
  const path = `/sys/block/loop${number}/size`;
  const sectors = Number(readFileSync(path, 'utf8'));
  if (sectors * SECTOR_BYTES === sizeBytes) return;
  throw new ReplaybdError(
    'ERR_LOOP_SIZE',
    `${path}: expected ${sizeBytes / SECTOR_BYTES} sectors, found ${sectors}. ` +
      `Does ${file} report its size?`,
  );
}

/** Checks what the kernel made of it; returns whether direct I/O is on. */
function tuneLoop(fd: number, number: number, request: LoopRequest): boolean {
  checkLoopSize(number, request);
  if (ioctlValue(fd, BLKRASET, (request.readAheadKiB * 1024) / SECTOR_BYTES) !== 0) {
    throw errnoError('BLKRASET', `/dev/loop${number}`);
  }
  if (readFileSync(`/sys/block/loop${number}/loop/dio`, 'utf8').trim() === '1') return true;
  return ioctlValue(fd, LOOP_SET_DIRECT_IO, 1) === 0;
}

/**
 * Has a loop device take the size that its backing file has now. The kernel asks the file for it: a
 * thread that serves the file must not call this. Throws ERR_LOOP_SIZE, or an errno.
 */
export function resizeLoop(fd: number, number: number, request: ResizeLoopRequest): void {
  // The loop driver looks at what the kernel knows of the file. That is brought up to date by asking,
  // unless something was written in between.
  for (let look = 0; look < loopLimits.attemptsMax; look += 1) {
    if (statSync(request.file).size === request.sizeBytes) break;
  }
  if (ioctlValue(fd, LOOP_SET_CAPACITY, 0) !== 0) {
    throw errnoError('LOOP_SET_CAPACITY', `/dev/loop${number}`);
  }
  checkLoopSize(number, request);
}

/**
 * Detaches a loop device and closes its descriptor. With other openers the kernel waits for the
 * last of them. Blocks while reads of the device are in flight.
 */
export function detachLoop(fd: number): void {
  ioctlValue(fd, LOOP_CLR_FD, 0);
  closeSync(fd);
}

/** As detachLoop, for a device that another process attached. */
export function clearLoop(device: string): void {
  detachLoop(openSync(device, 'r'));
}

export interface AttachedLoop {
  device: string;
  /** As in mountinfo: 'major:minor'. */
  deviceNumber: string;
  backingFile: string;
}

/** Every loop device that has a backing file. */
export function listLoops(): AttachedLoop[] {
  const loops: AttachedLoop[] = [];
  for (const name of readdirSync('/sys/block')) {
    if (!/^loop\d+$/.test(name)) continue;
    try {
      loops.push({
        device: `/dev/${name}`,
        deviceNumber: readFileSync(`/sys/block/${name}/dev`, 'utf8').trim(),
        backingFile: readFileSync(`/sys/block/${name}/loop/backing_file`, 'utf8').trim(),
      });
    } catch (error) {
      // ENOENT: not attached. ENXIO: detached while we looked.
      if (!['ENOENT', 'ENXIO', 'ENODEV'].includes(codeOf(error))) throw error;
    }
  }
  return loops;
}

/** /dev/loopN, created where nothing like devtmpfs does it. */
function ensureLoopNode(number: number): string {
  const device = `/dev/loop${number}`;
  if (existsSync(device)) return device;
  // Bound here because C libraries before glibc 2.33 do not export the symbol.
  const mknod = libc.func('int mknod(const char *path, uint mode, ulong device)');
  const minorLow = number & 0xff;
  const minorHigh = number - minorLow;
  const deviceNumber = LOOP_MAJOR * 256 + minorLow + minorHigh * 4096;
  if (mknod(device, S_IFBLK | 0o660, deviceNumber) !== 0 && !existsSync(device)) {
    throw errnoError('mknod', device);
  }
  return device;
}
