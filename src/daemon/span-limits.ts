/** Of spans for a collector. */
export const spanLimits = {
  /** A device is steady when its replay is over and no read has found nothing for so long. */
  steadyMs: 5000,
  /** Spans wait so long for others to be sent with. */
  batchMs: 1000,
  /** How long a collector may take to answer; it is not asked again. */
  exportMsMax: 2000,
  /** How long the end of the process waits for what is not sent yet. */
  closeMsMax: 500,
} as const;
