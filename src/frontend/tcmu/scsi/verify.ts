import { BLOCK_BYTES, blocksField, blocksOf, checkTransfer, lbaOf } from './block-address.ts';
import { additionalSense, senseKey } from './codes.ts';
import type { ScsiCommand } from './command.ts';
import type { LogicalUnit } from './logical-unit.ts';
import { readBlocks } from './reads.ts';
import { CheckCondition, invalidCdb } from './sense.ts';
import { scsiLimits } from '../../../base/limits.ts';
import { writeData } from './writes.ts';

/**
 * VERIFY (10), (12) and (16). BYTCHK 0: the blocks can be read. BYTCHK 1: they are what the
 * initiator sends.
 */
export function verify(unit: LogicalUnit, command: ScsiCommand): void | Promise<void> {
  const compares = hasByteCheck(command);
  const lba = lbaOf(command);
  const blocks = blocksOf(command);
  checkTransfer(unit, command, lba, blocks);
  if (compares && command.dataOut.length < blocks * BLOCK_BYTES) {
    throw invalidCdb(blocksField(command));
  }
  return verifyBlocks(unit, command, compares);
}

/** WRITE AND VERIFY (10), (12) and (16): writes to the medium, then does as VERIFY. */
export async function writeAndVerify(unit: LogicalUnit, command: ScsiCommand): Promise<void> {
  const compares = hasByteCheck(command);
  await writeData(unit, command, true);
  await verifyBlocks(unit, command, compares);
}

async function verifyBlocks(
  unit: LogicalUnit,
  command: ScsiCommand,
  compares: boolean,
): Promise<void> {
  const start = lbaOf(command) * BLOCK_BYTES;
  const bytes = blocksOf(command) * BLOCK_BYTES;
  for (let at = 0; at < bytes; at += scsiLimits.verifyStepBytes) {
    const count = Math.min(scsiLimits.verifyStepBytes, bytes - at) / BLOCK_BYTES;
    const found = await readBlocks(unit.device, command, start + at, count);
    if (compares) compareOrFail(command.dataOut.copy(found.length, at), found, at);
  }
}

/** Ends the command with MISCOMPARE; INFORMATION is the offset of the first byte that differs. */
export function compareOrFail(expected: Uint8Array, found: Uint8Array, offset: number): void {
  if (Buffer.compare(expected, found) === 0) return;
  const at = expected.findIndex((byte, i) => byte !== found[i]);
  throw new CheckCondition({
    key: senseKey.miscompare,
    code: additionalSense.miscompareDuringVerify,
    information: offset + at,
  });
}

function hasByteCheck({ cdb }: ScsiCommand): boolean {
  const byteCheck = (cdb[1] >> 1) & 0x03;
  if (byteCheck > 1) throw invalidCdb(1, 2);
  return byteCheck === 1;
}
