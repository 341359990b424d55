import type { ScsiCommand } from './command.ts';
import type { TargetIdentity } from './identity.ts';
import type { LogicalUnit } from './logical-unit.ts';
import { invalidCdb } from './sense.ts';
import { scsiLimits } from '../../../base/limits.ts';

/** SAM-5, SPC-4 and SBC-3, as version descriptors have them. */
const VERSIONS = [0x00a0, 0x0460, 0x04c0];

type VpdPage = (unit: LogicalUnit) => Uint8Array;

/** By page code; each gives what follows the page's four bytes of header. */
const vpdPages: ReadonlyMap<number, VpdPage> = new Map<number, VpdPage>([
  [0x00, () => Uint8Array.from(vpdPages.keys())],
  [0x80, ({ identity }) => Buffer.from(identity.serial, 'latin1')],
  [0x83, ({ identity }) => deviceIdentification(identity)],
  [0xb0, blockLimits],
  [0xb1, blockCharacteristics],
  [0xb2, logicalBlockProvisioning],
]);

/** INQUIRY: a disk, or one of the pages of its vital product data. */
export function inquiry(unit: LogicalUnit, command: ScsiCommand): void {
  const { cdb, cdbView } = command;
  const allocationLength = cdbView.getUint16(3);
  if ((cdb[1] & 0x01) === 0) {
    if (cdb[2] !== 0) throw invalidCdb(2);
    command.reply(standardInquiry(unit.identity), allocationLength);
    return;
  }
  const page = vpdPages.get(cdb[2]);
  if (page === undefined) throw invalidCdb(2);
  const body = page(unit);
  const reply = Buffer.alloc(4 + body.length);
  reply[1] = cdb[2];
  reply.writeUInt16BE(body.length, 2);
  reply.set(body, 4);
  command.reply(reply, allocationLength);
}

function standardInquiry({ vendor, product, revision }: TargetIdentity): Uint8Array {
  const reply = Buffer.alloc(96);
  reply[2] = 0x06;
  reply[3] = 0x02;
  reply[4] = reply.length - 5;
  // CMDQUE: commands may be queued.
  reply[7] = 0x02;
  reply.write(vendor.padEnd(8), 8, 8, 'latin1');
  reply.write(product.padEnd(16), 16, 16, 'latin1');
  reply.write(revision.padEnd(4), 32, 4, 'latin1');
  VERSIONS.forEach((version, i) => reply.writeUInt16BE(version, 58 + 2 * i));
  return reply;
}

function deviceIdentification({ vendor, serial, wwn }: TargetIdentity): Uint8Array {
  const binary = 0x01;
  const ascii = 0x02;
  const t10VendorId = 0x01;
  const naa = 0x03;
  return Buffer.concat([
    designator(binary, naa, Buffer.from(wwn, 'hex')),
    designator(ascii, t10VendorId, Buffer.from(vendor.padEnd(8) + serial.slice(0, 240), 'latin1')),
  ]);
}

/** One that names the logical unit. */
function designator(codeSet: number, type: number, name: Uint8Array): Uint8Array {
  return Buffer.concat([Uint8Array.of(codeSet, type, 0, name.length), name]);
}

function blockLimits({ writer }: LogicalUnit): Uint8Array {
  const page = Buffer.alloc(60);
  // WSNZ: WRITE SAME of no blocks does not mean all of them.
  page[0] = 0x01;
  page[1] = writer === undefined ? 0 : scsiLimits.compareAndWriteBlocksMax;
  page.writeUInt16BE(scsiLimits.granularityBlocks, 2);
  page.writeUInt32BE(scsiLimits.transferBlocksMax, 4);
  page.writeUInt32BE(scsiLimits.transferBlocksBest, 8);
  if (writer === undefined) return page;
  page.writeUInt32BE(scsiLimits.unmapBlocksMax, 16);
  page.writeUInt32BE(scsiLimits.unmapDescriptorsMax, 20);
  page.writeUInt32BE(scsiLimits.granularityBlocks, 24);
  // UGAVALID, with an alignment of 0.
  page.writeUInt32BE(0x8000_0000, 28);
  page.writeBigUInt64BE(BigInt(scsiLimits.writeSameBlocksMax), 32);
  return page;
}

/** Nothing rotates. */
function blockCharacteristics(): Uint8Array {
  const page = Buffer.alloc(60);
  page.writeUInt16BE(1, 0);
  return page;
}

/** LBPU, LBPWS, LBPWS10 and LBPRZ, thin; a disk that cannot be written unmaps nothing. */
function logicalBlockProvisioning({ writer }: LogicalUnit): Uint8Array {
  return writer === undefined ? Uint8Array.of(0, 0x04, 0, 0) : Uint8Array.of(0, 0xe4, 0x02, 0);
}
