import { ReplaybdError } from '../../base/errors.ts';
import { nbdLimits } from '../../base/limits.ts';
import type { BlockDevice } from '../../device/block-device.ts';
import { transmissionFlag } from './protocol.ts';

/** What this front end needs of a device; it has no worker threads to share it with. */
export type NbdDevice = Omit<BlockDevice, 'shared'>;

/** Devices by export name; '' is the one a client gets that names none. */
export type NbdExports = ReadonlyMap<string, NbdDevice>;

/** Refuses what no client could name or list (ERR_NBD_EXPORT). */
export function checkExports(exports: NbdExports): void {
  const { exportsMax, nameBytesMax } = nbdLimits;
  if (exports.size === 0 || exports.size > exportsMax) {
    throw new ReplaybdError(
      'ERR_NBD_EXPORT',
      `NBD server: expected 1 to ${exportsMax} devices, found ${exports.size}.`,
      { errno: 'EINVAL' },
    );
  }
  for (const name of exports.keys()) {
    if (Buffer.byteLength(name) <= nameBytesMax && !name.includes('\0')) continue;
    throw new ReplaybdError(
      'ERR_NBD_EXPORT',
      `NBD server: an export name has at most ${nameBytesMax} bytes, none of them NUL.`,
      { errno: 'EINVAL' },
    );
  }
}

/**
 * Flags a device is offered with. DF belongs to structured replies only. CAN_MULTI_CONN holds for
 * writable devices too: a flush covers every write that was answered, on whichever connection.
 */
export function transmissionFlags(device: NbdDevice, structured: boolean): number {
  const common =
    transmissionFlag.hasFlags |
    transmissionFlag.sendFlush |
    transmissionFlag.sendFua |
    transmissionFlag.canMultiConn |
    transmissionFlag.sendCache |
    (structured ? transmissionFlag.sendDf : 0);
  if (isReadOnly(device)) return common | transmissionFlag.readOnly;
  const { sendTrim, sendWriteZeroes, sendFastZero } = transmissionFlag;
  return common | sendTrim | sendWriteZeroes | sendFastZero;
}

export function isReadOnly(device: NbdDevice): boolean {
  return device.readOnly || device.writer === undefined;
}
