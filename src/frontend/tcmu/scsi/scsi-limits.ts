/** Bounds that the target reports in VPD page B0 and holds commands to. */
export const scsiLimits = {
  /** Blocks of one read, write or verify: 4 MiB, the data area that snapshotters ask for. */
  transferBlocksMax: 8192,
  /** What hosts had better use: 1 MiB. */
  transferBlocksBest: 2048,
  /** Blocks of 4 KiB: what caches and compressed blocks are made of. */
  granularityBlocks: 8,
  /** Blocks that one UNMAP names: 2 GiB. */
  unmapBlocksMax: 2 ** 22,
  unmapDescriptorsMax: 256,
  /** Blocks of one WRITE SAME: 512 MiB. */
  writeSameBlocksMax: 2 ** 20,
  compareAndWriteBlocksMax: 255,
  /** Extents of one GET LBA STATUS. */
  statusDescriptorsMax: 1024,
  /** What GET LBA STATUS looks at: 1 GiB. */
  statusBytesMax: 2 ** 30,
  /** Data that is copied or made up at a time, in bytes. */
  chunkBytes: 1024 * 1024,
} as const;
