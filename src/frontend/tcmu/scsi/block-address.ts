import { SECTOR_BYTES } from '../../../base/limits.ts';
import { additionalSense } from './codes.ts';
import type { ScsiCommand } from './command.ts';
import type { LogicalUnit } from './logical-unit.ts';
import { illegalRequest, invalidCdb } from './sense.ts';
import { scsiLimits } from '../../../base/limits.ts';

/** The logical block's size. */
export const BLOCK_BYTES = SECTOR_BYTES;

const FUA = 0x08;

/** First block of a command, whose opcode's group says where the CDB has it (SPC-4 4.2.5.1). */
export function lbaOf({ cdb, cdbView }: ScsiCommand): number {
  switch (cdb[0] >> 5) {
    case 0:
      return ((cdb[1] & 0x1f) << 16) | cdbView.getUint16(2);
    case 4:
      // Inexact beyond 2^53, where no disk reaches.
      return cdbView.getUint32(2) * 2 ** 32 + cdbView.getUint32(6);
    default:
      return cdbView.getUint32(2);
  }
}

/** Number of blocks of a command; 0 of a 6-byte one means 256. */
export function blocksOf({ cdb, cdbView }: ScsiCommand): number {
  switch (cdb[0] >> 5) {
    case 0:
      return cdb[4] === 0 ? 256 : cdb[4];
    case 4:
      return cdbView.getUint32(10);
    case 5:
      return cdbView.getUint32(6);
    default:
      return cdbView.getUint16(7);
  }
}

/** Byte of the CDB where the number of blocks begins, for field pointers. */
export function blocksField({ cdb }: ScsiCommand): number {
  return [4, 7, 7, 7, 10, 6][cdb[0] >> 5] ?? 0;
}

/** The data has to be on the medium before the command ends; 6-byte commands cannot ask for it. */
export function hasFua({ cdb }: ScsiCommand): boolean {
  return cdb[0] >> 5 !== 0 && (cdb[1] & FUA) !== 0;
}

/** Blocks outside the disk end the command, of which no part is done then. */
export function checkRange(unit: LogicalUnit, lba: number, blocks: number): void {
  if (lba >= unit.blocks || blocks > unit.blocks - lba) {
    throw illegalRequest(additionalSense.lbaOutOfRange);
  }
}

/** As checkRange, but that no blocks may also be those right behind the disk. */
export function checkSpan(unit: LogicalUnit, lba: number, blocks: number): void {
  if (lba !== unit.blocks || blocks > 0) checkRange(unit, lba, blocks);
}

/** As checkRange, and no more blocks than VPD page B0 allows. */
export function checkTransfer(
  unit: LogicalUnit,
  command: ScsiCommand,
  lba: number,
  blocks: number,
): void {
  checkRange(unit, lba, blocks);
  if (blocks > scsiLimits.transferBlocksMax) throw invalidCdb(blocksField(command));
}
