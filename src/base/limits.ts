/**
 * Every fixed bound of the project, by room. A bound that depends on a user's choice is a setting,
 * not a limit, and lives with the code that reads the setting.
 */
export const SECTOR_BYTES = 512;

/** The cache's unit of presence, in bytes of a blob; also the page size a mapping can drop. */
export const GRANULE_BYTES = 4096;

export * from './trace-limits.ts';

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

export const upperLimits = {
  /** Entries of an append-only layer's log, as the original has it. */
  logEntriesMax: 128_000_000,
  /** Entries of a sparse layer's sidecar, which is read whole: a gibibyte. */
  sidecarEntriesMax: 2 ** 26,
  /** Entries that wait in memory; when they fill it, writers wait until they are written. */
  pendingEntriesMax: 1_048_576,
  /** So many waiting entries are written in the background, */
  drainEntries: 65_536,
  /** and those that have waited for so long. */
  drainMs: 5000,
  /** Sectors of an append-only layer's data file: 2 TiB. */
  dataSectorsMax: 2 ** 32 - 2,
  /** Largest disk whose layer can be written. */
  virtualSizeBytesMax: 16 * 1024 ** 4,
  /** Regions of 64 KiB that a live index holds sector by sector: 8 GiB of memory. */
  leavesMax: 2 ** 24,
  /** One write's part that becomes one entry; the original's, in bytes. */
  writeBytesMax: 4 * 1024 * 1024,
  /** How long one thread waits for another that has an index's lock, and may wait for a disk. */
  lockMsMax: 60_000,
  /** How long writers may take to leave a layer that is being flushed, replaced or closed. */
  shutOutMsMax: 60_000,
  /** Entries of one frame of a sparse layer's sidecar. */
  frameEntriesMax: 1_048_576,
  /** A log of more entries than this, and twice those that count, is rewritten when it is opened. */
  logEntriesKept: 65_536,
} as const;

