import type { DeviceExtent } from '../../device/block-device.ts';
import {
  ALLOCATION_CONTEXT_ID,
  ALLOCATION_HOLE_AND_ZERO,
  CHUNK_HEADER_BYTES,
  chunkFlagDone,
  chunkType,
  SIMPLE_REPLY_BYTES,
  SIMPLE_REPLY_MAGIC,
  STRUCTURED_REPLY_MAGIC,
} from './protocol.ts';
import type { Request } from './request.ts';

const OFFSET_BYTES = 8;
const HOLE_PAYLOAD_BYTES = 12;
const ERROR_PAYLOAD_BYTES = 6;
const DESCRIPTOR_BYTES = 8;
/** Enough for a person to read; the log has the whole of it. */
const ERROR_TEXT_LENGTH_MAX = 512;

/** A whole reply to READ, ready to send once its pieces are filled. */
export interface ReadReply {
  bytes: Buffer;
  pieces: ReadPiece[];
}

/** A part of a reply that takes device bytes. */
export interface ReadPiece {
  offset: number;
  into: Buffer;
}

/** A reply without payload. `error` is 0 on success. */
export function simpleReply(request: Request, error: number): Buffer {
  const bytes = Buffer.allocUnsafe(SIMPLE_REPLY_BYTES);
  writeSimpleHeader(bytes, request, error);
  return bytes;
}

/**
 * Lays out the reply to READ in one buffer:
 *
 *   simple:      header | data
 *   structured:  chunk header | offset | data,  or for zeros  chunk header | offset | size, ...
 *
 * `extents` cover the request. Without structured replies there is one extent, of data.
 */
export function layoutRead(
  request: Request,
  extents: readonly DeviceExtent[],
  structured: boolean,
): ReadReply {
  if (!structured) {
    const bytes = Buffer.allocUnsafe(SIMPLE_REPLY_BYTES + request.length);
    writeSimpleHeader(bytes, request, 0);
    return {
      bytes,
      pieces: [{ offset: request.offset, into: bytes.subarray(SIMPLE_REPLY_BYTES) }],
    };
  }
  const bytes = Buffer.allocUnsafe(
    extents.reduce((sum, extent) => sum + CHUNK_HEADER_BYTES + contentBytes(extent), 0),
  );
  const pieces: ReadPiece[] = [];
  let at = 0;
  for (const [index, extent] of extents.entries()) {
    const payload = contentBytes(extent);
    const flags = index === extents.length - 1 ? chunkFlagDone : 0;
    const type = extent.zero ? chunkType.offsetHole : chunkType.offsetData;
    writeChunkHeader(bytes, at, { request, flags, type, payload });
    at += CHUNK_HEADER_BYTES;
    writeOffset(bytes, extent.offset, at);
    if (extent.zero) bytes.writeUInt32BE(extent.length, at + OFFSET_BYTES);
    else
      pieces.push({ offset: extent.offset, into: bytes.subarray(at + OFFSET_BYTES, at + payload) });
    at += payload;
  }
  return { bytes, pieces };
}

/** The one chunk that answers BLOCK_STATUS. */
export function blockStatusReply(request: Request, extents: readonly DeviceExtent[]): Buffer {
  const payload = 4 + extents.length * DESCRIPTOR_BYTES;
  const bytes = Buffer.allocUnsafe(CHUNK_HEADER_BYTES + payload);
  const type = chunkType.blockStatus;
  writeChunkHeader(bytes, 0, { request, flags: chunkFlagDone, type, payload });
  let at = bytes.writeUInt32BE(ALLOCATION_CONTEXT_ID, CHUNK_HEADER_BYTES);
  for (const extent of extents) {
    at = bytes.writeUInt32BE(extent.length, at);
    at = bytes.writeUInt32BE(extent.zero ? ALLOCATION_HOLE_AND_ZERO : 0, at);
  }
  return bytes;
}

/** A refusal or failure; only structured replies carry the text. */
export function errorReply(
  request: Request,
  error: number,
  text: string,
  structured: boolean,
): Buffer {
  if (!structured) return simpleReply(request, error);
  const message = Buffer.from(text.slice(0, ERROR_TEXT_LENGTH_MAX));
  const payload = ERROR_PAYLOAD_BYTES + message.length;
  const bytes = Buffer.allocUnsafe(CHUNK_HEADER_BYTES + payload);
  writeChunkHeader(bytes, 0, { request, flags: chunkFlagDone, type: chunkType.error, payload });
  bytes.writeUInt32BE(error, CHUNK_HEADER_BYTES);
  bytes.writeUInt16BE(message.length, CHUNK_HEADER_BYTES + 4);
  bytes.set(message, CHUNK_HEADER_BYTES + ERROR_PAYLOAD_BYTES);
  return bytes;
}

function contentBytes(extent: DeviceExtent): number {
  return extent.zero ? HOLE_PAYLOAD_BYTES : OFFSET_BYTES + extent.length;
}

function writeSimpleHeader(bytes: Buffer, request: Request, error: number): void {
  bytes.writeUInt32BE(SIMPLE_REPLY_MAGIC, 0);
  bytes.writeUInt32BE(error, 4);
  bytes.writeUInt32BE(request.cookieHigh, 8);
  bytes.writeUInt32BE(request.cookieLow, 12);
}

function writeChunkHeader(
  bytes: Buffer,
  at: number,
  chunk: { request: Request; flags: number; type: number; payload: number },
): void {
  bytes.writeUInt32BE(STRUCTURED_REPLY_MAGIC, at);
  bytes.writeUInt16BE(chunk.flags, at + 4);
  bytes.writeUInt16BE(chunk.type, at + 6);
  bytes.writeUInt32BE(chunk.request.cookieHigh, at + 8);
  bytes.writeUInt32BE(chunk.request.cookieLow, at + 12);
  bytes.writeUInt32BE(chunk.payload, at + 16);
}

function writeOffset(bytes: Buffer, offset: number, at: number): void {
  bytes.writeUInt32BE(Math.floor(offset / 2 ** 32), at);
  bytes.writeUInt32BE(offset % 2 ** 32, at + 4);
}
