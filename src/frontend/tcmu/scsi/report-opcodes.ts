import type { ScsiCommand } from './command.ts';
import type { CommandDefinition } from './command-table.ts';
import { invalidCdb } from './sense.ts';

const reporting = { all: 0, opcode: 1, serviceAction: 2, either: 3 } as const;
const support = { none: 1, standard: 3 } as const;
const TIMEOUTS_BYTES = 12;

/** REPORT SUPPORTED OPERATION CODES: the table that commands are found by. */
export function reportSupportedOpcodes(
  definitions: readonly CommandDefinition[],
  command: ScsiCommand,
): void {
  const { cdb, cdbView } = command;
  const hasTimeouts = (cdb[2] & 0x80) !== 0;
  const option = cdb[2] & 0x07;
  const allocationLength = cdbView.getUint32(6);
  if (option === reporting.all) {
    command.reply(allCommands(definitions, hasTimeouts), allocationLength);
    return;
  }
  const wanted = definitions.filter((definition) => definition.opcode === cdb[3]);
  const found = selectCommand(wanted, option, cdbView.getUint16(4));
  command.reply(oneCommand(found, hasTimeouts), allocationLength);
}

function selectCommand(
  wanted: readonly CommandDefinition[],
  option: number,
  action: number,
): CommandDefinition | undefined {
  const hasActions = wanted.some(({ serviceAction }) => serviceAction !== null);
  const isKnown = wanted.length > 0;
  switch (option) {
    case reporting.opcode:
      if (hasActions) throw invalidCdb(2, 2);
      return wanted.at(0);
    case reporting.serviceAction:
      if (isKnown && !hasActions) throw invalidCdb(2, 2);
      return wanted.find(({ serviceAction }) => serviceAction === action);
    case reporting.either:
      return wanted.find(({ serviceAction }) => (serviceAction ?? 0) === action);
    default:
      throw invalidCdb(2, 2);
  }
}

function allCommands(definitions: readonly CommandDefinition[], hasTimeouts: boolean): Uint8Array {
  const entries = definitions.map(({ opcode, serviceAction, usage }) => {
    const entry = Buffer.alloc(8 + (hasTimeouts ? TIMEOUTS_BYTES : 0));
    entry[0] = opcode;
    entry.writeUInt16BE(serviceAction ?? 0, 2);
    entry[5] = (hasTimeouts ? 0x02 : 0) | (serviceAction === null ? 0 : 0x01);
    entry.writeUInt16BE(usage.length, 6);
    if (hasTimeouts) entry.set(noTimeouts(), 8);
    return entry;
  });
  const body = Buffer.concat(entries);
  const header = Buffer.alloc(4);
  header.writeUInt32BE(body.length, 0);
  return Buffer.concat([header, body]);
}

function oneCommand(definition: CommandDefinition | undefined, hasTimeouts: boolean): Uint8Array {
  if (definition === undefined) return Uint8Array.of(0, support.none, 0, 0);
  const { usage } = definition;
  const header = Buffer.alloc(4);
  header[1] = (hasTimeouts ? 0x80 : 0) | support.standard;
  header.writeUInt16BE(usage.length, 2);
  return Buffer.concat([header, usage, hasTimeouts ? noTimeouts() : new Uint8Array(0)]);
}

/** A timeouts descriptor that names none. */
function noTimeouts(): Uint8Array {
  const descriptor = Buffer.alloc(TIMEOUTS_BYTES);
  descriptor.writeUInt16BE(TIMEOUTS_BYTES - 2, 0);
  return descriptor;
}
