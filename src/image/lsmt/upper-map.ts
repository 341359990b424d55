/** append: a data file that is only appended to, and a log of entries. sparse: one sparse file. */
export type UpperKind = 'append' | 'sparse';

/**
 * A writable layer as plain shareable data: any thread of this process that receives it by
 * postMessage reads and writes the layer through a SharedUpper.
 */
export interface UpperMap {
  readonly kind: UpperKind;
  /** The data file, for messages. */
  readonly name: string;
  readonly virtualSizeBytes: number;
  /** The data file, open for reading and writing; a descriptor belongs to the whole process. */
  readonly fd: number;
  /** Address of the data file's byte 0, mapped read-only far beyond its present end. */
  readonly address: number;
  readonly mappedBytes: number;
  /** Which sectors the layer has: see SectorMap. `leaves` can grow. */
  readonly regions: SharedArrayBuffer;
  readonly leaves: SharedArrayBuffer;
  /** Locks, counters and the append position: see UpperState. */
  readonly state: SharedArrayBuffer;
  /** The file of pending changes, open for writing: see PendingFile. */
  readonly pendingFd: number;
  /** Entries that the main thread has not written to the log file yet: see EntryLog. */
  readonly log: SharedArrayBuffer;
}
