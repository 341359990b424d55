import type { DeviceWriter } from '../../device/block-device.ts';
import type { ScsiDevice } from './scsi/logical-unit.ts';

/**
 * Answers every read and change with an error: in the place of a disk that cannot be served, so that
 * its guests need not wait, and it can be taken down.
 */
export function failedDevice(id: string, virtualSizeBytes: number, error: Error): ScsiDevice {
  const fail = (): Promise<never> => Promise.reject(error);
  const writer: DeviceWriter = { write: fail, flush: fail, discard: fail, writeZeroes: fail };
  return { id, virtualSizeBytes, readOnly: false, writer, readCached: () => false, read: fail };
}
