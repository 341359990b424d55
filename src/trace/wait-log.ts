import { tapLimits } from '../base/limits.ts';

interface Period {
  startUs: number;
  endUs: number;
}

/**
 * The time during which at least one read of a device waits for bytes that are not local: the union of
 * all waits, by the tap's clock.
 *
 *   read A    |------|        |----|
 *   read B       |------|
 *   periods   |---------|     |----|          10 + 5
 *
 * Accesses reach the recorder up to 20 ms late, so ended periods are kept until everybody who may ask
 * for a time before their end has asked.
 */
export class WaitLog {
  /** Ended and not settled, in order. */
  #periods: Period[] = [];
  /** Of settled periods. */
  #settledUs = 0;
  #waiting = 0;
  /** Where the period that has not ended begins. */
  #startUs = 0;
  #lastEndUs = 0;
  /** By offset: when a read that missed was stamped, until its wait begins. */
  readonly #stampsUs = new Map<number, number>();

  /** An entry of the tap says that a read at `offset` missed. */
  onMissEntry(timeUs: number, offset: number): void {
    if (this.#stampsUs.size >= tapLimits.missStampsMax) this.#stampsUs.clear();
    this.#stampsUs.set(offset, timeUs);
  }

  /**
   * A read at `offset` begins to wait: since its tap entry, if that was seen. The thread that read has
   * handed it over meanwhile, which a read of local bytes is spared.
   */
  begin(nowUs: number, offset: number): void {
    const stampUs = this.#stampsUs.get(offset) ?? nowUs;
    this.#stampsUs.delete(offset);
    const startUs = Math.max(Math.min(stampUs, nowUs), this.#lastEndUs);
    this.#startUs = this.#waiting === 0 ? startUs : Math.min(startUs, this.#startUs);
    this.#waiting += 1;
  }

  end(nowUs: number): void {
    this.#waiting -= 1;
    if (this.#waiting > 0) return;
    this.#lastEndUs = Math.max(nowUs, this.#startUs);
    this.#periods.push({ startUs: this.#startUs, endUs: this.#lastEndUs });
  }

  /** How long some read waited before `timeUs`, which is not before what was settled. */
  waitedUs(timeUs: number): number {
    let sumUs = this.#settledUs;
    for (const { startUs, endUs } of this.#periods) {
      sumUs += Math.max(0, Math.min(endUs, timeUs) - startUs);
    }
    return this.#waiting === 0 ? sumUs : sumUs + Math.max(0, timeUs - this.#startUs);
  }

  /** Nobody asks for times before `timeUs` any more. */
  settle(timeUs: number): void {
    const kept = this.#periods.findIndex(({ endUs }) => endUs > timeUs);
    const settled = this.#periods.splice(0, kept === -1 ? this.#periods.length : kept);
    for (const { startUs, endUs } of settled) this.#settledUs += endUs - startUs;
  }
}
