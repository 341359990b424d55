import { existsSync } from 'node:fs';
import { codeOf, messageOf, ReplaybdError } from '../base/errors.ts';
import type { FrontendRequest, PreparedFrontend } from '../frontend/frontend.ts';
import { parseOverlaybdConfig } from '../frontend/tcmu/kernel/device-name.ts';
import { TcmuMonitor, type TcmuHandlers } from '../frontend/tcmu/kernel/monitor.ts';
import type { TcmuEvent } from '../frontend/tcmu/kernel/tcmu-family.ts';
import type { UioDevice } from '../frontend/tcmu/kernel/uio.ts';
import { serveUioDevice } from '../frontend/tcmu/uio-frontend.ts';
import { attachDefaults, type AttachDefaults, type AttachParameters } from './attach-parameters.ts';
import type { DaemonContext, DaemonPart } from './daemon-parts.ts';

const MODULE_FOLDER = '/sys/module/target_core_user';
/** What overlaybd's snapshotter and attacher write before the slash of dev_config. */
const SUBTYPE = 'overlaybd';

/**
 * Serves the TCMU devices that overlaybd's snapshotter makes, those that are there and those to come,
 * as overlaybd-tcmu does. Null where the kernel's module is not loaded.
 */
export function start(context: DaemonContext): DaemonPart | null {
  if (!existsSync(MODULE_FOLDER)) {
    context.log.info('no TCMU here: target_core_user is not loaded');
    return null;
  }
  return TcmuMonitor.start({ handlers: new SnapshotterDevices(context), log: context.log });
}

class SnapshotterDevices implements TcmuHandlers {
  readonly #context: DaemonContext;

  constructor(context: DaemonContext) {
    this.#context = context;
  }

  accepts({ name }: UioDevice): boolean {
    return name.subtype === SUBTYPE;
  }

  async added(uio: UioDevice, isFound: boolean): Promise<void> {
    const { devices, service } = this.#context;
    const id = idOf(uio);
    const parameters = parametersOf(uio, attachDefaults(service));
    if (devices.has(id) && devices.get(id).state !== 'failed') {
      throw new ReplaybdError('ERR_DEVICE_CONFLICT', `duplicated dev id: ${id}`, {
        errno: 'EBUSY',
      });
    }
    const prepare = (request: FrontendRequest): PreparedFrontend =>
      this.#prepare(uio, isFound, request);
    await devices.attach(parameters, { isStored: false, prepare });
  }

  async removed(uio: UioDevice): Promise<void> {
    const id = idOf(uio);
    try {
      await this.#context.devices.detach(id);
    } catch (error) {
      // It had failed to open, or somebody has detached it.
      if (codeOf(error) !== 'ERR_DEVICE_UNKNOWN') throw error;
    }
  }

  /** The size may grow, and nothing else change. */
  async reconfigured(uio: UioDevice, change: TcmuEvent['change']): Promise<void> {
    const { sizeBytes, ...others } = change;
    const refused = Object.keys(others);
    if (sizeBytes === undefined || refused.length > 0) {
      throw new ReplaybdError(
        'ERR_TCMU_RECONFIG',
        `${uio.name.device}: a device in use may change its size, not its ` +
          `${refused.join(', ') || 'other settings'}. Detach it, and make it anew.`,
        { errno: 'EINVAL' },
      );
    }
    const { attachment } = this.#context.devices.get(idOf(uio));
    // As it is told by ourselves, when the device has grown already.
    if (sizeBytes === attachment.device.virtualSizeBytes) return;
    await attachment.grow(sizeBytes);
    this.#context.log.info({ device: idOf(uio), sizeBytes }, 'tcmu: the disk has grown');
  }

  #prepare(uio: UioDevice, isFound: boolean, request: FrontendRequest): PreparedFrontend {
    const { log, onFailed } = request;
    const onGone = (): void => {
      this.removed(uio).catch((error: unknown) => log.error({ err: error }, messageOf(error)));
    };
    return {
      readerThreads: 0,
      start: (device) => serveUioDevice(device, uio, { isFound, log, onFailed, onGone }),
      discard: () => undefined,
    };
  }
}

/** As the snapshotter names the folder; ids are asked for by other tools only. */
function idOf({ name }: UioDevice): string {
  return parseOverlaybdConfig(name.config).id ?? name.device;
}

function parametersOf(uio: UioDevice, defaults: AttachDefaults): AttachParameters {
  return {
    id: idOf(uio),
    image: parseOverlaybdConfig(uio.name.config).configPath,
    ...defaults,
    workload: [],
    frontend: 'tcmu',
    frontendParameters: {},
  };
}
