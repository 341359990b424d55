/** Fixed bounds of mapping traces through files, apart from the others for their number. */
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
