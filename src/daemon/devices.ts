import { isDeepStrictEqual } from 'node:util';
import PQueue from 'p-queue';
import { codeOf, messageOf, ReplaybdError } from '../base/errors.ts';
import { daemonLimits } from '../base/limits.ts';
import type { AttachParameters } from './attach-parameters.ts';
import type { AttachmentReport } from './attachment.ts';
import type { AuditSink, AuditValues } from './audit-log.ts';
import type { DeviceStore } from './device-store.ts';
import type { Runtime } from './runtime.ts';
import { ServedDevice, type DeviceEnd, type ServeOptions } from './served-device.ts';

export interface DevicesOptions {
  readonly runtime: Runtime;
  /** The runtime directory: sockets and mount points of front ends. */
  readonly directory: string;
  /** Where devices are described, to be attached again by the next process; null: nowhere. */
  readonly store?: DeviceStore | null;
  readonly audit?: AuditSink;
}

export interface AttachOptions extends ServeOptions {
  /** False for a device that somebody else describes. */
  readonly isStored?: boolean;
}

/**
 * The devices of a process, by id. They are opened and closed side by side: nothing here waits for
 * one device on behalf of another.
 */
export class Devices {
  readonly runtime: Runtime;
  readonly #directory: string;
  readonly #store: DeviceStore | null;
  readonly #audit: AuditSink;
  readonly #devices = new Map<string, ServedDevice>();
  #isClosed = false;

  constructor({ runtime, directory, store = null, audit = () => undefined }: DevicesOptions) {
    this.runtime = runtime;
    this.#directory = directory;
    this.#store = store;
    this.#audit = audit;
  }

  /** By name. */
  list(): ServedDevice[] {
    return [...this.#devices.values()].sort((a, b) => (a.id < b.id ? -1 : 1));
  }

  has(id: string): boolean {
    return this.#devices.has(id);
  }

  /** Throws ERR_DEVICE_UNKNOWN. */
  get(id: string): ServedDevice {
    const device = this.#devices.get(id);
    if (device !== undefined) return device;
    const names = this.list().map((one) => one.id);
    const some = names.slice(0, 8).join(', ');
    const known = names.length === 0 ? 'nothing' : names.length > 8 ? `${some}, ...` : some;
    throw new ReplaybdError(
      'ERR_DEVICE_UNKNOWN',
      `no device ${id}; this process serves ${known}.`,
      { errno: 'ENOENT' },
    );
  }

  /**
   * Attaches a device and gives it once it can be used. Asking again for what is attached, or is
   * being attached, gives that device; one that failed is attached anew. A device that cannot be
   * opened is forgotten. Errors: ERR_DEVICE_CONFLICT, ERR_DEVICES_MAX, ERR_DAEMON_CLOSING, and those of
   * Attachment.open and of the front end.
   */
  async attach(parameters: AttachParameters, options: AttachOptions = {}): Promise<ServedDevice> {
    return await this.#audited('attach', parameters.id, () => this.#attach(parameters, options));
  }

  async #attach(parameters: AttachParameters, options: AttachOptions): Promise<ServedDevice> {
    const device = await this.#begin(parameters, options);
    try {
      await device.ready;
      return device;
    } catch (error) {
      await this.#forget(device).catch(() => undefined);
      throw error;
    }
  }

