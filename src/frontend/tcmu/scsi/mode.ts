import { BLOCK_BYTES } from './block-address.ts';
import { additionalSense, opcode } from './codes.ts';
import type { ScsiCommand } from './command.ts';
import type { LogicalUnit } from './logical-unit.ts';
import { illegalRequest, invalidCdb, invalidParameter } from './sense.ts';

const pageControl = { current: 0, changeable: 1, default: 2, saved: 3 } as const;
const ALL_PAGES = 0x3f;
const ALL_SUBPAGES = 0xff;
const cachingFlag = { writeCacheEnabled: 0x04 } as const;
const controlFlag = { descriptorSense: 0x04 } as const;

/** A mode page (SPC-4 7.5, SBC-3 6.5), its two bytes of header included. */
interface ModePage {
  code: number;
  current: (unit: LogicalUnit) => Uint8Array;
  initial: (unit: LogicalUnit) => Uint8Array;
  /** Ones where MODE SELECT may change something. */
  changeable: (unit: LogicalUnit) => Uint8Array;
  apply: (unit: LogicalUnit, page: Uint8Array) => void;
}

const pages: readonly ModePage[] = [
  {
    code: 0x01,
    current: () => recoveryPage(),
    initial: () => recoveryPage(),
    changeable: () => recoveryPage(),
    apply: () => undefined,
  },
  {
    code: 0x08,
    current: (unit) => cachingPage(unit.hasWriteCache),
    initial: (unit) => cachingPage(unit.writer !== undefined),
    changeable: (unit) => cachingPage(unit.writer !== undefined),
    apply: (unit, page) => {
      unit.writeCache = (page[2] & cachingFlag.writeCacheEnabled) !== 0;
    },
  },
  {
    code: 0x0a,
    current: (unit) => controlPage(unit.descriptorSense),
    initial: () => controlPage(false),
    changeable: () => pageOf(0x0a, 10, controlFlag.descriptorSense),
    apply: (unit, page) => {
      unit.descriptorSense = (page[2] & controlFlag.descriptorSense) !== 0;
    },
  },
];

function pageOf(code: number, bytes: number, flags: number): Uint8Array {
  const page = new Uint8Array(2 + bytes);
  page.set([code, bytes, flags]);
  return page;
}

function recoveryPage(): Uint8Array {
  return pageOf(0x01, 10, 0);
}

function cachingPage(isWriteCache: boolean): Uint8Array {
  return pageOf(0x08, 18, isWriteCache ? cachingFlag.writeCacheEnabled : 0);
}

/** Commands may be reordered without restriction, and none has a time limit. */
function controlPage(isDescriptor: boolean): Uint8Array {
  const page = pageOf(0x0a, 10, isDescriptor ? controlFlag.descriptorSense : 0);
  page[3] = 0x10;
  page.set([0xff, 0xff], 8);
  return page;
}

/** MODE SENSE (6) and (10). */
export function modeSense(unit: LogicalUnit, command: ScsiCommand): void {
  const { cdb, cdbView } = command;
  const isShort = cdb[0] === opcode.modeSense6;
  const control = cdb[2] >> 6;
  if (control === pageControl.saved) throw illegalRequest(additionalSense.savingNotSupported);
  const found = Buffer.concat(
    selectPages(cdb[2] & ALL_PAGES, cdb[3]).map((page) => valuesOf(page, unit, control)),
  );
  const hasDescriptor = (cdb[1] & 0x08) === 0;
  const isLong = !isShort && (cdb[1] & 0x10) !== 0;
  const descriptor = hasDescriptor ? blockDescriptor(unit, isLong) : Buffer.alloc(0);
  const header = modeHeader(unit, isShort, isLong, descriptor.length, found.length);
  const allocationLength = isShort ? cdb[4] : cdbView.getUint16(7);
  command.reply(Buffer.concat([header, descriptor, found]), allocationLength);
}

function selectPages(code: number, subpage: number): readonly ModePage[] {
  if (subpage !== 0 && subpage !== ALL_SUBPAGES) throw invalidCdb(3);
  if (code === ALL_PAGES) return pages;
  const found = pages.filter((page) => page.code === code);
  if (found.length === 0) throw invalidCdb(2, 5);
  return found;
}

function valuesOf(page: ModePage, unit: LogicalUnit, control: number): Uint8Array {
  if (control === pageControl.current) return page.current(unit);
  if (control === pageControl.default) return page.initial(unit);
  const values = page.changeable(unit);
  values.set(page.initial(unit).subarray(0, 2));
  return values;
}