export const zfileLimits = {
  blockBytesMin: 4096,
  blockBytesMax: 65_536,
  blocksMax: 1_000_000_000,
  /** What a stored block may be longer than a plain one, CRC aside: the original's buffer. */
  expansionBytesMax: 512,
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
  /** What a device is asked to describe at a time, in bytes. */
  extentsStepBytes: 16 * 1024 * 1024,
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

/** Sockets of one folder that are looked at. */
export const SOCKETS_MAX = 1000;

export const tapLimits = {
  ringsMax: 64,
  /** Entries of one ring; a power of two. */
  ringEntries: 65_536,
  /** Misses that are remembered by their entry's time until their wait begins. */
  missStampsMax: 4096,
} as const;

export const fsReadLimits = {
  /** Extents of one file. */
  extentsMax: 1_000_000,
  /** Blocks of one file's extent tree or block map that are read: 256 GiB of a scattered file. */
  mapBlocksMax: 65_536,
  /** Of one directory, in bytes. */
  directoryBytesMax: 2 ** 30,
  /** Symbolic links followed on one path, and the bytes of one; Linux has the same limits. */
  symlinksMax: 40,
  linkBytesMax: 65_536,
  /** Parts of one path, those of followed links included. */
  pathPartsMax: 4096,
  /** Directories and files that one walk of a tree visits, how deep, and the longest path to enter. */
  treeNodesMax: 16_000_000,
  treeDepthMax: 4096,
  treePathBytesMax: 16_384,
  /** Metadata kept while paths are looked up. */
  cachedBytesMax: 64 * 1024 * 1024,
  /** Block groups of one ext4: 128 TiB. */
  groupsMax: 1_048_576,
  /** Cached reads after which others have their turn. */
  readsPerTurn: 256,
  /** Paths of a list that are looked up at once. */
  concurrency: 16,
  /** Ranges that a list of paths comes to. */
  rangesMax: 4_000_000,
  /** Files below one path of a list that are named when they cannot be read. */
  failuresToldMax: 100,
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
  /** Ranges of one request: Apache refuses more than 20 that go back, others allow far more. */
  requestRangesMax: 20,
  /** Boundary and headers before each range of a multipart answer. */
  partHeaderBytesMax: 4096,
  referrerPagesMax: 16,
  /** Tags of a repository that are listed: so many in all, at a time, and so many times. */
  tagsMax: 8000,
  tagsPerPage: 1000,
  tagPagesMax: 8,
  /** Repositories, tokens and redirect targets remembered; the oldest goes first. */
  rememberedMax: 4096,
  /** How long a request waits for another to find out how its repository or blob is reached. */
  probeWaitMs: 2000,
  retryAfterMsMax: 60_000,
} as const;

export const cacheLimits = {
  /** A blob of this size needs 128 MiB of presence bits. */
  blobBytesMax: 2 ** 42,
  /** Blobs one cache directory may hold; the rest is left alone and not used. */
  blobsMax: 100_000,
  /** What eviction decides about at once: usage stamps and pins are kept per extent. */
  extentBytes: 256 * 1024,
  /** Longest time that newly fetched granules stay unrecorded on disk. */
  checkpointMs: 3000,
  /** Granules that were evicted keep their bytes this long, for readers that are at it. */
  reclaimGraceMs: 50,
  /** How long eviction rests after it found nothing to evict. */
  evictionRestMs: 1000,
  /** How long the disk is left alone after it refused a write. */
  diskRestMs: 1000,
  /** Pieces of a blob that a full disk may put into memory; each needs kernel mappings. */
  memoryRunsMax: 16_384,
} as const;

export const fetchLimits = {
  demandRequestBytesMax: 1024 * 1024,
  prefetchRequestBytesMax: 2 * 1024 * 1024,
  prefetchRequestBytesMin: 64 * 1024,
  /** Ranges waiting in the prefetch lane. */
  prefetchBacklogMax: 1000,
  /** Ranges that a device may always have in line there, whatever others have. */
  flowBacklogMin: 16,
  demandConcurrencyMax: 32,
  prefetchConcurrencyMax: 48,
  /** Origins whose lanes and measured link are kept while none of their blobs is open. */
  originsKept: 64,
  /** Bytes asked for but not arrived, in the prefetch lane. */
  windowBytesMin: 128 * 1024,
  /** The window's part that prefetch has while a demand read waits: nothing queues up, nor idles. */
  windowShareUnderDemand: 1 / 2,
  windowBytesStart: 1024 * 1024,
  /** A rate that is believed as soon as it is measured; a lower one may be that of a small window. */
  fastBytesPerSecond: 64_000_000,
  windowBytesMax: 64 * 1024 * 1024,
  demandAttemptsMax: 8,
  prefetchAttemptsMax: 3,
  /** Requests of a packed source that fail before it is given up. */
  packedFailuresMax: 3,
  /** How much larger its requests are than others: all that they bring is needed, and in order. */
  packedRequestFactor: 4,
  /** Bytes of one that are present already, and yet are taken along to spare a request. */
  packedGapBytesMax: 32 * 1024,
  /** How often one wait looks again at what is present and what is under way. */
  waitRoundsMax: 64,
  backoffMsFirst: 100,
  backoffMsMax: 5000,
  retryAfterMsMax: 60_000,
  /** A demand read that is not answered by then fails. */
  readDeadlineMs: 30_000,
  /** A request that brought nothing for this long is given up, */
  stallMs: 10_000,
  /** or for this part of the read deadline, when that is shorter. */
  stallsPerDeadline: 3,
  readAheadBytesMin: 32 * 1024,
  readAheadBytesStart: 256 * 1024,
  readAheadBytesMax: 1024 * 1024,
} as const;

export const ext4Limits = {
  /** Extents of one file: a map of 4,000,000 scattered pieces is about 48 MiB on disk. */
  fileExtentsMax: 4_000_000,
  /** Entries of one directory that is read into memory to be sorted. */
  directoryEntriesMax: 10_000_000,
  /** Files with several names that are remembered until all names were met. */
  hardLinksMax: 4_000_000,
  /** Names of one file, and sub-directories that a link count can tell (EXT4_LINK_MAX). */
  linksMax: 65_000,
  /** Blocks of metadata that wait in memory until all of a change is known: 1 GiB. */
  stagedBlocksMax: 262_144,
  virtualSizeBytesMin: 16 * 1024 * 1024,
  virtualSizeBytesMax: 16 * 1024 ** 4,
  /** Of a file system: their numbers have 32 bits. */
  inodesMax: 2 ** 32 - 1,
} as const;

export const tarLimits = {
  entriesMax: 10_000_000,
  /** One pax header, or one of GNU's long names. */
  headerBytesMax: 1024 * 1024,
  /** Of a name with its folders, and of a link's target. */
  pathBytesMax: 16_384,
  sparseRangesMax: 1_000_000,
  attributesMax: 1024,
  attributeNameBytesMax: 255,
} as const;

export const applyLimits = {
  /** Symbolic links on the way to one entry, as containerd has it. */
  symlinksMax: 255,
  /** Of a file with its holes: 2^32 - 1 blocks. */
  fileBytesMax: (2 ** 32 - 1) * 4096,
  /** Content after which other work of the process has its turn. */
  turnBytes: 4 * 1024 * 1024,
} as const;

export const threadLimits = {
  /** How long the end of a process waits for threads that load libraries. */
  exitMsMax: 10_000,
} as const;

export const loopLimits = {
  /** Free loop devices tried when others take them first. */
  attemptsMax: 64,
} as const;

export const fuseLimits = {
  /** One READ's answer; the kernel's own ceiling (256 pages). */
  readBytesMax: 1024 * 1024,
  /** One WRITE's data, on a writable device. */
  writeBytesMax: 1024 * 1024,
  /** Requests the kernel may have outstanding that nobody waits for (read-ahead, direct I/O). */
  backgroundMax: 64,
  /** As many of a writable device: all that a loop device has, so that no write waits for reads. */
  writableBackgroundMax: 256,
  workersMax: 16,
  /** Reads, and other requests, that the main thread works on at a time; each holds one's data. */
  answersMax: 64,
  /** Requests waiting behind those; more are answered EIO. */
  queuedMax: 16_384,
  /** How long close() waits for the kernel to write what it holds back of a writable device. */
  settleMsMax: 600_000,
  /** Attempts to unmount something busy within the time that close() allows. */
  unmountAttemptsMax: 1000,
  /** How long close() waits for workers whose connection is gone; some may still be starting. */
  workersEndMsMax: 60_000,
} as const;

export const tcmuLimits = {
  /** A device's rings and data area as they are mapped. */
  mappingBytesMax: 2 ** 32,
  /** The kernel's own bound of dev_config, its zero included. */
  configBytesMax: 256,
  /** A name in configfs, and what is left of a long id in one. */
  folderNameBytesMax: 200,
  /** Room for events that nobody has read yet, as the original has it. */
  netlinkReceiveBytes: 4 * 1024 * 1024,
  /** Events read before others have their turn. */
  datagramsPerTurn: 256,
  /** How often, and how many milliseconds apart, it is looked for the disk of a new LUN. */
  diskLooksMax: 6000,
  diskLookMs: 10,
  /** How often, and how many milliseconds apart, unmounting something busy is tried. */
  unmountAttemptsMax: 100,
  unmountPauseMs: 50,
  /** How often a device's ring is emptied because it cannot be right, before it is left alone. */
  ringResetsMax: 3,
  /** Before a device of a former process is opened again; twice as long each time, up to the second. */
  reopenMsFirst: 1000,
  reopenMsMax: 60_000,
  /** How often it is looked whether TCMU devices can be served now, where they could not be. */
  lookAgainMs: 10_000,
} as const;

export const layerBlobLimits = {
  /** How often bytes that fail verification are dropped and fetched again. */
  verifyAttemptsMax: 3,
  /** How often a reader asks again for bytes that were evicted before it could read them. */
  evictedAttemptsMax: 8,
  /** The guess of how much of a blob's end holds trailer and jump table. */
  tailGuessBytesMin: 64 * 1024,
  tailGuessBytesMax: 4 * 1024 * 1024,
} as const;

export const controlLimits = {
  /** Body of a request, in bytes. */
  bodyBytesMax: 65_536,
  /** Body of a reply that the client side accepts, in bytes. */
  replyBytesMax: 16 * 1024 * 1024,
  /** A whole request has to arrive within this time. */
  requestMsMax: 10_000,
  /** A reply has to begin within this time; ending a recording may write a large trace. */
  replyMsMax: 120_000,
  /** How long close() waits for requests in progress; devices are closed by then. */
  closeMsMax: 500,
  connectionsMax: 64,
} as const;

export const daemonLimits = {
  /** Devices of one process, of whatever state. */
  devicesMax: 10_000,
  /** Devices that are looked after, with those that forks open for themselves. */
  turnsMax: 16_384,
  /** Characters of a device's name. */
  idLengthMax: 128,
  /** Devices that are detached at once when the daemon ends. */
  closingMax: 32,
  /** How long a device that is detached still waits for reads from a registry. */
  closingReadsMs: 500,
  /**
   * How long a service that starts waits for the devices of the former daemon; less than the unit's
   * TimeoutStartSec, of which the margin is for what comes before and after.
   */
  adoptMsMax: 60_000,
  adoptMarginMs: 30_000,
  /** One description in the state folder, in bytes. */
  descriptionBytesMax: 65_536,
} as const;

export const readListLimits = {
  linesMax: 1_000_000,
  /** Characters of one line, comment included. */
  lineLengthMax: 256,
  /** Of the whole file, in bytes. */
  fileBytesMax: 64 * 1024 * 1024,
  /** One read, in bytes. */
  readBytesMax: 32 * 1024 * 1024,
  /** Think time of one read: ten minutes. */
  thinkUsMax: 600_000_000,
  /** Reads in flight at once. */
  concurrencyMax: 1024,
} as const;

export const lineFileLimits = {
  /** Bytes that wait to be written to a log; lines beyond that are dropped. */
  waitingBytesMax: 4 * 1024 * 1024,
  /** How long a file is left alone after it refused a write. */
  retryMs: 1000,
  /** How long closing waits for what is not written yet. */
  closeMsMax: 2000,
} as const;

export const doctorLimits = {
  /** A file that is looked into: a kernel's list of its modules is the longest. */
  fileBytesMax: 16 * 1024 * 1024,
  /** How long a registry may take to answer. */
  registryMsMax: 15_000,
  /** Processes looked at for the original daemon. */
  processesMax: 65_536,
} as const;

export const serviceConfigLimits = {
  fileBytesMax: 1024 * 1024,
} as const;

export const prefetchLimits = {
  /** Plan ranges the coalescer looks at together; the first window is small, to begin at once. */
  windowRanges: 4096,
  firstWindowRanges: 256,
  /** Prefetch requests handed to the fetcher that have not ended. */
  outstandingMax: 256,
  /** Requests in a row that fail before a replay gives up. */
  failuresMax: 32,
  failureDelayMsMin: 50,
  failureDelayMsMax: 5000,
} as const;

export const configLimits = {
  /** A config.v1.json: 255 lowers take about 100 KiB. */
  fileBytesMax: 16 * 1024 * 1024,
} as const;

export const convertLimits = {
  /** Images of one index. */
  imagesMax: 64,
  /** Layers of one image: a base layer comes on top of that. */
  layersMax: lsmtLimits.layersMax - 1,
  /** Layers that are downloaded before the one that is applied is done. */
  layersAhead: 2,
  /** Layers on their way to the registry at once, of one image. */
  pushesMax: 2,
  /** A layer's blob or its tar, in bytes: no real one is larger. */
  layerBytesMax: 2 ** 43,
  /** Tar bytes that are decompressed before they are applied. */
  readAheadBytes: 4 * 1024 * 1024,
  /** Downloads of one blob that break off before the conversion fails. */
  downloadAttemptsMax: 6,
  /** Members of a docker archive. */
  archiveEntriesMax: 100_000,
  /** Links of a docker archive that are followed from one name. */
  archiveLinksMax: 8,
  /** Repositories that a cache remembers for one layer, to mount it from. */
  placesMax: 16,
  /** A cache's record of one layer. */
  recordBytesMax: 64 * 1024,
} as const;

/** Of one SCSI disk; most are reported in VPD page B0. */
export const scsiLimits = {
  /** Blocks of one read, write or verify: 4 MiB, the data area that snapshotters ask for. */
  transferBlocksMax: 8192,
  /** What hosts had better use: 1 MiB. */
  transferBlocksBest: 2048,
  /** Blocks of 4 KiB: what caches and compressed blocks are made of. */
  granularityBlocks: 8,
  /** Blocks that one UNMAP names: 512 MiB. */
  unmapBlocksMax: 2 ** 20,
  unmapDescriptorsMax: 256,
  /** Blocks of one WRITE SAME: 512 MiB. */
  writeSameBlocksMax: 2 ** 20,
  compareAndWriteBlocksMax: 255,
  /** Extents of one GET LBA STATUS. */
  statusDescriptorsMax: 1024,
  /** What GET LBA STATUS looks at, in bytes. */
  statusBytesMax: 64 * 1024 * 1024,
  /** What VERIFY reads at a time, in bytes. */
  verifyStepBytes: 128 * 1024,
  /** What WRITE SAME writes at a time, in bytes. */
  writeSameStepBytes: 1024 * 1024,
} as const;

/** Of one TCMU device's command ring. */
export const ringLimits = {
  /** Commands worked on at a time; as many as tcm_loop lets a disk have. */
  commandsMax: 1024,
  /** Entries that were taken from the ring and not given back, padding included. */
  entriesMax: 2048,
  /** I/O vectors of one command: 64 MiB of scattered pages. */
  vectorsMax: 16_384,
  /** Commands, and bytes of their data, after which other devices have their turn. */
  turnCommands: 256,
  turnBytes: 8 * 1024 * 1024,
  /** Views of the data area that are kept for the next command. */
  viewsKept: 1024,
  /** A mapping's size: what the kernel allows by far. */
  memoryBytesMax: 2 ** 36,
} as const;
