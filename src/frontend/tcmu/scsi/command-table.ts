import assert from 'node:assert';
import { getLbaStatus, readCapacity10, readCapacity16 } from './capacity.ts';
import { serviceAction } from './codes.ts';
import type { ScsiCommand } from './command.ts';
import { compareAndWrite } from './compare-and-write.ts';
import { preventAllow, reportLuns, requestSense, startStopUnit, testUnitReady } from './control.ts';
import { inquiry } from './inquiry.ts';
import type { LogicalUnit } from './logical-unit.ts';
import { modeSelect, modeSense } from './mode.ts';
import { read } from './reads.ts';
import { reportSupportedOpcodes } from './report-opcodes.ts';
import { unmap, writeSame } from './unmap.ts';
import { verify, writeAndVerify } from './verify.ts';
import { synchronizeCache, write } from './writes.ts';

/**
 * What a command is to the unit: 'medium' and 'change' need a disk that is not stopped, 'report' is
 * answered even while there is a unit attention to tell of.
 */
export type CommandKind = 'report' | 'state' | 'medium' | 'change';

export interface CommandDefinition {
  readonly opcode: number;
  /** In the low five bits of byte 1; null where the operation code says all. */
  readonly serviceAction: number | null;
  readonly kind: CommandKind;
  /** CDB usage data (SPC-4 6.35): ones where the CDB may have them, its length, and the codes. */
  readonly usage: Uint8Array;
  /** Throws CheckCondition; a promise when the answer takes its time. */
  readonly run: (unit: LogicalUnit, command: ScsiCommand) => void | Promise<void>;
}

type Run = CommandDefinition['run'];

function define(kind: CommandKind, usage: string, run: Run, action?: number): CommandDefinition {
  const bytes = Buffer.from(usage.replaceAll(' ', ''), 'hex');
  assert([6, 10, 12, 16].includes(bytes.length), usage);
  assert(action === undefined || bytes[1] === action);
  return { opcode: bytes[0], serviceAction: action ?? null, kind, usage: bytes, run };
}

/** All that this target answers, by operation code and service action. */
const commandDefinitions: readonly CommandDefinition[] = [
  define('medium', '00 00 0000 00 00', testUnitReady),
  define('report', '03 01 0000 ff 00', requestSense),
  define('medium', '08 1f ffff ff 00', read),
  define('change', '0a 1f ffff ff 00', write),
  define('report', '12 01 ff ffff 00', inquiry),
  define('state', '15 10 0000 ff 00', modeSelect),
  define('state', '1a 08 ff ff ff 00', modeSense),
  define('state', '1b 01 0000 f5 00', startStopUnit),
  define('state', '1e 00 0000 03 00', preventAllow),
  define('medium', '25 00 00000000 00 0000 00', readCapacity10),
  define('medium', '28 1a ffffffff 00 ffff 00', read),
  define('change', '2a 1a ffffffff 00 ffff 00', write),
  define('change', '2e 16 ffffffff 00 ffff 00', writeAndVerify),
  define('medium', '2f 16 ffffffff 00 ffff 00', verify),
  define('medium', '35 06 ffffffff 00 ffff 00', synchronizeCache),
  define('change', '41 08 ffffffff 00 ffff 00', writeSame),
  define('change', '42 00 00000000 00 ffff 00', unmap),
  define('state', '55 10 00000000 00 ffff 00', modeSelect),
  define('state', '5a 18 ff ff 000000 ffff 00', modeSense),
  define('medium', '88 1a ffffffffffffffff ffffffff 00 00', read),
  define('change', '89 1a ffffffffffffffff 000000 ff 00 00', compareAndWrite),
  define('change', '8a 1a ffffffffffffffff ffffffff 00 00', write),
  define('change', '8e 16 ffffffffffffffff ffffffff 00 00', writeAndVerify),
  define('medium', '8f 16 ffffffffffffffff ffffffff 00 00', verify),
  define('medium', '91 06 ffffffffffffffff ffffffff 00 00', synchronizeCache),
  define('change', '93 09 ffffffffffffffff ffffffff 00 00', writeSame),
  define(
    'medium',
    '9e 10 0000000000000000 ffffffff 00 00',
    readCapacity16,
    serviceAction.readCapacity16,
  ),
  define(
    'medium',
    '9e 12 ffffffffffffffff ffffffff 00 00',
    getLbaStatus,
    serviceAction.getLbaStatus,
  ),
  define('report', 'a0 00 ff 000000 ffffffff 00 00', reportLuns),
  define(
    'state',
    'a3 0c 87 ff ffff ffffffff 00 00',
    (_unit, command) => reportSupportedOpcodes(commandDefinitions, command),
    serviceAction.reportSupportedOpcodes,
  ),
  define('medium', 'a8 1a ffffffff ffffffff 00 00', read),
  define('change', 'aa 1a ffffffff ffffffff 00 00', write),
  define('change', 'ae 16 ffffffff ffffffff 00 00', writeAndVerify),
  define('medium', 'af 16 ffffffff ffffffff 00 00', verify),
];

const SERVICE_ACTION_MASK = 0x1f;

/** The definitions of each operation code; most have one. */
const byOpcode: (readonly CommandDefinition[])[] = Array.from({ length: 256 }, (_, code) =>
  commandDefinitions.filter((definition) => definition.opcode === code),
);

/** The command a CDB is; 'opcode' or 'action' when that is not known. */
export function findCommand(cdb: Uint8Array): CommandDefinition | 'opcode' | 'action' {
  const found = byOpcode[cdb[0]];
  if (found.length === 0) return 'opcode';
  if (found[0].serviceAction === null) return found[0];
  const action = cdb[1] & SERVICE_ACTION_MASK;
  return found.find((definition) => definition.serviceAction === action) ?? 'action';
}

/** The first byte of a CDB with a bit that the command does not have; -1 if there is none. */
export function unusedByte(
  { usage, serviceAction: action }: CommandDefinition,
  cdb: Uint8Array,
): number {
  for (let i = 1; i < usage.length; i += 1) {
    const known = i === 1 && action !== null ? SERVICE_ACTION_MASK : usage[i];
    if ((cdb[i] & ~known) !== 0) return i;
  }
  return -1;
}
