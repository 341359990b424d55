import { additionalSense, senseKey } from './codes.ts';
import type { ScsiCommand } from './command.ts';
import type { LogicalUnit } from './logical-unit.ts';
import { CheckCondition, invalidCdb, SENSE_BYTES, writeSense, type Sense } from './sense.ts';

const startStopFlag = { start: 0x01, noFlush: 0x04 } as const;
const powerCondition = { startValid: 0, active: 1 } as const;

const NOT_READY: Sense = {
  key: senseKey.notReady,
  code: additionalSense.initializingCommandRequired,
};

/** A stopped disk serves nothing until it is started. */
export function checkReady({ isStopped }: LogicalUnit): void {
  if (isStopped) throw new CheckCondition(NOT_READY);
}

/** TEST UNIT READY: what there is to say has been said before. */
export function testUnitReady(): void {
  return undefined;
}

/** REQUEST SENSE: a pending unit attention, which this ends, or whether the disk is stopped. */
export function requestSense(unit: LogicalUnit, command: ScsiCommand): void {
  const attention = unit.takeUnitAttention();
  const none: Sense = { key: senseKey.noSense, code: additionalSense.none };
  let sense = unit.isStopped ? NOT_READY : none;
  if (attention !== null) sense = { key: senseKey.unitAttention, code: attention };
  const bytes = new Uint8Array(SENSE_BYTES);
  const length = writeSense(bytes, sense, (command.cdb[1] & 0x01) !== 0);
  command.reply(bytes.subarray(0, length), command.cdb[4]);
}

/** START STOP UNIT: a disk that stops is written out, unless it is told not to. */
export function startStopUnit(unit: LogicalUnit, command: ScsiCommand): void | Promise<void> {
  const condition = command.cdb[4] >> 4;
  const flags = command.cdb[4] & 0x0f;
  if (condition === powerCondition.active) return undefined;
  if (condition !== powerCondition.startValid) throw invalidCdb(4, 7);
  unit.isStopped = (flags & startStopFlag.start) === 0;
  const mustFlush = unit.isStopped && (flags & startStopFlag.noFlush) === 0;
  return mustFlush ? unit.writer?.flush() : undefined;
}

/** PREVENT ALLOW MEDIUM REMOVAL: there is nothing to remove. */
export function preventAllow(_unit: LogicalUnit, { cdb }: ScsiCommand): void {
  if ((cdb[4] & 0x03) > 1) throw invalidCdb(4, 1);
}

/** REPORT LUNS: there is LUN 0, and no well-known ones. */
export function reportLuns(_unit: LogicalUnit, command: ScsiCommand): void {
  const { cdb, cdbView } = command;
  const wellKnownOnly = 1;
  if (cdb[2] > 2) throw invalidCdb(2);
  const reply = Buffer.alloc(cdb[2] === wellKnownOnly ? 8 : 16);
  reply.writeUInt32BE(reply.length - 8, 0);
  command.reply(reply, cdbView.getUint32(6));
}
