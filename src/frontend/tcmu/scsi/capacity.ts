import { BLOCK_BYTES, checkRange, lbaOf } from './block-address.ts';
import type { ScsiCommand } from './command.ts';
import type { LogicalUnit } from './logical-unit.ts';
import { scsiLimits } from '../../../base/limits.ts';

const LBA32_MAX = 0xffff_ffff;
const STATUS_DESCRIPTOR_BYTES = 16;
const mapped = 0;
const deallocated = 1;

/** READ CAPACITY (10): a disk too large for it says so by the largest number. */
export function readCapacity10(unit: LogicalUnit, command: ScsiCommand): void {
  const reply = Buffer.alloc(8);
  reply.writeUInt32BE(Math.min(unit.blocks - 1, LBA32_MAX), 0);
  reply.writeUInt32BE(BLOCK_BYTES, 4);
  command.reply(reply, reply.length);
}

/** READ CAPACITY (16): also the physical block, and that unmapped blocks read as zeros. */
export function readCapacity16(unit: LogicalUnit, command: ScsiCommand): void {
  const reply = Buffer.alloc(32);
  reply.writeBigUInt64BE(BigInt(unit.blocks - 1), 0);
  reply.writeUInt32BE(BLOCK_BYTES, 8);
  reply[13] = Math.log2(scsiLimits.granularityBlocks);
  if (unit.writer !== undefined) reply[14] = 0xc0;
  command.reply(reply, command.cdbView.getUint32(10));
}

/** GET LBA STATUS: which blocks hold data, from the first one named on, as far as is looked at. */
export function getLbaStatus(unit: LogicalUnit, command: ScsiCommand): void {
  const lba = lbaOf(command);
  checkRange(unit, lba, 0);
  const allocationLength = command.cdbView.getUint32(10);
  const wanted = Math.floor((allocationLength - 8) / STATUS_DESCRIPTOR_BYTES);
  const countMax = Math.max(1, Math.min(wanted, scsiLimits.statusDescriptorsMax));
  const runs = provisioning(unit, lba, countMax);
  const reply = Buffer.alloc(8 + runs.length * STATUS_DESCRIPTOR_BYTES);
  reply.writeUInt32BE(reply.length - 4, 0);
  runs.forEach((run, i) => {
    const at = 8 + i * STATUS_DESCRIPTOR_BYTES;
    reply.writeBigUInt64BE(BigInt(run.lba), at);
    reply.writeUInt32BE(run.blocks, at + 8);
    reply[at + 12] = run.isZero ? deallocated : mapped;
  });
  command.reply(reply, allocationLength);
}

interface Run {
  lba: number;
  blocks: number;
  isZero: boolean;
}

/** At least one run, which begins at `lba`; runs that are alike are one. */
function provisioning(
  { device, blocks: unitBlocks }: LogicalUnit,
  lba: number,
  max: number,
): Run[] {
  const bytes = Math.min((unitBlocks - lba) * BLOCK_BYTES, scsiLimits.statusBytesMax);
  const offset = lba * BLOCK_BYTES;
  const extents = device.extents?.(offset, bytes) ?? [{ offset, length: bytes, zero: false }];
  const runs: Run[] = [];
  for (const { length, zero } of extents) {
    const last = runs.at(-1);
    const blocks = length / BLOCK_BYTES;
    if (last?.isZero === zero) last.blocks += blocks;
    else if (runs.length === max) break;
    else
      runs.push({ lba: last === undefined ? lba : last.lba + last.blocks, blocks, isZero: zero });
  }
  return runs;
}
