import assert from 'node:assert/strict';
import { nbdLimits } from '../../base/limits.ts';
import type { ByteRange } from '../../base/range.ts';
import type { DeviceExtent } from '../../device/block-device.ts';
import type { NbdDevice } from './export.ts';

/**
 * The device's extents from the range's start, alike neighbours joined, at most `countMax`. They
 * may end before the range does, which the protocol allows; at least one is given. The device is
 * asked step by step, so that a client's question about all of a disk costs what its answer does.
 */
export function statusExtents(
  device: NbdDevice,
  range: ByteRange,
  countMax: number,
): DeviceExtent[] {
  const joined: DeviceExtent[] = [];
  const end = range.offset + range.length;
  let position = range.offset;
  while (position < end) {
    const length = Math.min(end - position, nbdLimits.extentsStepBytes);
    const found = device.extents?.(position, length) ?? [{ offset: position, length, zero: false }];
    assert(found[0]?.offset === position, 'extents start where they were asked for');
    for (const extent of found) {
      const last = joined.at(-1);
      if (last !== undefined && last.zero === extent.zero) last.length += extent.length;
      else if (joined.length === countMax) return joined;
      else joined.push({ ...extent });
      position += extent.length;
    }
  }
  return joined;
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
