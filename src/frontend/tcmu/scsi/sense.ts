import { additionalSense, senseKey, type AdditionalSense, type SenseKey } from './codes.ts';

/** Sense data that TCMU carries, in bytes; what a target writes is shorter. */
export const SENSE_BYTES = 96;

/** Why a command ended with CHECK CONDITION. */
export interface Sense {
  readonly key: SenseKey;
  readonly code: AdditionalSense;
  /** INFORMATION: the LBA, or the offset of what differs. */
  readonly information?: number;
  /** ILLEGAL REQUEST: which field is to blame. */
  readonly field?: FieldPointer;
}

export interface FieldPointer {
  /** Of the CDB, or of the parameter list. */
  readonly of: 'cdb' | 'parameters';
  readonly byte: number;
  /** The field's highest bit; absent when the whole byte is meant. */
  readonly bit?: number;
}

/** Ends the command at hand; never leaves the target. */
export class CheckCondition extends Error {
  readonly sense: Sense;

  constructor(sense: Sense) {
    super(`sense key ${sense.key}, additional sense ${sense.code.toString(16).padStart(4, '0')}`);
    this.sense = sense;
  }
}

/** The CDB has something in `byte` that is not valid, or not supported. */
export function invalidCdb(byte: number, bit?: number): CheckCondition {
  const field: FieldPointer = { of: 'cdb', byte, ...(bit === undefined ? {} : { bit }) };
  const code = additionalSense.invalidFieldInCdb;
  return new CheckCondition({ key: senseKey.illegalRequest, code, field });
}

/** The same of a parameter list. */
export function invalidParameter(byte: number, bit?: number): CheckCondition {
  const field: FieldPointer = { of: 'parameters', byte, ...(bit === undefined ? {} : { bit }) };
  const code = additionalSense.invalidFieldInParameterList;
  return new CheckCondition({ key: senseKey.illegalRequest, code, field });
}

export function illegalRequest(code: AdditionalSense): CheckCondition {
  return new CheckCondition({ key: senseKey.illegalRequest, code });
}

/**
 * Writes sense data (SPC-4 4.5) into zeroed bytes and returns its length: 18 in fixed format, and
 * as much as its descriptors take in descriptor format.
 */
export function writeSense(into: Uint8Array, sense: Sense, isDescriptor: boolean): number {
  return isDescriptor ? writeDescriptors(into, sense) : writeFixed(into, sense);
}

function writeFixed(into: Uint8Array, { key, code, information, field }: Sense): number {
  const view = new DataView(into.buffer, into.byteOffset, into.byteLength);
  into[0] = 0x70;
  into[2] = key;
  into[7] = 10;
  view.setUint16(12, code);
  // A larger number does not fit, and the field is then not valid.
  if (information !== undefined && information < 2 ** 32) {
    into[0] |= 0x80;
    view.setUint32(3, information);
  }
  if (field !== undefined) writeFieldPointer(view, 15, field);
  return 18;
}

function writeDescriptors(into: Uint8Array, { key, code, information, field }: Sense): number {
  const view = new DataView(into.buffer, into.byteOffset, into.byteLength);
  into[0] = 0x72;
  into[1] = key;
  view.setUint16(2, code);
  let at = 8;
  if (information !== undefined) {
    into[at + 1] = 10;
    into[at + 2] = 0x80;
    view.setBigUint64(at + 4, BigInt(information));
    at += 12;
  }
  if (field !== undefined) {
    into[at] = 0x02;
    into[at + 1] = 6;
    writeFieldPointer(view, at + 4, field);
    at += 8;
  }
  into[7] = at - 8;
  return at;
}

function writeFieldPointer(view: DataView, at: number, { of, byte, bit }: FieldPointer): void {
  const bits = bit === undefined ? 0 : 0x08 | bit;
  view.setUint8(at, 0x80 | (of === 'cdb' ? 0x40 : 0) | bits);
  view.setUint16(at + 1, byte);
}
