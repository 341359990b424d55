import { ringLimits } from '../../base/limits.ts';

const PAGE_SHIFT = 12;

/**
 * Views of a device's memory. The data area is used over and over in pages, so that most views have
 * been made before.
 */
export class ViewCache {
  readonly #memory: Uint8Array;
  readonly #views: (Uint8Array | undefined)[] = [];

  constructor(memory: Uint8Array) {
    this.#memory = memory;
  }

  /** The bytes at `offset`, which have to be inside the memory. */
  view(offset: number, length: number): Uint8Array {
    const slot = ((offset / 2 ** PAGE_SHIFT) % ringLimits.viewsKept) | 0;
    const kept = this.#views[slot];
    if (kept?.length === length && kept.byteOffset === this.#memory.byteOffset + offset)
      return kept;
    const made = this.#memory.subarray(offset, offset + length);
    this.#views[slot] = made;
    return made;
  }
}
