import { NOTHING } from './palette.ts';

/** A picture of codes, row after row; a cell holds the greatest that was put there. */
export interface Grid {
  readonly columns: number;
  readonly rows: number;
  readonly codes: Uint8Array;
}

/** A part of the plane: times in microseconds, positions of a DiskAxis; `to` lies outside. */
export interface Window {
  readonly timeFrom: number;
  readonly timeTo: number;
  readonly diskFrom: number;
  readonly diskTo: number;
}

/** Points with a height: what is drawn. */
export interface Marks {
  readonly count: number;
  readonly timeUs: Float64Array;
  /** Position of the first sector, and how many follow; a position below 0 is not drawn. */
  readonly position: Float64Array;
  readonly sectors: ArrayLike<number>;
  readonly codes: Uint8Array;
}

export function fillGrid(marks: Marks, window: Window, columns: number, rows: number): Grid {
  const codes = new Uint8Array(columns * rows);
  const { timeFrom, timeTo, diskFrom, diskTo } = window;
  const perUs = columns / Math.max(timeTo - timeFrom, 1e-9);
  const perSector = rows / Math.max(diskTo - diskFrom, 1e-9);
  for (let i = 0; i < marks.count; i += 1) {
    const time = marks.timeUs[i];
    const position = marks.position[i];
    const end = position + marks.sectors[i];
    if (time < timeFrom || time >= timeTo) continue;
    if (position < 0 || end <= diskFrom || position >= diskTo) continue;
    const column = Math.min(columns - 1, Math.floor((time - timeFrom) * perUs));
    const first = Math.max(0, Math.floor((position - diskFrom) * perSector));
    const last = Math.min(rows - 1, Math.ceil((end - diskFrom) * perSector) - 1);
    const code = marks.codes[i];
    for (
      let row = Math.min(first, rows - 1);
      row <= Math.max(first, last) && row < rows;
      row += 1
    ) {
      const cell = row * columns + column;
      if (codes[cell] < code) codes[cell] = code;
    }
  }
  return { columns, rows, codes };
}

/** The same picture with half the rows: of two cells the greater. */
export function halveRows({ columns, rows, codes }: Grid): Grid {
  const half = new Uint8Array(columns * Math.ceil(rows / 2)).fill(NOTHING);
  for (let cell = 0; cell < codes.length; cell += 1) {
    const to = Math.floor(cell / columns / 2) * columns + (cell % columns);
    if (half[to] < codes[cell]) half[to] = codes[cell];
  }
  return { columns, rows: Math.ceil(rows / 2), codes: half };
}
