import { vhostUserLimits } from './limits.ts';
import type { RegionLayout } from './guest-memory.ts';
import type { InflightLayout } from './inflight.ts';
import { HEADER_BYTES, messageFlag, VERSION, VERSION_MASK } from './protocol.ts';
import type { RingAddresses } from './split-ring.ts';
import { protocolError } from './vhost-error.ts';

const REGION_BYTES = 32;
const CONFIG_HEADER_BYTES = 12;
/** The structure without and with the padding that C compilers add. */
const INFLIGHT_BYTES = [20, 24];

/** One message of a front end. */
export interface Message {
  request: number;
  needsReply: boolean;
  payload: Buffer;
  /** Those that nobody took are closed when the message is done. */
  fds: number[];
}

export interface MessageHeader {
  request: number;
  needsReply: boolean;
  payloadBytes: number;
}

/** Throws ERR_VHOST_PROTOCOL, after which the stream cannot be followed. */
export function parseHeader(bytes: Buffer): MessageHeader {
  const flags = bytes.readUInt32LE(4);
  const payloadBytes = bytes.readUInt32LE(8);
  if ((flags & VERSION_MASK) !== VERSION || (flags & messageFlag.reply) !== 0) {
    throw protocolError('header', `a request of version ${VERSION}`, `flags ${flags}`);
  }
  if (payloadBytes > vhostUserLimits.messageBytesMax) {
    const expected = `at most ${vhostUserLimits.messageBytesMax} bytes`;
    throw protocolError('header', expected, `${payloadBytes} bytes`);
  }
  const needsReply = (flags & messageFlag.needReply) !== 0;
  return { request: bytes.readUInt32LE(0), needsReply, payloadBytes };
}

export function encodeReply(request: number, payload: Buffer): Buffer {
  return Buffer.concat([encodeHeader(request, messageFlag.reply, payload.length), payload]);
}

/** A request of the back end that has no parameters, and no reply. */
export function encodeBackendRequest(request: number): Buffer {
  return encodeHeader(request, 0, 0);
}

function encodeHeader(request: number, flags: number, payloadBytes: number): Buffer {
  const header = Buffer.alloc(HEADER_BYTES);
  header.writeUInt32LE(request, 0);
  header.writeUInt32LE(VERSION | flags, 4);
  header.writeUInt32LE(payloadBytes, 8);
  return header;
}

export function encodeU64(value: bigint | number): Buffer {
  const bytes = Buffer.alloc(8);
  bytes.writeBigUInt64LE(BigInt(value));
  return bytes;
}

export function parseU64({ payload }: Message): bigint {
  checkLength(payload, 8);
  return payload.readBigUInt64LE(0);
}

/** A queue and a number. */
export interface VringState {
  index: number;
  value: number;
}

export function parseVringState({ payload }: Message): VringState {
  checkLength(payload, 8);
  return { index: payload.readUInt32LE(0), value: payload.readUInt32LE(4) };
}

export function encodeVringState({ index, value }: VringState): Buffer {
  const bytes = Buffer.alloc(8);
  bytes.writeUInt32LE(index, 0);
  bytes.writeUInt32LE(value, 4);
  return bytes;
}

/** Flags and the log's address do not matter to a back end that logs nothing. */
export function parseVringAddress({ payload }: Message): { index: number; ring: RingAddresses } {
  checkLength(payload, 40);
  const ring = {
    descriptors: readAddress(payload, 8),
    used: readAddress(payload, 16),
    available: readAddress(payload, 24),
  };
  return { index: payload.readUInt32LE(0), ring };
}

export function parseMemoryTable({ payload, fds }: Message): RegionLayout[] {
  const count = payload.length < 8 ? 0 : payload.readUInt32LE(0);
  if (count > vhostUserLimits.memoryRegionsMax || fds.length !== count) {
    throw protocolError(
      'memory table',
      'regions with a descriptor each',
      `${count}, ${fds.length}`,
    );
  }
  // Some front ends always send the table's full length.
  const needed = 8 + count * REGION_BYTES;
  if (payload.length < needed) checkLength(payload, needed);
  return Array.from({ length: count }, (_, i) => parseRegion(payload, 8 + i * REGION_BYTES));
}

export function parseMemoryRegion({ payload }: Message): RegionLayout {
  checkLength(payload, 8 + REGION_BYTES);
  return parseRegion(payload, 8);
}

function parseRegion(payload: Buffer, at: number): RegionLayout {
  return {
    guestAddress: readAddress(payload, at),
    sizeBytes: readAddress(payload, at + 8),
    userAddress: readAddress(payload, at + 16),
    fileOffset: readAddress(payload, at + 24),
  };
}

export function parseInflight({ payload }: Message): InflightLayout {
  if (!INFLIGHT_BYTES.includes(payload.length)) checkLength(payload, INFLIGHT_BYTES[0]);
  return {
    sizeBytes: readAddress(payload, 0),
    fileOffset: readAddress(payload, 8),
    queues: payload.readUInt16LE(16),
    queueSize: payload.readUInt16LE(18),
  };
}

/** As long as what was asked with. */
export function encodeInflight(layout: InflightLayout, length: number): Buffer {
  const bytes = Buffer.alloc(length);
  bytes.writeBigUInt64LE(BigInt(layout.sizeBytes), 0);
  bytes.writeBigUInt64LE(BigInt(layout.fileOffset), 8);
  bytes.writeUInt16LE(layout.queues, 16);
  bytes.writeUInt16LE(layout.queueSize, 18);
  return bytes;
}

/** A part of the configuration space; `data` is as long as the part. */
export interface ConfigPart {
  offset: number;
  data: Buffer;
}

export function parseConfig({ payload }: Message): ConfigPart {
  if (payload.length < CONFIG_HEADER_BYTES) checkLength(payload, CONFIG_HEADER_BYTES);
  checkLength(payload, CONFIG_HEADER_BYTES + payload.readUInt32LE(4));
  return { offset: payload.readUInt32LE(0), data: payload.subarray(CONFIG_HEADER_BYTES) };
}

/** The answer to GET_CONFIG: what was asked with, with `config` in it and zeros where that ends. */
export function encodeConfig({ payload }: Message, part: ConfigPart, config: Buffer): Buffer {
  const bytes = Buffer.from(payload);
  bytes.fill(0, CONFIG_HEADER_BYTES);
  const end = Math.min(part.offset + part.data.length, config.length);
  if (part.offset < end) config.copy(bytes, CONFIG_HEADER_BYTES, part.offset, end);
  return bytes;
}

/** Addresses past 2^53 become inexact, and are then in no region. */
function readAddress(payload: Buffer, at: number): number {
  return Number(payload.readBigUInt64LE(at));
}

function checkLength(payload: Buffer, expected: number): void {
  if (payload.length === expected) return;
  throw protocolError('message', `a payload of ${expected} bytes`, `${payload.length}`);
}
