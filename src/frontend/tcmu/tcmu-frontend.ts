import { systemClock, type Clock } from '../../base/clock.ts';
import { codeOf, messageOf, ReplaybdError } from '../../base/errors.ts';
import { SECTOR_BYTES, tcmuLimits } from '../../base/limits.ts';
import { silentLogger, type Logger } from '../../base/log.ts';
import type { BlockDevice } from '../../device/block-device.ts';
import { BlockingThread } from '../../../native/blocking-thread.ts';
import { unmountFlags, unmount } from '../../../native/mount.ts';
import type { Frontend } from '../frontend.ts';
import { mountFilesystem } from '../fuse/attach-mount.ts';
import { readMountTable } from '../fuse/mount-table.ts';
import { failedDevice } from './failed-device.ts';
import { Backstore } from './kernel/backstore.ts';
import { folderName, hexDigest } from './kernel/configfs.ts';
import { LoopbackLun } from './kernel/loopback.ts';
import type { ScsiDevice } from './scsi/logical-unit.ts';
import { UioServer } from './serve-uio.ts';

/** core/user_N of all devices of our own; a snapshotter's are in others. */
const HBA = 814_000_000;
/** What our own devices' dev_config begins with, so that handlers of others leave them alone. */
export const TCMU_SUBTYPE = 'replaybd';
/** What was found, and is neither taken over nor taken down: another process's, or another image. */
const NOT_OURS = ['ERR_TCMU_BUSY', 'ERR_TCMU_LEFT_BEHIND'];
/** Begins a name that nobody has assigned but ourselves. */
const NAA_LOCAL = 'naa.3';
const NAA_DIGITS = 15;
const SERIAL_DIGITS = 32;

export interface TcmuOptions {
  /** Mount the device's file system on this directory. */
  mount?: string;
  /** To be told when the disk can be served no more. It has to be closed all the same. */
  onFailed?: (error: unknown) => void;
  clock?: Clock;
  log?: Logger;
}

/** A device as a SCSI disk of this machine. */
export interface TcmuFrontend extends Frontend {
  readonly kind: 'tcmu';
  readonly mountPoint: string | null;
}

/**
 * Serves a device through the kernel's TCMU and its loopback fabric. A disk of this id that a killed
 * process has left is taken over, with what waits for it. Whatever fails, nothing is left behind but a
 * disk that was there, and is another's or has another size.
 * Errors: ERR_TCMU_*, ERR_FILESYSTEM_UNKNOWN, or an errno.
 */
export async function startTcmu(
  device: BlockDevice,
  options: TcmuOptions = {},
): Promise<TcmuFrontend> {
  const attachment = new TcmuAttachment(device, options);
  try {
    await attachment.start();
    return attachment;
  } catch (error) {
    if (!NOT_OURS.includes(codeOf(error))) await attachment.close();
    throw error;
  }
}

/**
 * Takes down the disk of this id that a killed process has left, and that nobody has served since:
 * what waits for it fails. Nothing happens when there is none. Errors: ERR_TCMU_BUSY when a process
 * serves it, ERR_TCMU_CONFIGFS.
 */
export async function takeDownTcmu(id: string, options: TcmuOptions = {}): Promise<void> {
  const left = new TcmuAttachment(failedDevice(id, SECTOR_BYTES, takenDown(id)), options);
  await left.takeDown();
}

function takenDown(id: string): ReplaybdError {
  return new ReplaybdError('ERR_DEVICE_FAILED', `device ${id} is being taken down.`);
}

class TcmuAttachment implements TcmuFrontend {
  readonly kind = 'tcmu';
  readonly #device: ScsiDevice;
  readonly #options: TcmuOptions;
  readonly #clock: Clock;
  readonly #log: Logger;
  readonly #thread = new BlockingThread();
  readonly #backstore: Backstore;
  readonly #lun: LoopbackLun;
  #server: UioServer | null = null;
  #path = '';
  #mountPoint: string | null = null;
  #closing: Promise<void> | null = null;

  constructor(device: ScsiDevice, options: TcmuOptions) {
    this.#device = device;
    this.#options = options;
    this.#clock = options.clock ?? systemClock;
    this.#log = options.log ?? silentLogger;
    this.#backstore = new Backstore(HBA, folderName('dev_', device.id), this.#thread);
    const wwn = `${NAA_LOCAL}${hexDigest(`replaybd:${device.id}`).slice(0, NAA_DIGITS)}`;
    this.#lun = new LoopbackLun(wwn, this.#thread);
  }

  get path(): string {
    return this.#path;
  }

  get mountPoint(): string | null {
    return this.#mountPoint;
  }

