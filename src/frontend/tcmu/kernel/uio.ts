import {
  closeSync,
  constants,
  openSync,
  readdirSync,
  readFileSync,
  readSync,
  writeSync,
} from 'node:fs';
import { join } from 'node:path';
import { codeOf, ReplaybdError } from '../../../base/errors.ts';
import { tcmuLimits } from '../../../base/limits.ts';
import { watchReadable, type FdWatch } from '../../../../native/fd-watch.ts';
import { mapDevice, type MemoryMap } from '../../../../native/memory-map.ts';
import { SYSTEM_ROOT } from './configfs.ts';
import { parseUioName, type TcmuName } from './device-name.ts';

/** A TCMU device that the kernel has, whoever serves it. */
export interface UioDevice {
  /** N of /dev/uioN. */
  readonly minor: number;
  readonly name: TcmuName;
}

/** The TCMU devices of this machine. */
export function listUioDevices(root: string = SYSTEM_ROOT): UioDevice[] {
  return readFolder(classFolder(root))
    .map((entry) => /^uio(\d+)$/.exec(entry)?.[1])
    .filter((minor) => minor !== undefined)
    .map((minor) => findUioDevice(Number(minor), root))
    .filter((device) => device !== null);
}

/** The TCMU device with this number; null when it is gone or another driver's. */
export function findUioDevice(minor: number, root: string = SYSTEM_ROOT): UioDevice | null {
  try {
    const file = join(classFolder(root), `uio${minor}`, 'name');
    const name = parseUioName(readFileSync(file, 'utf8'));
    return name === null ? null : { minor, name };
  } catch (error) {
    if (codeOf(error) === 'ENOENT' || codeOf(error) === 'ENODEV') return null;
    throw error;
  }
}

function classFolder(root: string): string {
  return join(root, 'class', 'uio');
}

function readFolder(path: string): string[] {
  try {
    return readdirSync(path);
  } catch (error) {
    if (codeOf(error) === 'ENOENT') return [];
    throw error;
  }
}

/**
 * /dev/uioN, opened: the memory that a device's commands and data are in, and the descriptor that
 * tells of new commands. The kernel lets one process have it open at a time.
 */
export class UioMapping {
  readonly memory: Uint8Array;
  readonly #path: string;
  readonly #fd: number;
  readonly #map: MemoryMap;
  readonly #word = Buffer.alloc(4);
  #watch: FdWatch | null = null;

  /** Errors: ERR_TCMU_BUSY when somebody serves the device, ERR_TCMU_MAPPING, or an errno. */
  constructor(minor: number) {
    this.#path = `/dev/uio${minor}`;
    const sizeBytes = mappingBytes(minor);
    this.#fd = openExclusively(this.#path);
    try {
      this.#map = mapDevice(this.#fd, sizeBytes, this.#path);
    } catch (error) {
      closeSync(this.#fd);
      throw error;
    }
    this.memory = this.#map.bytes;
  }

  /** Calls `onCommands` whenever the kernel has queued some; `onGone` once the device is removed. */
  watch(onCommands: () => void, onGone: () => void): void {
    this.#watch = watchReadable(this.#fd, () => {
      if (this.#takeEvents()) return onCommands();
      this.unwatch();
      onGone();
    });
  }

  unwatch(): void {
    this.#watch?.close();
    this.#watch = null;
  }

  /** Tells the kernel to look for answers. */
  readonly kick = (): void => {
    writeSync(this.#fd, this.#word);
  };

  /** Nothing may use `memory` any more. */
  close(): void {
    this.unwatch();
    this.#map.unmap();
    closeSync(this.#fd);
  }

  /** Takes the count of events off the descriptor; false when the device is no longer there. */
  #takeEvents(): boolean {
    try {
      readSync(this.#fd, this.#word);
      return true;
    } catch (error) {
      if (codeOf(error) === 'EAGAIN') return true;
      if (codeOf(error) === 'EIO') return false;
      throw error;
    }
  }
}

function openExclusively(path: string): number {
  try {
    return openSync(path, constants.O_RDWR | constants.O_NONBLOCK);
  } catch (error) {
    if (codeOf(error) !== 'EBUSY') throw error;
    throw new ReplaybdError(
      'ERR_TCMU_BUSY',
      `${path}: another process serves this device. Stop it, or choose another --id.`,
      { errno: 'EBUSY', cause: error },
    );
  }
}

function mappingBytes(minor: number): number {
  const file = join(classFolder(SYSTEM_ROOT), `uio${minor}`, 'maps', 'map0', 'size');
  const sizeBytes = Number(readFileSync(file, 'utf8'));
  if (Number.isSafeInteger(sizeBytes) && sizeBytes > 0 && sizeBytes <= tcmuLimits.mappingBytesMax) {
    return sizeBytes;
  }
  throw new ReplaybdError(
    'ERR_TCMU_MAPPING',
    `${file}: expected up to ${tcmuLimits.mappingBytesMax} bytes, found ${sizeBytes}.`,
  );
}
