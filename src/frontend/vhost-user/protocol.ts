/**
 * Numbers of the vhost-user protocol (QEMU's docs/interop/vhost-user.rst) and of virtio 1.2: sections 2.7
 * (split virtqueues), 5.2 (block device), 6 (feature bits).
 */

export const HEADER_BYTES = 12;
export const VERSION = 1;
export const VERSION_MASK = 3;

export const messageFlag = { reply: 4, needReply: 8 } as const;

export const request = {
  getFeatures: 1,
  setFeatures: 2,
  setOwner: 3,
  resetOwner: 4,
  setMemoryTable: 5,
  setVringNum: 8,
  setVringAddress: 9,
  setVringBase: 10,
  getVringBase: 11,
  setVringKick: 12,
  setVringCall: 13,
  setVringError: 14,
  getProtocolFeatures: 15,
  setProtocolFeatures: 16,
  getQueueCount: 17,
  setVringEnable: 18,
  setBackendChannel: 21,
  getConfig: 24,
  setConfig: 25,
  getInflight: 31,
  setInflight: 32,
  resetDevice: 34,
  getMemorySlotsMax: 36,
  addMemoryRegion: 37,
  removeMemoryRegion: 38,
  setStatus: 39,
  getStatus: 40,
} as const;

/** What a back end tells a front end, on the channel that this one gave it for that. */
export const backendRequest = { configChanged: 2 } as const;

/** Bits of the protocol features. */
export const protocolFeature = {
  multiQueue: 1n << 0n,
  replyAck: 1n << 3n,
  backendChannel: 1n << 5n,
  config: 1n << 9n,
  inflight: 1n << 12n,
  resetDevice: 1n << 13n,
  memorySlots: 1n << 15n,
  status: 1n << 16n,
} as const;

export const PROTOCOL_FEATURES = Object.values(protocolFeature).reduce((all, bit) => all | bit, 0n);

/** Bits of the device's features. */
export const feature = {
  sizeMax: 1n << 1n,
  segmentsMax: 1n << 2n,
  readOnly: 1n << 5n,
  blockSize: 1n << 6n,
  flush: 1n << 9n,
  topology: 1n << 10n,
  configWriteback: 1n << 11n,
  multiQueue: 1n << 12n,
  discard: 1n << 13n,
  writeZeroes: 1n << 14n,
  indirectDescriptors: 1n << 28n,
  eventIndex: 1n << 29n,
  protocolFeatures: 1n << 30n,
  version1: 1n << 32n,
} as const;

/** In a kick, call or error message: which queue, and that no descriptor comes with it. */
export const VRING_INDEX_MASK = 0xff;
export const VRING_NO_FD = 0x100;

/** Types of a block request. */
export const blockType = {
  read: 0,
  write: 1,
  flush: 4,
  getId: 8,
  discard: 11,
  writeZeroes: 13,
} as const;

/** The last byte of every block request. */
export const blockStatus = { ok: 0, ioError: 1, unsupported: 2 } as const;

export const BLOCK_HEADER_BYTES = 16;
export const BLOCK_ID_BYTES = 20;
export const DISCARD_SEGMENT_BYTES = 16;
/** Of a write-zeroes range: the device may free it. */
export const DISCARD_FLAG_UNMAP = 1;
