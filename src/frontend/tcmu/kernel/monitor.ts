import { constants } from 'node:os';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { messageOf, ReplaybdError } from '../../../base/errors.ts';
import { tcmuLimits } from '../../../base/limits.ts';
import type { Logger } from '../../../base/log.ts';
import { watchReadable, type FdWatch } from '../../../../native/fd-watch.ts';
import { readAttribute, targetFolder } from './configfs.ts';
import { blockNetlink, resetNetlink } from './module-parameters.ts';
import { TcmuFamily, type TcmuEvent, type TcmuEventKind } from './tcmu-family.ts';
import { findUioDevice, listUioDevices, type UioDevice } from './uio.ts';

/**
 * Who serves devices. What these reject with becomes the errno with which the kernel fails what it
 * was asked for; they may take long, and run beside one another.
 */
export interface TcmuHandlers {
  /** Which devices are meant for it: others are left alone, their events too. */
  accepts(device: UioDevice): boolean;
  /**
   * A device was made; whoever makes it waits. `isFound`: it was there before, perhaps with commands
   * of another process's time in its ring, and is to be adopted.
   */
  added(device: UioDevice, isFound: boolean): Promise<void>;
  /** The device goes away; it must be let go of before the promise resolves. */
  removed(device: UioDevice): Promise<void>;
  /** Its settings are to change; rejecting leaves them as they were. */
  reconfigured(device: UioDevice, change: TcmuEvent['change']): Promise<void>;
}

export interface TcmuMonitorOptions {
  handlers: TcmuHandlers;
  log: Logger;
  /** Room for events that nobody has read. */
  receiveBytes?: number;
}

interface Known {
  device: UioDevice;
  deviceIndex: number;
  /** What is being done about it; the next event of the device waits for it. */
  work: Promise<void>;
}

/**
 * Follows which TCMU devices there are: those it finds, then the kernel's events, each answered
 * when its handler is done. Devices do not wait for one another. Events that were lost are made up
 * for by looking again.
 */
export class TcmuMonitor {
  readonly #handlers: TcmuHandlers;
  readonly #log: Logger;
  readonly #family: TcmuFamily;
  readonly #known = new Map<number, Known>();
  #watch: FdWatch | null = null;

  private constructor(options: TcmuMonitorOptions) {
    this.#handlers = options.handlers;
    this.#log = options.log;
    this.#family = new TcmuFamily(options.receiveBytes ?? tcmuLimits.netlinkReceiveBytes);
  }

  /**
   * Begins with the devices that are there, and follows events from then on. What waits for the answer
   * of a process that has died fails (EINTR), as the original has it. Errors: ERR_TCMU_MODULE, or an
   * errno.
   */
  static start(options: TcmuMonitorOptions): TcmuMonitor {
    const monitor = new TcmuMonitor(options);
    try {
      blockNetlink(true);
      resetNetlink();
      monitor.#family.listen();
      for (const device of listUioDevices()) monitor.#found(device);
      monitor.#watch = watchReadable(monitor.#family.socket.fd, () => monitor.#receive());
      return monitor;
    } catch (error) {
      monitor.close();
      throw error;
    } finally {
      // While it was true, whoever made or removed a device was told to try again (EAGAIN).
      blockNetlink(false);
    }
  }

  /** Stops listening. Devices stay as they are; events are no longer answered. */
  close(): void {
    this.#watch?.close();
    this.#watch = null;
    this.#family.close();
  }

