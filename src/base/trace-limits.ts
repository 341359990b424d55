/** The bounds of traces and of what is made of them; `limits.ts` gives them out. */
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

/** Of commands that combine and compare traces. */
export const traceLabLimits = {
  /** Traces of one merge, or runs of one check. */
  tracesMax: 1000,
  /** Records and plan ranges of all of them together: 6 GB of memory. */
  spansMax: 200_000_000,
  /** Parts that a merge comes to before neighbours are joined: 0.6 GB. */
  partsMax: 16_000_000,
  /** Entries of one list of a comparison. */
  listMax: 1000,
} as const;

/** Of the local store, and of looking for traces. */
export const traceStoreLimits = {
  /** What lives beside a trace, in bytes; and characters of one of its texts. */
  factsBytesMax: 32_768,
  textLengthMax: 1024,
  /** Replays of a trace whose qualities are kept. */
  runsMax: 8,
  /** Traces looked at for one of the same repository and workload. */
  olderLookedAtMax: 4096,
  /** Older images of the store's that are tried: of those with a trace, and of those without. */
  olderImagesMax: 3,
  /** Tags of the repository whose images are looked at for one. */
  olderTagsMax: 8,
  /** How long a trace may be looked for while a device is in use. */
  searchMsMax: 30_000,
  /** Temporary files older than this were left by a crash. */
  leftoverMsMin: 3_600_000,
  leftoversMax: 100_000,
} as const;

export const overlaybdTraceLimits = {
  /** Records of 24 bytes. */
  recordsMax: 1_000_000,
  /** A file of that many, with its header. */
  fileBytesMax: 24_000_024,
  /** Bytes of a record that is written: the original's replay has a buffer of this size. */
  recordBytesMax: 1024 * 1024,
  /** Bytes of all reads that are made a trace of, each as often as it occurs: 64 GiB. */
  importBytesMax: 2 ** 36,
  /** A list of paths; the original reads 65,536 bytes at most. */
  pathListBytesMax: 1024 * 1024,
  /** An acceleration layer's tar, uncompressed: both kinds of trace. */
  layerBytesMax: 34 * 1024 * 1024,
  /** How often a recording looks whether its `.lock` is still there. */
  lockPollMs: 1000,
} as const;

export const simulateLimits = {
  /** Bytes of one prefetch request. */
  rangeBytesMax: 64 * 1024 * 1024,
  /** Bytes of a plan whose cold start is simulated. */
  planBytesMax: 2 ** 34,
  /** Points of a result's curve. */
  curvePointsMax: 200,
  /** Times of lazy starts that are remembered of one trace. */
  lazyStartsKept: 256,
  /** Links of one table. */
  gridLinksMax: 100,
} as const;

export const fileMapLimits = {
  /** Files, directories and links of one map, and what their paths have together. */
  nodesMax: 4_000_000,
  pathBytesMax: 256 * 1024 * 1024,
  /** Extents of all of them, 40 bytes each. */
  extentsMax: 4_000_000,
  /** Metadata is read so many bytes at a time: inodes and directories lie together. */
  pageBytes: 64 * 1024,
} as const;

export const rebaseLimits = {
  /** Files of the old image that are looked up in the new one. */
  nodesMax: 200_000,
  /** The end of a file that is taken for the end of its new version. */
  tailBytes: 128 * 1024,
  /** What an attach spends on it beside the layers' own metadata: time, and bytes of each disk. */
  attachMsMax: 20_000,
  attachBytesMax: 64 * 1024 * 1024,
} as const;
