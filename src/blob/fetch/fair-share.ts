/** One device's part of a lane that several share. */
export class Flow {
  /** Where the flow's last range ends, in the lane's virtual bytes. */
  endsAt = 0;
  /** Ranges in line. */
  queued = 0;
}

/**
 * Shares a lane by bytes (start-time fair queueing: P. Goyal, H. M. Vin, H. Cheng, 1996). Ranges leave in
 * the order of where they start:
 *
 *   flow A   [----0----][----1----][----2----]
 *   flow B                  [-0-][-1-]                in line after A.1 left: before A.2
 *                       ^ now
 *
 * Each starts where its flow's last one ends, but not before what leaves now. So a flow alone has the
 * whole lane in its own order, and a new one does not wait behind what others have in line.
 */
export class FairShare {
  #now = 0;

  /** The place of a range of a flow. */
  place(flow: Flow, bytes: number): number {
    const start = Math.max(this.#now, flow.endsAt);
    flow.endsAt = start + bytes;
    return start;
  }

  /** A range at this place leaves. */
  leaves(place: number): void {
    this.#now = Math.max(this.#now, place);
  }
}
