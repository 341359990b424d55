import type { DeviceWriter } from '../../../device/block-device.ts';
import {
  BLOCK_BYTES,
  blocksField,
  blocksOf,
  checkRange,
  checkTransfer,
  hasFua,
  lbaOf,
} from './block-address.ts';
import type { ScsiCommand } from './command.ts';
import type { LogicalUnit } from './logical-unit.ts';
import { isWholeBlocks } from './reads.ts';
import { invalidCdb } from './sense.ts';

/** WRITE (6), (10), (12) and (16): durable at once with FUA, or without a write cache. */
export function write(unit: LogicalUnit, command: ScsiCommand): void | Promise<void> {
  return writeData(unit, command, hasFua(command));
}

/** The common part of WRITE and WRITE AND VERIFY. */
export function writeData(
  unit: LogicalUnit,
  command: ScsiCommand,
  isDurable: boolean,
): void | Promise<void> {
  const writer = unit.requireWriter();
  const lba = lbaOf(command);
  const blocks = blocksOf(command);
  checkTransfer(unit, command, lba, blocks);
  const bytes = blocks * BLOCK_BYTES;
  if (command.dataOut.length < bytes) throw invalidCdb(blocksField(command));
  if (bytes === 0) return undefined;
  const fua = isDurable || unit.writesThrough;
  return unit.gate.run(lba, blocks, false, () =>
    writeRegion(writer, command, lba * BLOCK_BYTES, bytes, fua),
  );
}

async function writeRegion(
  writer: DeviceWriter,
  command: ScsiCommand,
  offset: number,
  bytes: number,
  fua: boolean,
): Promise<void> {
  const { dataOut } = command;
  const whole = dataOut.contiguous(bytes);
  if (whole !== null) return await writer.write(offset, whole, fua);
  if (!isWholeBlocks(dataOut) || dataOut.length !== bytes) {
    return await writer.write(offset, dataOut.copy(bytes), fua);
  }
  let at = offset;
  for (let i = 0; i < dataOut.partCount; i += 1) {
    const part = dataOut.part(i);
    if (part.length > 0) await writer.write(at, part, false);
    at += part.length;
  }
  if (fua) await writer.flush();
}

/**
 * SYNCHRONIZE CACHE (10) and (16): all that was acknowledged is durable afterwards, whatever range
 * is named. IMMED is allowed to be slow.
 */
export function synchronizeCache(unit: LogicalUnit, command: ScsiCommand): void | Promise<void> {
  checkRange(unit, lbaOf(command), blocksOf(command));
  return unit.flush();
}
