import { messageOf } from '../../base/errors.ts';
import type { Logger } from '../../base/log.ts';
import type { BlockDevice } from '../../device/block-device.ts';
import type { Backstore } from './kernel/backstore.ts';
import { hexDigest } from './kernel/configfs.ts';
import { UioMapping } from './kernel/uio.ts';
import { TcmuRing } from './ring.ts';
import { naaOfSerial, type TargetIdentity } from './scsi/identity.ts';
import { ScsiTarget } from './scsi/target.ts';

/** As libtcmu names its devices: a host that changes its runtime keeps what it knows of its disks. */
const VENDOR = 'LIO-ORG';
const PRODUCT = 'TCMU device';
const REVISION = '0002';

export interface UioServerOptions {
  /** The kernel's device, which is enabled, or about to be. */
  backstore: Backstore;
  /** N of /dev/uioN. */
  minor: number;
  device: BlockDevice;
  /** Another process has served it before: commands that it left are sent again, and it may have had no write cache. */
  isAdopted: boolean;
  log: Logger;
  /** The ring was found broken, or the device gone: nothing is answered any more. */
  onEnded?: (error: Error | null) => void;
}

/** Answers the commands of one TCMU device. */
export class UioServer {
  readonly #mapping: UioMapping;
  readonly #ring: TcmuRing;
  #closing: Promise<void> | null = null;

  private constructor(mapping: UioMapping, options: UioServerOptions) {
    const { backstore, device, isAdopted, log, minor, onEnded } = options;
    this.#mapping = mapping;
    const end = (error: Error | null): void => {
      mapping.unwatch();
      if (error !== null) log.error({ uio: minor, device: device.id }, messageOf(error));
      onEnded?.(error);
    };
    const target = new ScsiTarget(device, identityOf(backstore), { log, isAdopted });
    const { memory, kick } = mapping;
    this.#ring = new TcmuRing({ memory, target, kick, onBroken: end, log });
    mapping.watch(
      () => this.#ring.onKick(),
      () => end(null),
    );
  }

  /**
   * Takes the device over. Its commands wait while a ring that another process has left is emptied.
   * Errors: ERR_TCMU_BUSY when that process is still there, ERR_TCMU_CONFIGFS, ERR_TCMU_RING.
   */
  static async start(options: UioServerOptions): Promise<UioServer> {
    const { backstore, isAdopted, minor } = options;
    const mapping = new UioMapping(minor);
    try {
      if (isAdopted) {
        await backstore.block(true);
        await backstore.resetRing();
      }
      const server = new UioServer(mapping, options);
      if (isAdopted) await backstore.block(false);
      // What came before anybody watched.
      server.#ring.onKick();
      return server;
    } catch (error) {
      mapping.close();
      throw error;
    }
  }

  /**
   * Answers what has been taken from the ring, then lets go of the device. Commands that come later
   * wait in it for the next who serves it.
   */
  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  async #close(): Promise<void> {
    this.#mapping.unwatch();
    await this.#ring.drain();
    this.#mapping.close();
  }
}

function identityOf(backstore: Backstore): TargetIdentity {
  // A device that nobody has given a number still needs one of its own.
  const serial = backstore.serial || hexDigest(backstore.folder).slice(0, 32);
  return { vendor: VENDOR, product: PRODUCT, revision: REVISION, serial, wwn: naaOfSerial(serial) };
}
