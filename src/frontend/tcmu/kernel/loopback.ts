import { existsSync, readdirSync } from 'node:fs';
import { basename, join } from 'node:path';
import type { Clock } from '../../../base/clock.ts';
import { codeOf, messageOf, ReplaybdError } from '../../../base/errors.ts';
import { tcmuLimits } from '../../../base/limits.ts';
import type { BlockingThread } from '../../../../native/blocking-thread.ts';
import { COMMAND_SECONDS_MAX } from './backstore.ts';
import {
  makeFolder,
  readAttribute,
  removeIfThere,
  targetFolder,
  writeAttribute,
} from './configfs.ts';

/** A LUN of the kernel's loopback fabric, by which a back end's device is a disk of this machine. */
export class LoopbackLun {
  readonly #folder: string;
  readonly #wwn: string;
  readonly #thread: BlockingThread;

  /** `wwn`: naa. and 16 hexadecimal digits, one for each device. */
  constructor(wwn: string, thread: BlockingThread) {
    this.#wwn = wwn;
    this.#folder = join(targetFolder, 'loopback', wwn);
    this.#thread = thread;
  }

  /**
   * Makes the disk, or finds the one that is there, and returns its path. The kernel reads the
   * device meanwhile. Errors: ERR_TCMU_CONFIGFS; ERR_TCMU_DISK when no disk comes of it.
   */
  async attach(backstoreFolder: string, clock: Clock): Promise<string> {
    const lun = join(this.#portal, 'lun', 'lun_0');
    makeFolder(join(targetFolder, 'loopback'));
    for (const folder of [this.#folder, this.#portal, lun]) makeFolder(folder);
    if (readNexus(this.#portal) !== this.#wwn) {
      await writeAttribute(this.#thread, join(this.#portal, 'nexus'), this.#wwn);
    }
    const link = join(lun, basename(backstoreFolder));
    if (!existsSync(link)) await this.#link(backstoreFolder, link);
    return await this.#findDisk(clock);
  }

  /** The path of the disk that is there; null without one. */
  get disk(): string | null {
    if (!existsSync(this.#portal)) return null;
    const name = listFolder(`${this.#scsiDevice}/block`).at(0);
    return name === undefined ? null : `/dev/${name}`;
  }

  /** Has the kernel ask the disk for its size again, and tell whoever uses it. */
  async rescan(disk: string): Promise<void> {
    await writeAttribute(this.#thread, `/sys/block/${basename(disk)}/device/rescan`, '1');
  }

  /** Takes the disk away; the kernel flushes it first. Nothing happens when it is not there. */
  async detach(): Promise<void> {
    const lun = join(this.#portal, 'lun', 'lun_0');
    if (existsSync(lun)) {
      for (const entry of readdirSync(lun, { withFileTypes: true })) {
        if (!entry.isSymbolicLink()) continue;
        await removeIfThere(this.#thread, 'unlink', join(lun, entry.name));
      }
      await removeIfThere(this.#thread, 'rmdir', lun);
    }
    await removeIfThere(this.#thread, 'rmdir', this.#portal);
    await removeIfThere(this.#thread, 'rmdir', this.#folder);
  }

  get #portal(): string {
    return join(this.#folder, 'tpgt_1');
  }

  get #scsiDevice(): string {
    const address = `${readAttribute(join(this.#portal, 'address'))}:0`;
    return `/sys/class/scsi_device/${address}/device`;
  }

  async #link(backstoreFolder: string, link: string): Promise<void> {
    try {
      await this.#thread.call('symlink', backstoreFolder, link);
    } catch (error) {
      throw new ReplaybdError('ERR_TCMU_CONFIGFS', `${link}: ${messageOf(error)}`, {
        cause: error,
      });
    }
  }

  /**
   * The kernel makes a disk bit by bit: its name, then its node, and only later what is needed to
   * open it. A disk is there when it can be opened.
   */
  async #findDisk(clock: Clock): Promise<string> {
    const device = this.#scsiDevice;
    let missing = `${device}/block: empty`;
    for (let look = 0; look < tcmuLimits.diskLooksMax; look += 1) {
      const name = listFolder(`${device}/block`).at(0);
      if (name !== undefined) {
        const disk = `/dev/${name}`;
        try {
          await this.#thread.call('probeDevice', disk);
          await writeAttribute(this.#thread, `${device}/timeout`, String(COMMAND_SECONDS_MAX));
          return disk;
        } catch (error) {
          missing = messageOf(error);
        }
      }
      await clock.sleep(tcmuLimits.diskLookMs);
    }
    throw new ReplaybdError(
      'ERR_TCMU_DISK',
      `no disk came of the LUN within ` +
        `${(tcmuLimits.diskLooksMax * tcmuLimits.diskLookMs) / 1000} s (${missing}). Look into ` +
        'dmesg, and load the disk driver: modprobe sd_mod',
    );
  }
}

/** The initiator's name, null while there is none. */
function readNexus(portal: string): string | null {
  try {
    return readAttribute(join(portal, 'nexus'));
  } catch (error) {
    const { cause } = error as Error;
    if (codeOf(cause) === 'ENODEV') return null;
    throw error;
  }
}

function listFolder(path: string): string[] {
  try {
    return readdirSync(path);
  } catch (error) {
    if (codeOf(error) === 'ENOENT') return [];
    throw error;
  }
}