  #receive(): void {
    let lost: unknown = null;
    for (let count = 0; count < tcmuLimits.datagramsPerTurn; count += 1) {
      try {
        const received = this.#family.receive();
        if (received === null) break;
        for (const refusal of received.refusals) {
          this.#log.debug({ errno: -refusal }, 'tcmu: the kernel waits for no such answer');
        }
        for (const event of received.events) this.#onEvent(event);
      } catch (error) {
        lost = error;
      }
    }
    if (lost === null) return;
    this.#log.warn(`tcmu: ${messageOf(lost)}: looking at all devices`);
    this.#rescan();
  }

  #onEvent(event: TcmuEvent): void {
    const { kind, minor, deviceIndex, change } = event;
    if (kind === 'added') {
      const device = findUioDevice(minor);
      if (device === null || !this.#handlers.accepts(device)) return;
      return this.#added(device, deviceIndex, false, true);
    }
    const known = this.#known.get(minor);
    if (known === undefined) return;
    if (kind === 'removed') return this.#removed(known);
    const work = (): Promise<void> => this.#handlers.reconfigured(known.device, change);
    known.work = this.#answer(kind, known, known.work.then(work));
  }

  #found(device: UioDevice): void {
    if (this.#handlers.accepts(device)) this.#added(device, deviceIndexOf(device), true, false);
  }

  #added(device: UioDevice, deviceIndex: number, isFound: boolean, isAwaited: boolean): void {
    const earlier = this.#known.get(device.minor);
    // Its number is used again: the removal must have been lost.
    if (earlier !== undefined) this.#removed(earlier);
    const handled = (earlier?.work ?? Promise.resolve()).then(() =>
      this.#handlers.added(device, isFound),
    );
    const known: Known = { device, deviceIndex, work: Promise.resolve() };
    this.#known.set(device.minor, known);
    handled.catch(() => {
      if (this.#known.get(device.minor) === known) this.#known.delete(device.minor);
    });
    known.work = isAwaited ? this.#answer('added', known, handled) : this.#logged(known, handled);
  }

  #removed(known: Known): void {
    if (this.#known.get(known.device.minor) === known) this.#known.delete(known.device.minor);
    const work = known.work.then(() => this.#handlers.removed(known.device));
    known.work = this.#answer('removed', known, work);
  }

  /** Tells the kernel how it went. Never rejects. */
  async #answer(kind: TcmuEventKind, known: Known, work: Promise<void>): Promise<void> {
    let status = 0;
    try {
      await work;
    } catch (error) {
      status = -errnoOf(error);
      this.#log.error({ uio: known.device.minor, kind }, `tcmu: ${messageOf(error)}`);
    }
    try {
      if (this.#watch !== null) this.#family.answer(kind, known.deviceIndex, status);
    } catch (error) {
      this.#log.error({ uio: known.device.minor, kind }, `tcmu: ${messageOf(error)}`);
    }
  }

  async #logged(known: Known, work: Promise<void>): Promise<void> {
    await work.catch((error: unknown) => {
      this.#log.error({ uio: known.device.minor }, `tcmu: ${messageOf(error)}`);
    });
  }

  /**
   * After lost events: what waits for an answer gets one. New devices are served, and those whose
   * folder is gone are let go of; a change of settings that nobody has seen is refused, so that
   * whoever wants it asks again. The kernel knows which answers it waits for, and ignores the others.
   */
  #rescan(): void {
    const present = listUioDevices().filter((device) => this.#handlers.accepts(device));
    for (const known of [...this.#known.values()]) {
      const still = present.find(({ minor }) => minor === known.device.minor);
      if (still === undefined || !existsSync(folderOf(known.device))) this.#removed(known);
      else this.#family.answer('reconfigured', known.deviceIndex, -constants.errno.EINTR);
    }
    for (const device of present) {
      if (this.#known.has(device.minor) || !existsSync(folderOf(device))) continue;
      this.#added(device, deviceIndexOf(device), false, true);
    }
  }
}

function folderOf({ name }: UioDevice): string {
  return join(targetFolder, 'core', `user_${name.hba}`, name.device);
}

/** How events and answers name the device. */
function deviceIndexOf(device: UioDevice): number {
  return Number(readAttribute(join(folderOf(device), 'statistics', 'scsi_dev', 'indx')));
}

function errnoOf(error: unknown): number {
  const name = error instanceof ReplaybdError ? error.errno : 'EIO';
  return constants.errno[name];
}
