import { ReplaybdError } from '../../../base/errors.ts';

/** How a target names itself: INQUIRY data, and the unit serial number and device ids of VPD. */
export interface TargetIdentity {
  /** T10 vendor identification: ASCII, 8 characters at most. */
  readonly vendor: string;
  /** 16 characters at most. */
  readonly product: string;
  /** 4 characters at most. */
  readonly revision: string;
  /** Unit serial number: ASCII, 1 to 252 characters. TCMU: what configfs has as `vpd_unit_serial`. */
  readonly serial: string;
  /** An NAA name: 16 hexadecimal digits that begin with 2, 3 or 5, or 32 that begin with 6. */
  readonly wwn: string;
}

/**
 * The name that the kernel and libtcmu give a unit of that serial number: NAA 6, the kernel's
 * company id, and the serial's first 25 hexadecimal digits. A host that changes its runtime keeps
 * its device names by it.
 */
export function naaOfSerial(serial: string): string {
  const digits = serial.toLowerCase().replaceAll(/[^0-9a-f]/g, '');
  return `6001405${digits.slice(0, 25).padEnd(25, '0')}`;
}

/** Refuses what does not fit into INQUIRY data (ERR_SCSI_IDENTITY). */
export function checkIdentity(identity: TargetIdentity): void {
  const { vendor, product, revision, serial, wwn } = identity;
  const isText = (text: string, lengthMax: number): boolean =>
    text.length <= lengthMax && /^[\x20-\x7e]*$/.test(text);
  const fits = isText(vendor, 8) && isText(product, 16) && isText(revision, 4);
  const isSerial = serial.length > 0 && isText(serial, 252);
  if (fits && isSerial && /^([235][0-9a-f]{15}|6[0-9a-f]{31})$/i.test(wwn)) return;
  throw new ReplaybdError(
    'ERR_SCSI_IDENTITY',
    `SCSI target ${JSON.stringify(identity)}: expected ASCII names of at most 8, 16 and 4 ` +
      'characters, a serial number of 1 to 252, and an NAA name of 16 or 32 hexadecimal digits.',
    { errno: 'EINVAL' },
  );
}
