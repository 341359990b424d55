import assert from 'node:assert';

interface Hold {
  readonly lba: number;
  readonly lbaEnd: number;
  readonly isExclusive: boolean;
  /** Null once it is let in. */
  enter: (() => void) | null;
}

/**
 * Lets changes of the disk go on side by side, but for those that have to see nothing of others:
 * an exclusive one waits for all that overlap it, and they for it, in the order they came. There are
 * never more of them than there are commands.
 */
export class WriteGate {
  /** Those inside and those that wait, as they came. */
  readonly #holds = new Set<Hold>();
  #exclusives = 0;
  #waiting = 0;

  async run(
    lba: number,
    blocks: number,
    isExclusive: boolean,
    work: () => Promise<void>,
  ): Promise<void> {
    const hold: Hold = { lba, lbaEnd: lba + blocks, isExclusive, enter: null };
    if (isExclusive) this.#exclusives += 1;
    const mustWait = this.#exclusives > 0 && this.#conflicts(hold);
    this.#holds.add(hold);
    if (mustWait) {
      this.#waiting += 1;
      await new Promise<void>((resolve) => {
        hold.enter = resolve;
      });
    }
    try {
      await work();
    } finally {
      assert(this.#holds.delete(hold));
      if (isExclusive) this.#exclusives -= 1;
      this.#letIn();
    }
  }

  /** Something that came before overlaps `hold`, and one of the two is exclusive. */
  #conflicts(hold: Hold): boolean {
    for (const other of this.#holds) {
      if (other === hold) return false;
      const overlaps = other.lba < hold.lbaEnd && hold.lba < other.lbaEnd;
      if (overlaps && (other.isExclusive || hold.isExclusive)) return true;
    }
    return false;
  }

  #letIn(): void {
    if (this.#waiting === 0) return;
    for (const hold of this.#holds) {
      if (hold.enter === null || this.#conflicts(hold)) continue;
      const { enter } = hold;
      hold.enter = null;
      this.#waiting -= 1;
      enter();
    }
  }
}
