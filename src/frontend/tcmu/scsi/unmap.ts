import { setImmediate as nextTurn } from 'node:timers/promises';
import type { DeviceWriter } from '../../../device/block-device.ts';
import {
  BLOCK_BYTES,
  blocksField,
  blocksOf,
  checkRange,
  checkSpan,
  lbaOf,
} from './block-address.ts';
import { additionalSense, opcode } from './codes.ts';
import type { ScsiCommand } from './command.ts';
import type { LogicalUnit } from './logical-unit.ts';
import { illegalRequest, invalidCdb, invalidParameter } from './sense.ts';
import { scsiLimits } from '../../../base/limits.ts';

const HEADER_BYTES = 8;
const DESCRIPTOR_BYTES = 16;
const LENGTH_FIELD = 7;

const writeSameFlag = { unmap: 0x08, noData: 0x01 } as const;

interface BlockRange {
  lba: number;
  blocks: number;
}

/** UNMAP: all ranges are checked before any is done; they read as zeros afterwards. */
export function unmap(unit: LogicalUnit, command: ScsiCommand): void | Promise<void> {
  const writer = unit.requireWriter();
  const ranges = unmapRanges(unit, command);
  if (ranges.length === 0) return undefined;
  return discardAll(unit, writer, ranges);
}

async function discardAll(
  unit: LogicalUnit,
  writer: DeviceWriter,
  ranges: readonly BlockRange[],
): Promise<void> {
  for (const { lba, blocks } of ranges) {
    await unit.gate.run(lba, blocks, false, () =>
      writer.discard(lba * BLOCK_BYTES, blocks * BLOCK_BYTES),
    );
  }
  if (unit.writesThrough) await writer.flush();
}

function unmapRanges(unit: LogicalUnit, { cdbView, dataOut }: ScsiCommand): BlockRange[] {
  const listBytes = cdbView.getUint16(LENGTH_FIELD);
  if (listBytes === 0) return [];
  const list = dataOut.copy(listBytes);
  if (listBytes < HEADER_BYTES || list.length < listBytes) {
    throw illegalRequest(additionalSense.parameterListLength);
  }
  const view = new DataView(list.buffer);
  const descriptorBytes = Math.min(view.getUint16(2), listBytes - HEADER_BYTES);
  const count = Math.floor(descriptorBytes / DESCRIPTOR_BYTES);
  if (count > scsiLimits.unmapDescriptorsMax) throw invalidParameter(2);
  const ranges: BlockRange[] = [];
  let total = 0;
  for (let i = 0; i < count; i += 1) {
    const at = HEADER_BYTES + i * DESCRIPTOR_BYTES;
    const lba = view.getUint32(at) * 2 ** 32 + view.getUint32(at + 4);
    const blocks = view.getUint32(at + 8);
    checkSpan(unit, lba, blocks);
    total += blocks;
    if (total > scsiLimits.unmapBlocksMax) throw invalidParameter(at + 8);
    if (blocks > 0) ranges.push({ lba, blocks });
  }
  return ranges;
}

/**
 * WRITE SAME (10) and (16): one block of data, over and over. Zeros are unmapped where UNMAP allows
 * it and zeroed otherwise; other data is written even with UNMAP, which LBPRZ demands.
 */
export function writeSame(unit: LogicalUnit, command: ScsiCommand): void | Promise<void> {
  const writer = unit.requireWriter();
  const lba = lbaOf(command);
  const blocks = blocksOf(command);
  checkRange(unit, lba, blocks);
  // WSNZ of VPD page B0: no number does not mean all blocks.
  if (blocks === 0 || blocks > scsiLimits.writeSameBlocksMax) {
    throw invalidCdb(blocksField(command));
  }
  const block = sameBlock(command);
  const isUnmap = (command.cdb[1] & writeSameFlag.unmap) !== 0;
  const fua = unit.writesThrough;
  return unit.gate.run(lba, blocks, false, async () => {
    const offset = lba * BLOCK_BYTES;
    const bytes = blocks * BLOCK_BYTES;
    if (block.some((byte) => byte !== 0)) await writePattern(writer, offset, bytes, block);
    else if (isUnmap) await writer.discard(offset, bytes);
    else await writer.writeZeroes(offset, bytes);
    if (fua) await writer.flush();
  });
}

/** NDOB: no data means zeros. */
function sameBlock({ cdb, dataOut }: ScsiCommand): Uint8Array {
  const hasData = cdb[0] !== opcode.writeSame16 || (cdb[1] & writeSameFlag.noData) === 0;
  if (!hasData) return new Uint8Array(BLOCK_BYTES);
  if (dataOut.length !== BLOCK_BYTES) throw illegalRequest(additionalSense.invalidFieldInCdb);
  return dataOut.copy(BLOCK_BYTES);
}

async function writePattern(
  writer: DeviceWriter,
  offset: number,
  bytes: number,
  block: Uint8Array,
): Promise<void> {
  const pattern = new Uint8Array(Math.min(bytes, scsiLimits.writeSameStepBytes));
  for (let at = 0; at < pattern.length; at += BLOCK_BYTES) pattern.set(block, at);
  for (let at = 0; at < bytes; at += pattern.length) {
    await writer.write(offset + at, pattern.subarray(0, bytes - at), false);
    // Writes that do not wait for anything would keep all others waiting.
    await nextTurn();
  }
}
