/** Parts of a disk, each with its owner and what it holds of that, as columns. */
export interface ExtentRow {
  /** Bytes of the disk. */
  readonly offset: number;
  readonly length: number;
  readonly owner: number;
  readonly fileOffset: number;
  readonly fileLength: number;
}

const COLUMNS = ['offset', 'length', 'owner', 'fileOffset', 'fileLength'] as const;
type Columns = Record<(typeof COLUMNS)[number], Float64Array>;
const ROWS_MIN = 1024;

/** Collects rows in any order. */
export class ExtentTableBuilder {
  #columns = makeColumns(ROWS_MIN);
  #count = 0;

  get count(): number {
    return this.#count;
  }

  add(row: ExtentRow): void {
    if (row.length <= 0) return;
    if (this.#count === this.#columns.offset.length) {
      const larger = makeColumns(this.#count * 2);
      for (const name of COLUMNS) larger[name].set(this.#columns[name]);
      this.#columns = larger;
    }
    for (const name of COLUMNS) this.#columns[name][this.#count] = row[name];
    this.#count += 1;
  }

  /** Of rows that overlap, the one that begins first keeps its bytes; among equals the first added. */
  finish(): ExtentTable {
    const { offset } = this.#columns;
    const order = new Uint32Array(this.#count).map((_, i) => i);
    order.sort((a, b) => offset[a] - offset[b] || a - b);
    const sorted = makeColumns(this.#count);
    let count = 0;
    let end = 0;
    for (const from of order) {
      const row = cutBefore(rowAt(this.#columns, from), end);
      if (row === null) continue;
      for (const name of COLUMNS) sorted[name][count] = row[name];
      count += 1;
      end = row.offset + row.length;
    }
    return new ExtentTable(sorted, count);
  }
}

/** Rows by offset, which do not overlap. */
export class ExtentTable {
  readonly count: number;
  readonly #columns: Columns;

  /** `ExtentTableBuilder.finish` calls this. */
  constructor(columns: Columns, count: number) {
    this.#columns = columns;
    this.count = count;
  }

  /** The rows' parts inside [from, to), and null for each gap, in order: together all of it. */
  *within(from: number, to: number): Generator<[start: number, end: number, ExtentRow | null]> {
    const { offset, length } = this.#columns;
    let at = from;
    for (let i = this.#firstEndingAfter(from); i < this.count && offset[i] < to; i += 1) {
      if (offset[i] > at) yield [at, offset[i], null];
      const start = Math.max(at, offset[i]);
      at = Math.min(to, offset[i] + length[i]);
      yield [start, at, rowAt(this.#columns, i)];
    }
    if (at < to) yield [at, to, null];
  }

  #firstEndingAfter(position: number): number {
    const { offset, length } = this.#columns;
    let [low, high] = [0, this.count];
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (offset[middle] + length[middle] > position) high = middle;
      else low = middle + 1;
    }
    return low;
  }
}

/** What [start, end) of the disk, a part of a row's, holds of the owner. */
export function filePartOf(
  row: ExtentRow,
  start: number,
  end: number,
): { fileOffset: number; fileLength: number } {
  // Compressed bytes hold file bytes in proportion, as far as can be told without unpacking.
  const scale = row.fileLength / row.length;
  const first = Math.floor((start - row.offset) * scale);
  const last = Math.ceil((end - row.offset) * scale);
  return { fileOffset: row.fileOffset + first, fileLength: last - first };
}

function cutBefore(row: ExtentRow, position: number): ExtentRow | null {
  const end = row.offset + row.length;
  if (row.offset >= position) return row;
  if (end <= position) return null;
  const length = end - position;
  return { ...row, ...filePartOf(row, position, end), offset: position, length };
}

function rowAt(columns: Columns, i: number): ExtentRow {
  return {
    offset: columns.offset[i],
    length: columns.length[i],
    owner: columns.owner[i],
    fileOffset: columns.fileOffset[i],
    fileLength: columns.fileLength[i],
  };
}

function makeColumns(length: number): Columns {
  return {
    offset: new Float64Array(length),
    length: new Float64Array(length),
    owner: new Float64Array(length),
    fileOffset: new Float64Array(length),
    fileLength: new Float64Array(length),
  };
}
