import { existsSync } from 'node:fs';
import { codeOf, messageOf, ReplaybdError } from '../base/errors.ts';
import type { FrontendRequest, PreparedFrontend } from '../frontend/frontend.ts';
import { parseOverlaybdConfig } from '../frontend/tcmu/kernel/device-name.ts';
import { TcmuMonitor, type TcmuHandlers } from '../frontend/tcmu/kernel/monitor.ts';
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

  reconfigured({ name }: UioDevice): Promise<void> {
    return Promise.reject(
      new ReplaybdError(
        'ERR_TCMU_RECONFIG',
        `${name.device}: a device that is in use keeps its settings. Detach it, run replaybd resize, ` +
          'and attach it again.',
        { errno: 'EINVAL' },
      ),
    );
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
