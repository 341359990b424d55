import { BLOCK_BYTES, checkRange, hasFua, lbaOf } from './block-address.ts';
import type { ScsiCommand } from './command.ts';
import type { LogicalUnit } from './logical-unit.ts';
import { readBlocks } from './reads.ts';
import { invalidCdb } from './sense.ts';
import { scsiLimits } from '../../../base/limits.ts';
import { compareOrFail } from './verify.ts';

const BLOCKS_FIELD = 13;

/**
 * COMPARE AND WRITE: the first half of the data is what the blocks have to be, the second what they
 * are then made. No other command that changes any of them comes in between.
 */
export function compareAndWrite(unit: LogicalUnit, command: ScsiCommand): void | Promise<void> {
  const writer = unit.requireWriter();
  const lba = lbaOf(command);
  const blocks = command.cdb[BLOCKS_FIELD];
  checkRange(unit, lba, blocks);
  if (blocks > scsiLimits.compareAndWriteBlocksMax) throw invalidCdb(BLOCKS_FIELD);
  const bytes = blocks * BLOCK_BYTES;
  // More data than that was meant for other blocks than the CDB says, such as a number cut to a byte.
  if (command.dataOut.length !== 2 * bytes) throw invalidCdb(BLOCKS_FIELD);
  if (blocks === 0) return undefined;
  const fua = hasFua(command) || unit.writesThrough;
  return unit.gate.run(lba, blocks, true, async () => {
    const offset = lba * BLOCK_BYTES;
    const found = await readBlocks(unit.device, command, offset, blocks);
    compareOrFail(command.dataOut.copy(bytes), found, 0);
    await writer.write(offset, command.dataOut.copy(bytes, bytes), fua);
  });
}
