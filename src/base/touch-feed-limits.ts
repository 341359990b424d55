/** Of one device's feed of first touches. */
export const touchFeedLimits = {
  /** Touches that there is room for at first, and at most: 25 bytes each. */
  entriesMin: 256,
  entriesMax: 8192,
} as const;
