import { existsSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { ReplaybdError } from '../../../base/errors.ts';
import { SECTOR_BYTES, tcmuLimits } from '../../../base/limits.ts';
import type { BlockingThread } from '../../../../native/blocking-thread.ts';
import {
  hasFolder,
  makeFolder,
  readAttribute,
  removeIfThere,
  requireTargets,
  targetFolder,
  writeAttribute,
} from './configfs.ts';
import { TcmuFamily } from './tcmu-family.ts';
import { listUioDevices, type UioDevice } from './uio.ts';

/** The longest time-out that the kernel can count in milliseconds: a slow read is not a broken one. */
export const COMMAND_SECONDS_MAX = 2_147_483;
/** Largest transfer of one command. */
const TRANSFER_SECTORS_MAX = 1024;
/** Where the kernel keeps data of commands under way; it takes memory as it is used. */
const DATA_AREA_MIB_DEFAULT = 16;
/** Room for events that are not looked at. */
const EVENT_BYTES = 65_536;
/** "No answers to netlink events": the device is there as soon as it is enabled. */
const NO_REPLIES = -1;

export interface BackstoreRequest {
  /** dev_config: SUBTYPE/CONFIG. */
  config: string;
  sizeBytes: number;
  /** Unit serial number. */
  serial: string;
  dataAreaMiB?: number;
}

/** A device of the kernel's user-space back end: core/user_N/NAME in configfs. */
export class Backstore {
  readonly folder: string;
  readonly #hbaFolder: string;
  readonly #hba: number;
  readonly #device: string;
  readonly #thread: BlockingThread;

  /** `hba` is N of user_N. */
  constructor(hba: number, device: string, thread: BlockingThread) {
    this.#hba = hba;
    this.#device = device;
    this.#hbaFolder = join(targetFolder, 'core', `user_${hba}`);
    this.folder = join(this.#hbaFolder, device);
    this.#thread = thread;
  }

  get isEnabled(): boolean {
    return hasFolder(this.folder) && readAttribute(join(this.folder, 'enable')) === '1';
  }

  /**
   * Makes the device. What a run that was cut short has left is removed first; an enabled one with
   * other settings too, unless it is in use. Errors: ERR_TCMU_CONFIGFS, ERR_TCMU_CONFIG.
   */
  async create(request: BackstoreRequest): Promise<void> {
    requireTargets();
    checkConfig(request.config);
    if (hasFolder(this.folder)) await this.remove();
    makeFolder(this.#hbaFolder);
    makeFolder(this.folder);
    const settings = [
      `dev_config=${request.config}`,
      `dev_size=${request.sizeBytes}`,
      `hw_block_size=${SECTOR_BYTES}`,
      `hw_max_sectors=${TRANSFER_SECTORS_MAX}`,
      `max_data_area_mb=${request.dataAreaMiB ?? DATA_AREA_MIB_DEFAULT}`,
      `nl_reply_supported=${NO_REPLIES}`,
    ];
    await this.#write('control', settings.join(','));
    await this.#write('wwn/vpd_unit_serial', request.serial);
    await this.#write('enable', '1');
    await this.#write('attrib/cmd_time_out', String(COMMAND_SECONDS_MAX));
    await this.notifyOfAborts();
  }

  /** The enabled device's UIO device, or null. */
  get uio(): UioDevice | null {
    const isThis = ({ name }: UioDevice): boolean =>
      name.hba === this.#hba && name.device === this.#device;
    return listUioDevices().find(isThis) ?? null;
  }

  get sizeBytes(): number {
    return Number(readAttribute(join(this.folder, 'attrib', 'dev_size')));
  }

  /**
   * Tells the kernel the size of an enabled device. Whoever serves the device may be asked first, by
   * an event: this process has to be able to answer meanwhile.
   */
  async setSize(sizeBytes: number): Promise<void> {
    // Events that nobody listens for fail, and with them what they are about.
    const listener = new TcmuFamily(EVENT_BYTES);
    try {
      listener.join();
      await this.#write('attrib/dev_size', String(sizeBytes));
    } finally {
      listener.close();
    }
  }

  /** What INQUIRY tells as the unit's serial number. */
  get serial(): string {
    return readAttribute(join(this.folder, 'wwn', 'vpd_unit_serial')).replace(/^.*: ?/, '');
  }

  /** How netlink events name the device. */
  get deviceIndex(): number {
    return Number(readAttribute(join(this.folder, 'statistics', 'scsi_dev', 'indx')));
  }

  /** With true, commands wait outside the ring from now on, until it is false again. */
  async block(isBlocked: boolean): Promise<void> {
    await this.#write('action/block_dev', isBlocked ? '1' : '0');
  }

  /**
   * Empties the ring. The commands in it end with BUSY, so that initiators send them again, or fail.
   * The device has to be blocked.
   */
  async resetRing(how: 'repeat' | 'fail'): Promise<void> {
    await this.#write('action/reset_ring', how === 'repeat' ? '1' : '2');
  }

  /** Has the kernel tell of commands that it gives up. Kernels before 5.10 cannot. */
  async notifyOfAborts(): Promise<void> {
    const attribute = 'attrib/tmr_notification';
    if (existsSync(join(this.folder, attribute))) await this.#write(attribute, '1');
  }

  /** Removes the device, and its host adapter when that was the last one. No LUN may lead to it. */
  async remove(): Promise<void> {
    await removeIfThere(this.#thread, 'rmdir', this.folder);
    const isEmpty = (): boolean =>
      existsSync(this.#hbaFolder) &&
      readdirSync(this.#hbaFolder, { withFileTypes: true }).every((entry) => !entry.isDirectory());
    if (isEmpty()) {
      await removeIfThere(this.#thread, 'rmdir', this.#hbaFolder).catch((error: unknown) => {
        // Somebody has made another device in the meantime.
        if (isEmpty()) throw error;
      });
    }
  }

  async #write(attribute: string, text: string): Promise<void> {
    await writeAttribute(this.#thread, join(this.folder, attribute), text);
  }
}

function checkConfig(config: string): void {
  if (Buffer.byteLength(config) < tcmuLimits.configBytesMax && !/[,\s]/.test(config)) return;
  throw new ReplaybdError(
    'ERR_TCMU_CONFIG',
    `dev_config ${JSON.stringify(config)}: expected fewer than ${tcmuLimits.configBytesMax} bytes ` +
      'without commas and white space. Use a shorter id or path.',
    { errno: 'EINVAL' },
  );
}
