import { constants } from 'node:os';
import { join } from 'node:path';
import { messageOf, ReplaybdError } from '../../../base/errors.ts';
import { tcmuLimits } from '../../../base/limits.ts';
import type { Logger } from '../../../base/log.ts';
import type { FdWatch } from '../../../../native/fd-watch.ts';
import { hasFolder, readAttribute, SYSTEM_ROOT } from './configfs.ts';
import { parseUioName } from './device-name.ts';
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
  /**
   * The device goes away; it must be let go of before the promise resolves. It may be one that was
   * never added, or could not be.
   */
  removed(device: UioDevice): Promise<void>;
  /** Its settings are to change; rejecting leaves them as they were. */
  reconfigured(device: UioDevice, change: TcmuEvent['change']): Promise<void>;
}

/** The kernel's events, and how they are answered. */
export type TcmuEvents = Pick<TcmuFamily, 'listen' | 'watch' | 'receive' | 'answer' | 'close'>;

export interface TcmuMonitorOptions {
  handlers: TcmuHandlers;
  log: Logger;
  /** Closed with the monitor. The kernel's when absent. */
  events?: TcmuEvents;
  /** Where the kernel shows itself, when it is not /sys. */
  root?: string;
}

interface Known {
  device: UioDevice;
  deviceIndex: number;
  /** What is being done about it; the next event of the device waits for it. */
  work: Promise<void>;
}

/** An answer that the kernel waits for. */
interface Owed {
  kind: TcmuEventKind;
  deviceIndex: number;
}

/**
 * Follows which TCMU devices there are: those it finds, then the kernel's events, each answered
 * when its handler is done. Devices do not wait for one another. Events that were lost are made up
 * for by looking again.
 */
export class TcmuMonitor {
  readonly #handlers: TcmuHandlers;
  readonly #log: Logger;
  readonly #events: TcmuEvents;
  readonly #root: string;
  readonly #known = new Map<number, Known>();
  readonly #owed = new Set<Owed>();
  #watch: FdWatch | null = null;

  private constructor(options: TcmuMonitorOptions) {
    this.#handlers = options.handlers;
    this.#log = options.log;
    this.#root = options.root ?? SYSTEM_ROOT;
    this.#events = options.events ?? new TcmuFamily(tcmuLimits.netlinkReceiveBytes);
  }

  /**
   * Begins with the devices that are there, and follows events from then on. What waits for the answer
   * of a process that has died fails (EINTR), as the original has it. One process of a machine at a
   * time, see HandlerLock. Errors: ERR_TCMU_MODULE, ERR_TCMU_PERMISSION, or an errno.
   */
  static start(options: TcmuMonitorOptions): TcmuMonitor {
    const monitor = new TcmuMonitor(options);
    const root = monitor.#root;
    try {
      blockNetlink(true, root);
      try {
        resetNetlink(root);
        monitor.#events.listen();
        monitor.#watch = monitor.#events.watch(() => monitor.#receive());
        for (const device of listUioDevices(root)) monitor.#found(device);
      } finally {
        // While it was true, whoever made or removed a device was told to try again (EAGAIN).
        blockNetlink(false, root);
      }
      return monitor;
    } catch (error) {
      monitor.close();
      throw error;
    }
  }

  /**
   * Stops listening: what waits for an answer fails (ECANCELED; what fails with EINTR is tried again by
   * many a program, and would wait for ever). Devices stay as they are.
   */
  close(): void {
    this.#watch?.close();
    this.#watch = null;
    for (const owed of this.#owed) this.#pay(owed, -constants.errno.ECANCELED);
    this.#events.close();
  }

  #receive(): void {
    let lost: unknown = null;
    for (let count = 0; count < tcmuLimits.datagramsPerTurn; count += 1) {
      try {
        const received = this.#events.receive();
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
      const device = findUioDevice(minor, this.#root);
      if (device === null || !this.#handlers.accepts(device)) return;
      return this.#added(device, deviceIndex, false, true);
    }
    const known = this.#known.get(minor) ?? this.#unknown(event);
    if (known === null) return;
    if (kind === 'removed') return this.#removed(known);
    const work = (): Promise<void> => this.#handlers.reconfigured(known.device, change);
    known.work = this.#answer(kind, known, known.work.then(work));
  }

  /** A device for us all the same: the kernel waits for an answer. Null for those of others. */
  #unknown({ minor, name: text, deviceIndex }: TcmuEvent): Known | null {
    const name = parseUioName(text);
    if (name === null || !this.#handlers.accepts({ minor, name })) return null;
    return { device: { minor, name }, deviceIndex, work: Promise.resolve() };
  }

  #found(device: UioDevice): void {
    if (!this.#handlers.accepts(device)) return;
    this.#guarded(device, () => this.#added(device, this.#deviceIndexOf(device), true, false));
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
  async #answer(
    kind: TcmuEventKind,
    { device, deviceIndex }: Known,
    work: Promise<void>,
  ): Promise<void> {
    const owed: Owed = { kind, deviceIndex };
    this.#owed.add(owed);
    let status = 0;
    try {
      await work;
    } catch (error) {
      status = -errnoOf(error);
      this.#log.error({ uio: device.minor, kind }, `tcmu: ${messageOf(error)}`);
    }
    this.#pay(owed, status);
  }

  /** Once: whoever closes the monitor may have answered already. */
  #pay(owed: Owed, status: number): void {
    const { kind, deviceIndex } = owed;
    try {
      if (this.#owed.delete(owed)) this.#events.answer(kind, deviceIndex, status);
    } catch (error) {
      this.#log.error({ deviceIndex, kind }, `tcmu: no answer: ${messageOf(error)}`);
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
    const present = listUioDevices(this.#root).filter((device) => this.#handlers.accepts(device));
    for (const known of [...this.#known.values()]) {
      const { device, deviceIndex } = known;
      this.#guarded(device, () => {
        const still = present.find(({ minor }) => minor === device.minor);
        if (still === undefined || !hasFolder(this.#folderOf(device))) this.#removed(known);
        else this.#events.answer('reconfigured', deviceIndex, -constants.errno.EINTR);
      });
    }
    for (const device of present) {
      if (this.#known.has(device.minor) || !hasFolder(this.#folderOf(device))) continue;
      this.#guarded(device, () => this.#added(device, this.#deviceIndexOf(device), false, true));
    }
  }

  /** One device may go while it is looked at, which concerns no other. */
  #guarded(device: UioDevice, work: () => void): void {
    try {
      work();
    } catch (error) {
      this.#log.warn({ uio: device.minor }, `tcmu: left out: ${messageOf(error)}`);
    }
  }

  #folderOf({ name }: UioDevice): string {
    const core = join(this.#root, 'kernel', 'config', 'target', 'core');
    return join(core, `user_${name.hba}`, name.device);
  }

  /** How events and answers name the device. */
  #deviceIndexOf(device: UioDevice): number {
    return Number(readAttribute(join(this.#folderOf(device), 'statistics', 'scsi_dev', 'indx')));
  }
}

function errnoOf(error: unknown): number {
  const name = error instanceof ReplaybdError ? error.errno : 'EIO';
  return constants.errno[name];
}
