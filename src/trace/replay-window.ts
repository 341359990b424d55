import { RUN_BYTES_MIN } from './store-renewal.ts';
import { waitedUs, type Trace } from './trace.ts';

/** How long a run is measured at least, however short its trace. */
const LENGTH_US_MIN = 1_000_000;

/** What has come of a device when it is looked at, all by one clock that never goes back. */
export interface WindowLook {
  readonly timeUs: number;
  /** Touched for the first time until then. */
  readonly touchedBytes: number;
  /** How long reads have waited for bytes until then. */
  readonly waitedUs: number;
}

/**
 * The part of a run that a replay is measured over:
 *
 *   open    mount     workload
 *   |-------|.|-------|.......|..|.....|...............
 *                      |<--- window -->|
 *                             waits: they make it longer
 *
 * It begins when more was touched than a mount reads, however long after the device was opened that is;
 * and lasts as long as the recorded run went on from there with everything local. What a service reads
 * later was never promised, and would make every trace of one that goes on look stale.
 */
export class ReplayWindow {
  /** On the warm axis: without what reads wait. */
  readonly lengthUs: number;
  /** Null before it begins. */
  #start: WindowLook | null = null;

  constructor(trace: Pick<Trace, 'recording' | 'records' | 'plan'>) {
    const { recording, records, plan } = trace;
    const warmUs = recording.durationUs - waitedUs(records);
    this.lengthUs = Math.max(LENGTH_US_MIN, warmUs - beginUs(plan));
  }

  /**
   * Begins the window if it is time. Gives how long it goes on already, without what reads waited; null
   * before it begins. To be called before a read is accounted.
   */
  elapsedUs(look: WindowLook): number | null {
    if (this.#start === null && look.touchedBytes >= RUN_BYTES_MIN) this.#start = look;
    if (this.#start === null) return null;
    return look.timeUs - this.#start.timeUs - (look.waitedUs - this.#start.waitedUs);
  }
}

/** When the recorded run had read more than a mount does; 0 if it never had. */
function beginUs({ count, length, dueUs }: Trace['plan']): number {
  let bytes = 0;
  for (let i = 0; i < count; i += 1) {
    // What is due at 0 is metadata, which nobody reads through the device.
    if (dueUs[i] > 0) bytes += length[i];
    if (bytes >= RUN_BYTES_MIN) return dueUs[i];
  }
  return 0;
}
