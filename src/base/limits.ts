/**
 * Every fixed bound of the project, by room. A bound that depends on a user's choice is a setting,
 * not a limit, and lives with the code that reads the setting.
 */
export const SECTOR_BYTES = 512;

/** The cache's unit of presence, in bytes of a blob; also the page size a mapping can drop. */
export const GRANULE_BYTES = 4096;

export const lsmtLimits = {
  /** Lowers of one stack; the original's index tag has 8 bits. */
  layersMax: 255,
  /** Index entries of one read-only layer, padding included. */
  entriesMax: 4_000_000,
  /** Entries of a layer we write: with padding, the 1,000,000 that the original opens. */
  entriesWrittenMax: 999_936,
  /** Segments of one merged index. */
  mergedSegmentsMax: 128_000_000,
  /** Sectors of one index entry (14 bits). */
  segmentSectorsMax: 16_383,
} as const;

export const zfileLimits = {
  blockBytesMin: 4096,
  blockBytesMax: 65_536,
  blocksMax: 1_000_000_000,
} as const;

export const nbdLimits = {
  /** Largest READ or WRITE, in bytes; what the protocol lets every client assume. */
  requestBytesMax: 32 * 1024 * 1024,
  /** Data of one handshake option, in bytes. */
  optionBytesMax: 65_536,
  /** Options one client may send before it enters transmission. */
  optionsMax: 256,
  /** Any string of the protocol, in UTF-8 bytes. */
  nameBytesMax: 4096,
  exportsMax: 256,
  connectionsMax: 64,
  /** From accept to the end of the handshake. */
  handshakeMsMax: 10_000,
  /** Requests of one connection whose reply has not left yet. */
  outstandingRequestsMax: 256,
  /** Payload of those requests, in bytes; one request is always let in. */
  outstandingBytesMax: 32 * 1024 * 1024,
  /** Descriptors of one BLOCK_STATUS reply. */
  descriptorsMax: 4096,
  /** Content chunks of one structured READ reply. */
  chunksMax: 64,
  /** A shorter run of zeros travels as data: a chunk of its own would cost more. */
  holeBytesMin: 16_384,
  /** What CACHE reads at a time, in bytes. */
  cacheStepBytes: 262_144,
  /** How long close() waits for requests in flight. */
  closeMsMax: 5_000,
} as const;

/** Bytes of a unix socket's path: sun_path less its terminator. */
export const SOCKET_PATH_BYTES_MAX = 107;

export const tapLimits = {
  ringsMax: 64,
  /** Entries of one ring; a power of two. */
  ringEntries: 65_536,
} as const;

export const traceLimits = {
  fileBytesMax: 8 * 1024 * 1024,
  recordsMax: 1_000_000,
  /** Sectors of one record: 32 MiB. A longer first access becomes several records. */
  recordSectorsMax: 65_536,
  planRangesMax: 1_000_000,
  runsMax: 65_535,
  /** Entries of a workload's entrypoint, args or env. */
  workloadItemsMax: 1024,
  /** UTF-16 units of one text. */
  textLengthMax: 32_768,
  /** No disk or blob of a trace is larger: 2^50 bytes. */
  sizeBytesMax: 2 ** 50,
  /** Fourteen days. */
  durationUsMax: 14 * 86_400 * 1_000_000,
  /** Nesting and values of the msgpack body, before any of it is built. */
  nestingMax: 6,
  valuesMax: 16_384,
  /** Traces the local store lists. */
  storeEntriesMax: 100_000,
} as const;

export const sparseBitmapLimits = {
  /** Pages of 32,768 bits, 4 KiB of memory each: 64 MiB. */
  pagesMax: 16_384,
} as const;

export const registryLimits = {
  manifestBytesMax: 4 * 1024 * 1024,
  /** Descriptors of one manifest, index or referrers list. */
  descriptorsMax: 10_000,
  /** A configuration or another blob that is read whole into memory. */
  smallBlobBytesMax: 16 * 1024 * 1024,
  /** A token server's or credential server's answer, and the body of an error. */
  answerBytesMax: 64 * 1024,
  redirectsMax: 8,
  referrerPagesMax: 16,
  /** Repositories, tokens and redirect targets remembered; the oldest goes first. */
  rememberedMax: 4096,
  /** How long a request waits for another to find out how its repository or blob is reached. */
  probeWaitMs: 2000,
  retryAfterMsMax: 60_000,
} as const;