  async start(): Promise<void> {
    const isAdopted = this.#backstore.isEnabled;
    if (isAdopted) await this.#adoptSize();
    else await this.#create();
    const minor = this.#backstore.uio?.minor;
    if (minor === undefined) throw this.#noUioDevice();
    this.#server = await UioServer.start({
      backstore: this.#backstore,
      minor,
      device: this.#device,
      isAdopted,
      log: this.#log,
      onEnded: (error) => this.#options.onFailed?.(error ?? this.#noUioDevice()),
    });
    this.#path = await this.#lun.attach(this.#backstore.folder, this.#clock);
    if (isAdopted) await this.#lun.rescan(this.#path);
    const { mount } = this.#options;
    if (mount !== undefined) await this.#mount(mount);
  }

  async resize(grow: () => Promise<void>): Promise<void> {
    await grow();
    await this.#backstore.setSize(this.#device.virtualSizeBytes);
    await this.#lun.rescan(this.#path);
  }

  async #create(): Promise<void> {
    // A run that was cut short may have left a LUN, which keeps its device from being removed.
    await this.#lun.detach();
    const { id, virtualSizeBytes } = this.#device;
    await this.#backstore.create({
      config: `${TCMU_SUBTYPE}/${folderName('', id)}`,
      sizeBytes: virtualSizeBytes,
      serial: hexDigest(`replaybd:${id}`).slice(0, SERIAL_DIGITS),
    });
  }

  async #mount(target: string): Promise<void> {
    if (!this.#isMounted(target, this.#path)) {
      const readOnly = this.#device.writer === undefined;
      await mountFilesystem(this.#path, target, { readOnly, thread: this.#thread });
    }
    this.#mountPoint = target;
  }

  #isMounted(target: string, disk: string | null): boolean {
    return readMountTable().some((entry) => entry.target === target && entry.source === disk);
  }

  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  /** Instead of `start`. */
  async takeDown(): Promise<void> {
    const { mount } = this.#options;
    if (mount !== undefined && this.#isMounted(mount, this.#lun.disk)) this.#mountPoint = mount;
    await this.close();
  }

  async #close(): Promise<void> {
    try {
      this.#server ??= await this.#failGuests();
      if (this.#mountPoint !== null) await this.#unmount(this.#mountPoint);
      await this.#lun.detach();
      await this.#server?.close();
      await this.#backstore.remove();
    } finally {
      this.#thread.close();
    }
  }

  /** A disk that nobody serves cannot be removed while somebody waits for it. */
  async #failGuests(): Promise<UioServer | null> {
    const backstore = this.#backstore;
    const minor = backstore.isEnabled ? backstore.uio?.minor : undefined;
    if (minor === undefined) return null;
    const { id } = this.#device;
    const device = failedDevice(id, backstore.sizeBytes, takenDown(id));
    return await UioServer.start({ backstore, minor, device, isAdopted: true, log: this.#log });
  }

  async #unmount(target: string): Promise<void> {
    for (let attempt = 0; attempt < tcmuLimits.unmountAttemptsMax; attempt += 1) {
      try {
        return await this.#thread.call('unmount', target);
      } catch (error) {
        // Not a mount point (any more): somebody else unmounted it.
        if (['ERR_EINVAL', 'ERR_ENOENT'].includes(codeOf(error))) return;
        if (codeOf(error) !== 'ERR_EBUSY') throw error;
        await this.#clock.sleep(tcmuLimits.unmountPauseMs);
      }
    }
    this.#log.warn({ mount: target }, `${target}: still in use; its users lose their disk`);
    await this.#thread.call('syncFilesystem', target).catch((error: unknown) => {
      this.#log.error({ mount: target }, messageOf(error));
    });
    unmount(target, unmountFlags.detach);
  }

  /** A process that was killed while its device grew may not have come to tell the kernel. */
  async #adoptSize(): Promise<void> {
    const found = this.#backstore.sizeBytes;
    const { virtualSizeBytes, id, writer } = this.#device;
    if (found === virtualSizeBytes) return;
    if (found < virtualSizeBytes && writer !== undefined) {
      return await this.#backstore.setSize(virtualSizeBytes);
    }
    throw new ReplaybdError(
      'ERR_TCMU_LEFT_BEHIND',
      `${this.#backstore.folder}: expected a device of ${virtualSizeBytes} bytes, found one of ` +
        `${found} that an earlier "${id}" has left. Choose another --id, or attach the same image.`,
      { errno: 'EBUSY' },
    );
  }

  #noUioDevice(): ReplaybdError {
    return new ReplaybdError(
      'ERR_TCMU_UIO',
      `${this.#backstore.folder}: it has no UIO device, or lost it. Look into dmesg.`,
    );
  }
}
