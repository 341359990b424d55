/**
 * Numbers of the NBD protocol (doc/proto.md of the NetworkBlockDevice project, public domain), by
 * the section that defines them. Everything on the wire is big endian.
 */

/** 'NBDMAGIC' and 'IHAVEOPT'. */
export const SERVER_MAGIC = 0x4e42444d41474943n;
export const OPTION_MAGIC = 0x49484156454f5054n;
export const OPTION_REPLY_MAGIC = 0x0003e889045565a9n;
export const REQUEST_MAGIC = 0x25609513;
export const SIMPLE_REPLY_MAGIC = 0x67446698;
export const STRUCTURED_REPLY_MAGIC = 0x668e33ef;

export const OPTION_HEADER_BYTES = 16;
export const OPTION_REPLY_HEADER_BYTES = 20;
export const REQUEST_BYTES = 28;
export const SIMPLE_REPLY_BYTES = 16;
export const CHUNK_HEADER_BYTES = 20;
/** Zeros after an EXPORT_NAME reply, for clients that did not ask to leave them out. */
export const EXPORT_NAME_PADDING_BYTES = 124;

/** Handshake flags; a client's flags have the same bits. */
export const handshakeFlag = { fixedNewstyle: 1, noZeroes: 2 } as const;

export const option = {
  exportName: 1,
  abort: 2,
  list: 3,
  startTls: 5,
  info: 6,
  go: 7,
  structuredReply: 8,
  listMetaContext: 9,
  setMetaContext: 10,
} as const;

export const optionReply = {
  ack: 1,
  server: 2,
  info: 3,
  metaContext: 4,
  errUnsupported: 0x80000001,
  errPolicy: 0x80000002,
  errInvalid: 0x80000003,
  errUnknown: 0x80000006,
} as const;

export const infoType = { export: 0, name: 1, description: 2, blockSize: 3 } as const;

export const transmissionFlag = {
  hasFlags: 1 << 0,
  readOnly: 1 << 1,
  sendFlush: 1 << 2,
  sendFua: 1 << 3,
  sendTrim: 1 << 5,
  sendWriteZeroes: 1 << 6,
  sendDf: 1 << 7,
  canMultiConn: 1 << 8,
  sendCache: 1 << 10,
  sendFastZero: 1 << 11,
} as const;

export const command = {
  read: 0,
  write: 1,
  disconnect: 2,
  flush: 3,
  trim: 4,
  cache: 5,
  writeZeroes: 6,
  blockStatus: 7,
} as const;

export const commandFlag = { fua: 1, noHole: 2, df: 4, reqOne: 8, fastZero: 16 } as const;

export const chunkFlagDone = 1;

export const chunkType = {
  none: 0,
  offsetData: 1,
  offsetHole: 2,
  blockStatus: 5,
  error: 0x8001,
} as const;

/** The error values a reply may carry. */
export const nbdError = {
  none: 0,
  permission: 1,
  io: 5,
  invalid: 22,
  noSpace: 28,
  shutdown: 108,
} as const;

export const ALLOCATION_CONTEXT = 'base:allocation';
/** This server's number for it; the protocol leaves the choice free. */
export const ALLOCATION_CONTEXT_ID = 1;
/** NBD_STATE_HOLE and NBD_STATE_ZERO. */
export const ALLOCATION_HOLE_AND_ZERO = 3;
