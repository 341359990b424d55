import { ReplaybdError } from '../base/errors.ts';
import type { TcmuHandlers } from '../frontend/tcmu/kernel/monitor.ts';
import type { TcmuEvent } from '../frontend/tcmu/kernel/tcmu-family.ts';
import type { UioDevice } from '../frontend/tcmu/kernel/uio.ts';
import type { DaemonContext } from './daemon-parts.ts';
import { SnapshotterDevice } from './snapshotter-device.ts';

/** What overlaybd's snapshotter and attacher write before the slash of dev_config. */
const SUBTYPE = 'overlaybd';

/** The devices that overlaybd's snapshotter makes, as devices of the daemon. */
export class SnapshotterDevices implements TcmuHandlers {
  readonly #context: DaemonContext;
  /** By N of /dev/uioN, which is one device's alone; ids are what somebody wrote. */
  readonly #devices = new Map<number, SnapshotterDevice>();

  constructor(context: DaemonContext) {
    this.#context = context;
  }

  accepts({ name }: UioDevice): boolean {
    return name.subtype === SUBTYPE;
  }

  async added(uio: UioDevice, isFound: boolean): Promise<void> {
    const device = new SnapshotterDevice(this.#context, uio, isFound);
    this.#devices.set(uio.minor, device);
    // Nobody waits for an answer, and it may take for ever; a removal must not wait for that.
    if (isFound) return device.keepOpening();
    try {
      await device.open();
    } catch (error) {
      if (this.#devices.get(uio.minor) === device) this.#devices.delete(uio.minor);
      throw error;
    }
  }

  async removed({ minor }: UioDevice): Promise<void> {
    const device = this.#devices.get(minor);
    this.#devices.delete(minor);
    await device?.end();
  }

  /** The size may grow, and nothing else change. */
  async reconfigured({ minor, name }: UioDevice, change: TcmuEvent['change']): Promise<void> {
    const { sizeBytes, ...others } = change;
    const refused = Object.keys(others);
    if (sizeBytes === undefined || refused.length > 0) {
      throw new ReplaybdError(
        'ERR_TCMU_RECONFIG',
        `${name.device}: a device in use may change its size, not its ` +
          `${refused.join(', ') || 'other settings'}. Detach it, and make it anew.`,
        { errno: 'EINVAL' },
      );
    }
    const served = this.#devices.get(minor)?.served ?? null;
    if (served === null) {
      throw new ReplaybdError('ERR_DEVICE_UNKNOWN', `${name.device}: this device is not served.`, {
        errno: 'ENOENT',
      });
    }
    const { attachment } = served;
    // As it is told by ourselves, when the device has grown already.
    if (sizeBytes === attachment.device.virtualSizeBytes) return;
    await attachment.grow(sizeBytes);
    this.#context.log.info({ device: served.id, sizeBytes }, 'tcmu: the disk has grown');
  }

  /** Ends what is being opened; resolves when it has been told how that went. Ready devices stay. */
  async close(): Promise<void> {
    await Promise.all([...this.#devices.values()].map((device) => device.interrupt()));
  }
}
