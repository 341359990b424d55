import { nbdLimits } from '../../base/limits.ts';
import type { ByteRange } from '../../base/range.ts';
import type { DeviceExtent } from '../../device/block-device.ts';
import type { NbdDevice } from './export.ts';

/**
 * The device's extents from the range's start, alike neighbours joined, at most `countMax`. They
 * may end before the range does, which the protocol allows; at least one is given.
 */
export function statusExtents(
  device: NbdDevice,
  range: ByteRange,
  countMax: number,
): DeviceExtent[] {
  const found = device.extents?.(range.offset, range.length) ?? [];
  const joined: DeviceExtent[] = [];
  for (const extent of found) {
    const last = joined.at(-1);
    if (last !== undefined && last.zero === extent.zero) last.length += extent.length;
    else if (joined.length === countMax) break;
    else joined.push({ ...extent });
  }
  return joined.length > 0 ? joined : [{ ...range, zero: false }];
}

/**
 * The range cut into what travels as data and what as holes. It is covered whole; holes too short
 * to be worth a chunk are data, and so is what lies beyond the last chunk allowed.
 */
export function readExtents(device: NbdDevice, range: ByteRange): DeviceExtent[] {
  if (range.length < nbdLimits.holeBytesMin || device.extents === undefined) {
    return [{ ...range, zero: false }];
  }
  const end = range.offset + range.length;
  const extents: DeviceExtent[] = [];
  let position = range.offset;
  for (const { offset, length, zero } of statusExtents(device, range, nbdLimits.descriptorsMax)) {
    if (!zero || length < nbdLimits.holeBytesMin) continue;
    if (extents.length + 3 > nbdLimits.chunksMax) break;
    if (offset > position) {
      extents.push({ offset: position, length: offset - position, zero: false });
    }
    extents.push({ offset, length, zero });
    position = offset + length;
  }
  if (position < end) extents.push({ offset: position, length: end - position, zero: false });
  return extents;
}
