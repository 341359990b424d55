import { Box, renderToString, Text } from 'ink';
import { createElement, type ReactElement } from 'react';

/** Where a first access found its bytes. */
export type AccessSource = 'cached' | 'prefetched' | 'late' | 'demand';

/** One first access of a run. */
export interface TimelineAccess {
  /** Since the run began. */
  timeMs: number;
  lba: number;
  source: AccessSource;
}

export interface TimelineOptions {
  title: string;
  /** Columns of terminal cells for the time axis. */
  columns: number;
  rows: number;
  /** Right end of the time axis, so that several runs can share one scale. */
  durationMs: number;
  /** Sorted distinct LBAs of all runs shown together, so that they share one scale. */
  lbas: readonly number[];
  color: boolean;
}

/** Worst last: a cell shows the worst that happened in it. Told apart by symbol as well as colour. */
const MARKS: readonly { source: AccessSource; symbol: string; color: string; label: string }[] = [
  { source: 'cached', symbol: '·', color: 'gray', label: 'cached' },
  { source: 'prefetched', symbol: '░', color: 'green', label: 'prefetched in time' },
  { source: 'late', symbol: '▒', color: 'yellow', label: 'late (in flight)' },
  { source: 'demand', symbol: '█', color: 'red', label: 'demand (waited)' },
];

/**
 * A run as a picture: time to the right, the touched part of the disk downwards. Returns text with
 * ANSI colours when `color` is set.
 */
export function renderTimeline(
  accesses: readonly TimelineAccess[],
  options: TimelineOptions,
): string {
  const { title, columns, rows, color } = options;
  const cells = fillCells(accesses, options);
  const lines = Array.from({ length: rows }, (_, row) =>
    timelineRow(cells.subarray(row * columns, (row + 1) * columns), row, color),
  );
  const axis = timeAxis(columns, options.durationMs);
  const picture = createElement(
    Box,
    { flexDirection: 'column' },
    createElement(Text, { key: 'title', bold: color }, title),
    ...lines,
    createElement(Text, { key: 'axis', dimColor: color }, axis),
  );
  return renderToString(picture, { columns: columns + 4 });
}

/** What the symbols mean, in one line. */
export function timelineLegend(): string {
  return MARKS.map((mark) => `${mark.symbol} ${mark.label}`).join('   ');
}

/** Cell values: 0 for nothing, else 1 + the position in MARKS of the worst access. */
function fillCells(accesses: readonly TimelineAccess[], options: TimelineOptions): Uint8Array {
  const { columns, rows, durationMs, lbas } = options;
  const cells = new Uint8Array(columns * rows);
  for (const access of accesses) {
    const column = Math.min(columns - 1, Math.floor((access.timeMs / durationMs) * columns));
    const row = Math.min(rows - 1, Math.floor((rankOf(lbas, access.lba) / lbas.length) * rows));
    const value = 1 + MARKS.findIndex((mark) => mark.source === access.source);
    const cell = row * columns + Math.max(0, column);
    cells[cell] = Math.max(cells[cell], value);
  }
  return cells;
}

/** Position of the last LBA that is not beyond `lba`. */
function rankOf(lbas: readonly number[], lba: number): number {
  let low = 0;
  let high = lbas.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if (lbas[middle] <= lba) low = middle + 1;
    else high = middle;
  }
  return Math.max(0, low - 1);
}

/** One Text a row with runs of equal cells inside. */
function timelineRow(cells: Uint8Array, row: number, color: boolean): ReactElement {
  const parts: ReactElement[] = [];
  let start = 0;
  for (let end = 1; end <= cells.length; end += 1) {
    if (end < cells.length && cells[end] === cells[start]) continue;
    const mark = cells[start] === 0 ? null : MARKS[cells[start] - 1];
    const text = (mark?.symbol ?? ' ').repeat(end - start);
    const props = color && mark !== null ? { color: mark.color } : {};
    parts.push(createElement(Text, { key: start, ...props }, text));
    start = end;
  }
  return createElement(Text, { key: `row${row}` }, '│', ...parts, '│');
}

function timeAxis(columns: number, durationMs: number): string {
  const end = `${(durationMs / 1000).toFixed(1)} s`;
  return `└0 s${'─'.repeat(Math.max(0, columns - 3 - end.length))}${end}┘`;
}
