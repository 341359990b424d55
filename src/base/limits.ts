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