function modeHeader(
  unit: LogicalUnit,
  isShort: boolean,
  isLong: boolean,
  descriptorBytes: number,
  pageBytes: number,
): Uint8Array {
  // WP, and DPOFUA.
  const specific = (unit.writer === undefined ? 0x80 : 0) | 0x10;
  const rest = descriptorBytes + pageBytes;
  if (isShort) return Uint8Array.of(3 + rest, 0, specific, descriptorBytes);
  const header = Buffer.alloc(8);
  header.writeUInt16BE(6 + rest, 0);
  header[3] = specific;
  header[4] = isLong ? 0x01 : 0;
  header.writeUInt16BE(descriptorBytes, 6);
  return header;
}

function blockDescriptor({ blocks }: LogicalUnit, isLong: boolean): Uint8Array {
  const descriptor = Buffer.alloc(isLong ? 16 : 8);
  if (isLong) {
    descriptor.writeBigUInt64BE(BigInt(blocks), 0);
    descriptor.writeUInt32BE(BLOCK_BYTES, 12);
    return descriptor;
  }
  descriptor.writeUInt32BE(Math.min(blocks, 0xffff_ffff), 0);
  descriptor.writeUIntBE(BLOCK_BYTES, 5, 3);
  return descriptor;
}

/**
 * MODE SELECT (6) and (10): the write cache and the format of sense data can be changed. All pages
 * are checked before any takes effect. A write cache that is turned off is written out first.
 */
export function modeSelect(unit: LogicalUnit, command: ScsiCommand): void | Promise<void> {
  const { cdb, cdbView, dataOut } = command;
  const isShort = cdb[0] === opcode.modeSelect6;
  // PF: without it, pages are not those of the standard.
  if ((cdb[1] & 0x10) === 0) throw invalidCdb(1, 4);
  const listBytes = isShort ? cdb[4] : cdbView.getUint16(7);
  if (listBytes === 0) return undefined;
  const list = dataOut.copy(listBytes);
  if (list.length < listBytes) throw illegalRequest(additionalSense.parameterListLength);
  const changes = parseModeList(unit, list, isShort);
  const hadCache = unit.hasWriteCache;
  for (const { page, values } of changes) page.apply(unit, values);
  return hadCache && !unit.hasWriteCache ? unit.writer?.flush() : undefined;
}

interface ModeChange {
  page: ModePage;
  values: Uint8Array;
}

function parseModeList(unit: LogicalUnit, list: Uint8Array, isShort: boolean): ModeChange[] {
  const view = new DataView(list.buffer, list.byteOffset, list.byteLength);
  const headerBytes = isShort ? 4 : 8;
  if (list.length < headerBytes) throw illegalRequest(additionalSense.parameterListLength);
  const descriptorBytes = isShort ? list[3] : view.getUint16(6);
  const isLong = !isShort && (list[4] & 0x01) !== 0;
  const pagesAt = headerBytes + descriptorBytes;
  if (pagesAt > list.length) throw illegalRequest(additionalSense.parameterListLength);
  if (descriptorBytes > 0) {
    const given = list.subarray(headerBytes, pagesAt);
    checkDescriptor(unit, given, isLong, headerBytes, isShort ? 3 : 6);
  }
  const changes: ModeChange[] = [];
  for (let at = pagesAt; at < list.length;) {
    const change = parseModePage(unit, list, at);
    changes.push(change);
    at += change.values.length;
  }
  return changes;
}

/** The capacity and the block size stay what they are. */
function checkDescriptor(
  unit: LogicalUnit,
  given: Uint8Array,
  isLong: boolean,
  at: number,
  lengthField: number,
): void {
  const present = blockDescriptor(unit, isLong);
  if (given.length !== present.length) throw invalidParameter(lengthField);
  const blocksBytes = isLong ? 8 : 4;
  const keepsBlocks = given.subarray(0, blocksBytes).every((byte) => byte === 0);
  const same = (byte: number, i: number): boolean =>
    byte === present[i] || (keepsBlocks && i < blocksBytes);
  const wrong = given.findIndex((byte, i) => !same(byte, i));
  if (wrong >= 0) throw invalidParameter(at + wrong);
}

function parseModePage(unit: LogicalUnit, list: Uint8Array, at: number): ModeChange {
  // PS is reserved here, and SPF says that there are no such pages.
  if ((list[at] & 0xc0) !== 0) throw invalidParameter(at, (list[at] & 0x80) === 0 ? 6 : 7);
  const page = pages.find(({ code }) => code === list[at]);
  if (page === undefined) throw invalidParameter(at, 5);
  const current = page.current(unit);
  if (at + 2 > list.length) throw illegalRequest(additionalSense.parameterListLength);
  if (list[at + 1] !== current[1]) throw invalidParameter(at + 1);
  const values = list.subarray(at, at + current.length);
  if (values.length < current.length) throw illegalRequest(additionalSense.parameterListLength);
  const changeable = page.changeable(unit);
  for (let i = 2; i < values.length; i += 1) {
    if (((values[i] ^ current[i]) & ~changeable[i]) !== 0) throw invalidParameter(at + i);
  }
  return { page, values };
}
