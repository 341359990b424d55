import type { Logger } from '../../base/log.ts';
import type { ScsiTarget } from './scsi/target.ts';

/** What a ring (ring.ts) is made of. */
export interface RingOptions {
  /**
   * The device's UIO mapping from the mailbox to the end of the data area. It may be unmapped once
   * `drain` has resolved, not before: reads that wait for a registry land in it.
   */
  memory: Uint8Array;
  /** Answers the commands. */
  target: ScsiTarget;
  /** Tells the kernel that there are completions: writes four bytes to the UIO device. */
  kick: () => void;
  /**
   * The ring cannot be trusted any more (ERR_TCMU_RING) or the kernel could not be told. Called
   * once; nothing in the ring is touched afterwards, and the device has to be drained and taken
   * down.
   */
  onBroken: (error: Error) => void;
  log: Logger;
  /** Commands worked on at a time, ringLimits.commandsMax when absent; the others wait in the ring. */
  commandsMax?: number;
}
