import { messageOf } from '../../base/errors.ts';
import { tcmuLimits } from '../../base/limits.ts';
import type { Logger } from '../../base/log.ts';
import { failedDevice } from './failed-device.ts';
import type { Backstore } from './kernel/backstore.ts';
import { hexDigest } from './kernel/configfs.ts';
import { UioMapping } from './kernel/uio.ts';
import { TcmuRing } from './ring.ts';
import { naaOfSerial, type TargetIdentity } from './scsi/identity.ts';
import type { ScsiDevice } from './scsi/logical-unit.ts';
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
  device: ScsiDevice;
  /**
   * Another process has served it before: commands that it left are sent again, and it may have had no
   * write cache.
   */
  isAdopted: boolean;
  log: Logger;
  /**
   * The ring was found broken, and guests get errors from now on; or, with null, the device is gone.
   */
  onEnded?: (error: Error | null) => void;
}

/** Answers the commands of one TCMU device. */
export class UioServer {
  readonly #mapping: UioMapping;
  readonly #options: UioServerOptions;
  #ring: TcmuRing;
  #resets = 0;
  #recovery: Promise<void> = Promise.resolve();
  #closing: Promise<void> | null = null;

  private constructor(mapping: UioMapping, options: UioServerOptions) {
    const { backstore, device, isAdopted, log } = options;
    this.#mapping = mapping;
    this.#options = options;
    const target = new ScsiTarget(device, identityOf(backstore), { log, isAdopted });
    this.#ring = this.#serve(target);
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
        await backstore.resetRing('repeat');
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
    await this.#recovery;
    this.#mapping.unwatch();
    await this.#ring.drain();
    this.#mapping.close();
  }

  #serve(target: ScsiTarget): TcmuRing {
    const { memory, kick } = this.#mapping;
    const onBroken = (error: Error): void => this.#onBroken(error);
    const ring = new TcmuRing({ memory, target, kick, onBroken, log: this.#options.log });
    this.#mapping.watch(
      () => ring.onKick(),
      () => this.#options.onEnded?.(null),
    );
    return ring;
  }

  #onBroken(error: Error): void {
    const { minor, device, log, onEnded } = this.#options;
    this.#mapping.unwatch();
    log.error({ uio: minor, device: device.id }, messageOf(error));
    onEnded?.(error);
    // Whoever serves the device next empties the ring.
    if (this.#closing !== null) return;
    this.#recovery = this.#recover(error).catch((failure: unknown) => {
      log.error(
        { uio: minor, device: device.id },
        `the ring stays as it is: ${messageOf(failure)}`,
      );
    });
  }

  /** The kernel gets a new ring. What was in the old one fails, and so does all that comes later. */
  async #recover(cause: Error): Promise<void> {
    const { backstore, device, log } = this.#options;
    // Reads under way land in memory that the kernel may take back when the ring is emptied.
    await this.#ring.drain();
    // Its removal may wait for us.
    if (!backstore.isEnabled) return;
    await backstore.block(true);
    await backstore.resetRing('fail');
    this.#resets += 1;
    if (this.#resets > tcmuLimits.ringResetsMax) throw cause;
    const failed = failedDevice(device.id, device.virtualSizeBytes, cause);
    this.#ring = this.#serve(new ScsiTarget(failed, identityOf(backstore), { log }));
    await backstore.block(false);
    this.#ring.onKick();
  }
}

function identityOf(backstore: Backstore): TargetIdentity {
  // A device that nobody has given a number still needs one of its own.
  const serial = backstore.serial || hexDigest(backstore.folder).slice(0, 32);
  return { vendor: VENDOR, product: PRODUCT, revision: REVISION, serial, wwn: naaOfSerial(serial) };
}
