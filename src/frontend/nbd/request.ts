import { ReplaybdError } from '../../base/errors.ts';
import { nbdLimits, SECTOR_BYTES } from '../../base/limits.ts';
import { isReadOnly, type NbdDevice } from './export.ts';
import { command, commandFlag, nbdError, REQUEST_MAGIC } from './protocol.ts';

/** A transmission request's header. */
export interface Request {
  flags: number;
  type: number;
  /** The cookie's halves; it goes back as it came. */
  cookieHigh: number;
  cookieLow: number;
  /** Bytes. Beyond 2^53 not exact, which still lies beyond every device. */
  offset: number;
  length: number;
}

/** What the handshake settled that decides whether a request is valid. */
export interface RequestContext {
  device: NbdDevice;
  structured: boolean;
  allocation: boolean;
}

/** Throws ERR_NBD_PROTOCOL when the stream has lost its frame; the connection is then dropped. */
export function parseRequest(bytes: Buffer): Request {
  const magic = bytes.readUInt32BE(0);
  if (magic !== REQUEST_MAGIC) {
    throw new ReplaybdError(
      'ERR_NBD_PROTOCOL',
      `NBD client: expected a request's magic, found 0x${magic.toString(16)}; connection dropped`,
    );
  }
  return {
    flags: bytes.readUInt16BE(4),
    type: bytes.readUInt16BE(6),
    cookieHigh: bytes.readUInt32BE(8),
    cookieLow: bytes.readUInt32BE(12),
    offset: bytes.readUInt32BE(16) * 2 ** 32 + bytes.readUInt32BE(20),
    length: bytes.readUInt32BE(24),
  };
}

/** Why a request cannot be served, as the protocol's error value; 0 when it can. */
export function refusalOf(request: Request, context: RequestContext): number {
  const { type } = request;
  if (!flagsAreKnown(request, context)) return nbdError.invalid;
  if (type === command.flush) return nbdError.none;
  const writes = isWrite(type);
  if (writes && isReadOnly(context.device)) return nbdError.permission;
  if (!writes && !isQuery(type)) return nbdError.invalid;
  if (type === command.blockStatus && !context.allocation) return nbdError.invalid;
  return refusedRange(request, context.device);
}

/** Payload bytes a request holds from its admission until its reply has left. */
export function payloadBytes(request: Request): number {
  if (request.type === command.read || request.type === command.write) return request.length;
  return request.type === command.cache ? nbdLimits.cacheStepBytes : 0;
}

function refusedRange({ type, offset, length }: Request, device: NbdDevice): number {
  const hasPayload = type === command.read || type === command.write;
  if (length === 0 || offset % SECTOR_BYTES !== 0 || length % SECTOR_BYTES !== 0) {
    return nbdError.invalid;
  }
  if (hasPayload && length > nbdLimits.requestBytesMax) return nbdError.invalid;
  if (offset + length > device.virtualSizeBytes) {
    return type === command.write || type === command.writeZeroes
      ? nbdError.noSpace
      : nbdError.invalid;
  }
  return nbdError.none;
}

/**
 * Zeroing is an entry in the upper's index whatever its size, so it is always fast (FAST_ZERO); and
 * NO_HOLE changes nothing: a layer provisions no room, neither for zeros nor for data.
 */
function flagsAreKnown({ type, flags }: Request, context: RequestContext): boolean {
  let known: number = commandFlag.fua;
  if (type === command.read && context.structured) known |= commandFlag.df;
  if (type === command.writeZeroes) known |= commandFlag.noHole | commandFlag.fastZero;
  if (type === command.blockStatus) known |= commandFlag.reqOne;
  return (flags & ~known) === 0;
}

function isWrite(type: number): boolean {
  return type === command.write || type === command.trim || type === command.writeZeroes;
}

function isQuery(type: number): boolean {
  return type === command.read || type === command.cache || type === command.blockStatus;
}