  /**
   * As `attach`, for a device of a former process: one that cannot be opened stays, as failed, until
   * it is attached again or detached. Gives the device, whatever came of it; null when it could not
   * even be begun. Never rejects.
   */
  async adopt(
    parameters: AttachParameters,
    options: AttachOptions = {},
  ): Promise<ServedDevice | null> {
    let device: ServedDevice | null = null;
    try {
      await this.#audited('adopt', parameters.id, async () => {
        device = await this.#begin(parameters, { isStored: false, ...options });
        await device.ready;
      });
    } catch (error) {
      const { id } = parameters;
      this.runtime.log.error(
        { err: error, device: id },
        `device ${id} cannot be attached again: ${messageOf(error)}`,
      );
    }
    return device;
  }

  /** Detaches a device; resolves when it is gone. Throws ERR_DEVICE_UNKNOWN, or what closing threw. */
  async detach(id: string): Promise<AttachmentReport | null> {
    const device = this.get(id);
    return await this.#audited('detach', id, async () => {
      // It is closing from here on: who attaches it now waits for that.
      const gone = this.#forget(device, 'detach');
      const [report] = await Promise.all([gone, this.#store?.remove(id)]);
      return report;
    });
  }

  /**
   * The process ends: closes every device, or leaves it to the next process where its front end can.
   * Descriptions stay. No device is attached from now on.
   */
  async close(): Promise<void> {
    this.#isClosed = true;
    const queue = new PQueue({ concurrency: daemonLimits.closingMax });
    await queue.addAll(
      this.list().map((device) => async () => {
        await this.#forget(device, 'leave').catch((error: unknown) => {
          this.runtime.log.error(
            { err: error, device: device.id },
            `device ${device.id} was not closed in order: ${messageOf(error)}`,
          );
        });
      }),
    );
  }

  /** The device of that name and these parameters: there already, or begun now. */
  async #begin(parameters: AttachParameters, options: AttachOptions): Promise<ServedDevice> {
    const { id } = parameters;
    for (let present = this.#devices.get(id); present; present = this.#devices.get(id)) {
      if (present.state === 'opening' || present.state === 'ready') {
        if (isDeepStrictEqual(present.parameters, parameters)) return present;
        throw conflict(present, parameters);
      }
      // What is being detached is waited for; what failed makes room.
      await this.#forget(present).catch(() => undefined);
    }
    if (this.#isClosed) {
      throw new ReplaybdError('ERR_DAEMON_CLOSING', `${id}: the daemon is ending.`, {
        errno: 'EBUSY',
      });
    }
    if (this.#devices.size >= daemonLimits.devicesMax) {
      throw new ReplaybdError(
        'ERR_DEVICES_MAX',
        `${id}: ${this.#devices.size} devices are attached, and no more are allowed. Detach some.`,
        { errno: 'EBUSY' },
      );
    }
    const device = new ServedDevice(this.runtime, this.#directory, parameters, options);
    this.#devices.set(id, device);
    if (options.isStored !== false) await this.#remember(device);
    return device;
  }

  /** A device that cannot be described would be lost by a restart: better an error now. */
  async #remember(device: ServedDevice): Promise<void> {
    try {
      await device.ready;
      await this.#store?.save(device.parameters);
    } catch (error) {
      // What a former process, or an attempt before, left of it is void too.
      await this.#store?.remove(device.id);
      await this.#forget(device).catch(() => undefined);
      throw error;
    }
  }

  /** Leaves a line in the audit log, of success or failure. */
  async #audited<T>(scope: string, id: string, work: () => Promise<T>): Promise<T> {
    const { clock } = this.runtime;
    const startMs = clock.nowMs();
    const tell = (outcome: AuditValues): void => {
      const latency = Math.round((clock.nowMs() - startMs) * 1000);
      this.#audit(scope, { pathname: id, latency, ...outcome });
    };
    try {
      const result = await work();
      tell({});
      return result;
    } catch (error) {
      tell({ error: codeOf(error) || 'unknown' });
      throw error;
    }
  }

  async #forget(
    device: ServedDevice,
    how: DeviceEnd = 'replace',
  ): Promise<AttachmentReport | null> {
    try {
      return await device.close(how);
    } finally {
      if (this.#devices.get(device.id) === device) this.#devices.delete(device.id);
    }
  }
}

function conflict(present: ServedDevice, wanted: AttachParameters): ReplaybdError {
  const { parameters } = present;
  const keys = Object.keys({ ...parameters, ...wanted }) as (keyof AttachParameters)[];
  const different = keys.filter((key) => !isDeepStrictEqual(parameters[key], wanted[key]));
  return new ReplaybdError(
    'ERR_DEVICE_CONFLICT',
    `device ${wanted.id} is attached with other parameters (${different.join(', ')} differ). ` +
      'Detach it first, or choose another id.',
    { errno: 'EBUSY' },
  );
}
