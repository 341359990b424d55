import { messageOf, ReplaybdError } from '../base/errors.ts';
import { tcmuLimits } from '../base/limits.ts';
import type { FrontendRequest, PreparedFrontend } from '../frontend/frontend.ts';
import { parseOverlaybdConfig, type TcmuName } from '../frontend/tcmu/kernel/device-name.ts';
import type { UioDevice } from '../frontend/tcmu/kernel/uio.ts';
import { failWaiting, serveUioDevice } from '../frontend/tcmu/uio-frontend.ts';
import { readImageConfig } from '../image/config.ts';
import { attachDefaults, type AttachParameters } from './attach-parameters.ts';
import type { DaemonContext } from './daemon-parts.ts';
import type { AttachOptions } from './devices.ts';
import { writeResult } from './open-image.ts';
import type { ServedDevice } from './served-device.ts';

/** N of the folder user_N in which overlaybd's snapshotter makes its devices. */
const SNAPSHOTTER_HBA = 999_999_999;

/**
 * The id that was given to it; else its folder's name, as the snapshotter names it. Others may have
 * folders of the same name, each under a host adapter of its own.
 */
export function idOfTcmu({ hba, device, config }: TcmuName): string {
  const given = parseOverlaybdConfig(config).id;
  return given ?? (hba === SNAPSHOTTER_HBA ? device : `user_${hba}-${device}`);
}

/** A device that overlaybd's snapshotter, or somebody like it, has made in configfs. */
export class SnapshotterDevice {
  readonly id: string;
  readonly #context: DaemonContext;
  readonly #uio: UioDevice;
  readonly #isFound: boolean;
  /** Its identity says which of the daemon's devices is this one. */
  readonly #parameters: AttachParameters;
  readonly #stop = new AbortController();
  /** The opening that is under way, with the telling of how it went. */
  #opening: Promise<void> = Promise.resolve();

  /** `isFound`: a former process may have served it. */
  constructor(context: DaemonContext, uio: UioDevice, isFound: boolean) {
    this.#context = context;
    this.#uio = uio;
    this.#isFound = isFound;
    this.id = idOfTcmu(uio.name);
    this.#parameters = {
      id: this.id,
      image: parseOverlaybdConfig(uio.name.config).configPath,
      ...attachDefaults(context.service),
      workload: [],
      frontend: 'tcmu',
      frontendParameters: {},
    };
  }

  /** Null while it is not among the daemon's devices. */
  get served(): ServedDevice | null {
    const { devices } = this.#context;
    const present = devices.has(this.id) ? devices.get(this.id) : null;
    return present?.parameters === this.#parameters ? present : null;
  }

  /** Errors: ERR_DEVICE_CONFLICT for an id that is taken, and those of Devices.attach. */
  open(): Promise<void> {
    const opening = this.#told(async () => {
      this.#requireFreeId();
      await this.#context.devices.attach(this.#parameters, this.#options);
    });
    this.#opening = opening.catch(() => undefined);
    return opening;
  }

  /**
   * Opens it, for guests who wait already: again and again, later each time, until it is ready, or
   * somebody ends it. Never rejects.
   */
  keepOpening(): void {
    this.#opening = this.#keepOpening();
  }

  /** Ends opening it; resolves when it has ended, and that was told. */
  async interrupt(): Promise<void> {
    this.#stop.abort(new DOMException('the daemon lets go of the device', 'AbortError'));
    await this.#opening;
  }

  /** The kernel's device goes away. */
  async end(): Promise<void> {
    this.#stop.abort(new DOMException('the device was removed', 'AbortError'));
    await this.#detach();
    await this.#opening;
    // It may just have been between two attempts to open it.
    await this.#detach();
  }

  async #detach(): Promise<void> {
    if (this.served !== null) await this.#context.devices.detach(this.id);
  }

  async #keepOpening(): Promise<void> {
    for (let pauseMs: number = tcmuLimits.reopenMsFirst; ; pauseMs *= 2) {
      const device = await this.#adopt();
      if (device?.state === 'ready') return;
      if (await this.#isEndedWithin(Math.min(pauseMs, tcmuLimits.reopenMsMax), device)) return;
    }
  }

  /** Gives the device, ready or failed; null when its id is taken, or there may be no more devices. */
  async #adopt(): Promise<ServedDevice | null> {
    let device: ServedDevice | null = null;
    const adopt = async (): Promise<void> => {
      this.#requireFreeId();
      device = await this.#context.devices.adopt(this.#parameters, this.#options);
      await device?.ready;
    };
    await this.#told(adopt).catch((error: unknown) => {
      if (device === null) this.#context.log.error({ device: this.id }, messageOf(error));
    });
    return device;
  }

  async #isEndedWithin(ms: number, device: ServedDevice | null): Promise<boolean> {
    const over = new AbortController();
    const signal = AbortSignal.any([this.#stop.signal, over.signal]);
    const pause = this.#context.runtime.clock.sleep(ms, signal).then(
      () => false,
      () => true,
    );
    try {
      return await Promise.race([
        pause,
        ...(device === null ? [] : [device.ended.then(() => true)]),
      ]);
    } finally {
      over.abort();
    }
  }

  /** Says how it went where the image's configuration wants it, before anybody else hears of it. */
  async #told(work: () => Promise<void>): Promise<void> {
    try {
      await work();
    } catch (error) {
      await this.#tell(`failed:${messageOf(error)}`);
      throw error;
    }
    await this.#tell('success');
  }

  async #tell(result: string): Promise<void> {
    const config = await readImageConfig(this.#parameters.image).catch(() => null);
    await writeResult(this.#context.log, config?.resultFile ?? '', result);
  }

  #requireFreeId(): void {
    if (!this.#context.devices.has(this.id) || this.served !== null) return;
    throw new ReplaybdError(
      'ERR_DEVICE_CONFLICT',
      `duplicated dev id: ${this.id}: another device has it. Detach that one first.`,
      { errno: 'EBUSY' },
    );
  }

  get #options(): AttachOptions {
    return {
      isStored: false,
      writesResult: false,
      signal: this.#stop.signal,
      prepare: (request) => this.#prepare(request),
    };
  }

  #prepare({ log, onFailed }: FrontendRequest): PreparedFrontend {
    const isFound = this.#isFound;
    const onGone = (): void => {
      this.end().catch((error: unknown) => log.error({ err: error }, messageOf(error)));
    };
    return {
      readerThreads: 0,
      start: (device) => serveUioDevice(device, this.#uio, { isFound, log, onFailed, onGone }),
      discard: () => undefined,
      takeDown: () => failWaiting(this.#uio),
    };
  }
}
