import { BLOCK_BYTES, blocksOf, checkTransfer, hasFua, lbaOf } from './block-address.ts';
import type { ScsiCommand } from './command.ts';
import type { DataRegion } from './data-region.ts';
import type { LogicalUnit, ScsiDevice } from './logical-unit.ts';

/**
 * READ (6), (10), (12) and (16). Data goes from the device into the command's buffer, and is there
 * when this returns, if all of it is local. A smaller buffer is filled, and that is no error: the
 * initiator knows how much it asked for.
 */
export function read(unit: LogicalUnit, command: ScsiCommand): void | Promise<void> {
  const lba = lbaOf(command);
  const blocks = blocksOf(command);
  checkTransfer(unit, command, lba, blocks);
  const { dataIn } = command;
  const bytes = Math.min(blocks * BLOCK_BYTES, dataIn.length);
  if (bytes < dataIn.length) dataIn.zeroFrom(bytes);
  command.dataInLength = bytes;
  if (hasFua(command) && unit.writer !== undefined) {
    return readMedium(unit, command, lba * BLOCK_BYTES, bytes);
  }
  return fill(unit.device, command, lba * BLOCK_BYTES, bytes);
}

/** What the medium has, which is what the cache has once that is flushed. */
async function readMedium(
  unit: LogicalUnit,
  command: ScsiCommand,
  offset: number,
  bytes: number,
): Promise<void> {
  await unit.writer?.flush();
  await fill(unit.device, command, offset, bytes);
}

function fill(
  device: ScsiDevice,
  command: ScsiCommand,
  offset: number,
  bytes: number,
): void | Promise<void> {
  if (bytes === 0) return undefined;
  const { dataIn } = command;
  const whole = dataIn.contiguous(bytes);
  if (whole !== null && bytes % BLOCK_BYTES === 0) {
    if (device.readCached(offset, whole)) return undefined;
    return device.read(offset, whole, command.signal);
  }
  if (isWholeBlocks(dataIn) && bytes === dataIn.length) return fillParts(device, command, offset);
  return fillByCopy(device, command, offset, bytes);
}

/** Each part has whole blocks, so that the device can fill it by itself. */
export function isWholeBlocks(region: DataRegion): boolean {
  for (let i = 0; i < region.partCount; i += 1) {
    if (region.part(i).length % BLOCK_BYTES !== 0) return false;
  }
  return true;
}

function fillParts(device: ScsiDevice, command: ScsiCommand, offset: number): void | Promise<void> {
  const { dataIn } = command;
  let at = offset;
  let misses: Promise<void>[] | null = null;
  for (let i = 0; i < dataIn.partCount; i += 1) {
    const part = dataIn.part(i);
    if (part.length > 0 && !device.readCached(at, part)) {
      misses ??= [];
      misses.push(device.read(at, part, command.signal));
    }
    at += part.length;
  }
  return misses === null ? undefined : allSettled(misses);
}

/** Settles when every promise has, so that nothing touches a buffer that has another owner. */
async function allSettled(promises: readonly Promise<void>[]): Promise<void> {
  const failed = (await Promise.allSettled(promises)).find(({ status }) => status === 'rejected');
  if (failed?.status === 'rejected') throw failed.reason;
}

/** For buffers that are cut inside a block. */
async function fillByCopy(
  device: ScsiDevice,
  command: ScsiCommand,
  offset: number,
  bytes: number,
): Promise<void> {
  const blocks = await readBlocks(device, command, offset, Math.ceil(bytes / BLOCK_BYTES));
  command.dataIn.put(blocks.subarray(0, bytes));
}

/** Some blocks in memory of their own. */
export async function readBlocks(
  device: ScsiDevice,
  command: ScsiCommand,
  offset: number,
  blocks: number,
): Promise<Uint8Array> {
  const bytes = new Uint8Array(blocks * BLOCK_BYTES);
  if (bytes.length > 0 && !device.readCached(offset, bytes)) {
    await device.read(offset, bytes, command.signal);
  }
  return bytes;
}
