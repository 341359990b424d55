/** The end of the name of a device's socket in the runtime directory. */
export const VHOST_USER_SOCKET_SUFFIX = '.vhost';

/** Fixed bounds of the vhost-user front end. */
export const vhostUserLimits = {
  queuesMax: 16,
  /** Entries of one ring; QEMU's own bound. */
  queueSizeMax: 1024,
  /** Descriptors of one request, indirect ones included. */
  descriptorsMax: 1024,
  /** Pieces of memory of one guest. */
  memoryRegionsMax: 32,
  /** One region, and where it may end: numbers stay exact. */
  memoryBytesMax: 2 ** 46,
  /** Payload of one message; the largest that is known has 32 regions or 256 bytes of configuration. */
  messageBytesMax: 4096,
  /** Data of one request: `segmentsMax` pieces of `segmentBytesMax`. */
  requestBytesMax: 32 * 1024 * 1024,
  segmentsMax: 126,
  segmentBytesMax: 256 * 1024,
  /** Requests of one queue that are begun before others have their turn. */
  requestsPerTurn: 256,
  /** Data of requests that are waited for, of one device; at least one request always fits. */
  outstandingBytesMax: 64 * 1024 * 1024,
  /** Ranges of one discard or write-zeroes request, */
  discardSegmentsMax: 64,
  /** and sectors of one range: 2 GiB. */
  discardSectorsMax: 2 ** 22,
  /** How long close() waits for requests that were begun. */
  closeMsMax: 5000,
  /** Front ends that wait for their turn; one is served at a time. */
  backlog: 8,
} as const;
