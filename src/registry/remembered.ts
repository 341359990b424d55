/** A map of bounded size: when it is full, the entry set longest ago is forgotten. */
export class Remembered<V> {
  readonly #entries = new Map<string, V>();
  readonly #entriesMax: number;

  constructor(entriesMax: number) {
    this.#entriesMax = entriesMax;
  }

  get(key: string): V | undefined {
    return this.#entries.get(key);
  }

  set(key: string, value: V): void {
    this.#entries.delete(key);
    this.#entries.set(key, value);
    if (this.#entries.size <= this.#entriesMax) return;
    for (const oldest of this.#entries.keys()) {
      this.#entries.delete(oldest);
      break;
    }
  }

  delete(key: string): void {
    this.#entries.delete(key);
  }

  getOrCreate(key: string, create: () => V): V {
    const existing = this.#entries.get(key);
    if (existing !== undefined) return existing;
    const created = create();
    this.set(key, created);
    return created;
  }
}
