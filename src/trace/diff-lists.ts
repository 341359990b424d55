/** A part of a layer that is listed by itself. */
export interface Stretch {
  readonly digest: string;
  readonly lba: number;
  readonly sectors: number;
  /** The earliest time in each trace; null where it is in one only. */
  readonly firstUs: number | null;
  readonly secondUs: number | null;
}

/** Joins parts that come in order of layer and place, and keeps the largest. */
export class LargestStretches {
  readonly #max: number;
  #kept: Stretch[] = [];
  #last: Stretch | null = null;

  constructor(max: number) {
    this.#max = max;
  }

  add(part: Stretch): void {
    const last = this.#last;
    const joins =
      last !== null && last.digest === part.digest && last.lba + last.sectors === part.lba;
    if (!joins) {
      this.#keepLast();
      this.#last = part;
      return;
    }
    this.#last = {
      ...last,
      sectors: last.sectors + part.sectors,
      firstUs: earlier(last.firstUs, part.firstUs),
      secondUs: earlier(last.secondUs, part.secondUs),
    };
  }

  /** The largest first. */
  list(): readonly Stretch[] {
    this.#keepLast();
    this.#shorten();
    return this.#kept;
  }

  #keepLast(): void {
    if (this.#last !== null) this.#kept.push(this.#last);
    this.#last = null;
    if (this.#kept.length > 2 * this.#max) this.#shorten();
  }

  #shorten(): void {
    this.#kept.sort(
      (a, b) => b.sectors - a.sectors || compare(a.digest, b.digest) || a.lba - b.lba,
    );
    this.#kept = this.#kept.slice(0, this.#max);
  }
}

function compare(a: string, b: string): number {
  if (a === b) return 0;
  return a < b ? -1 : 1;
}

function earlier(aUs: number | null, bUs: number | null): number | null {
  return aUs === null || bUs === null ? null : Math.min(aUs, bUs);
}
