import { fillGrid, type Window } from '../model/grid.ts';
import { KINDS } from '../model/kinds.ts';
import type { Palette } from '../model/palette.ts';
import type { Scene } from '../model/scene.ts';
import { timeTicks } from '../model/time-axis.ts';
import { addressAt, type Cells, type Cursor } from '../model/viewport.ts';
import { gridLines, withCursor, type CellStyle } from '../paint/cells.ts';
import { line, span, type Line, type Span } from '../paint/line.ts';
import { cellWidth, padStart } from '../paint/text.ts';
import { bytes, count } from '../paint/units.ts';

/** Cells beside the plot: names of places, and its edge. */
const SIDE = 10;
/** Cells between two times. */
const TICK_CELLS = 12;
/** Lines below: the edge with its ticks, and their times. */
const BELOW = 2;

/** What is left for the plot itself of so much room. */
export function plotCells(columns: number, lines: number): Cells {
  return { columns: Math.max(8, columns - SIDE - 1), rows: 2 * Math.max(2, lines - BELOW) };
}

/** A window of a scene with its axes, in `lines` lines. */
export function plotLines(
  scene: Scene,
  window: Window,
  cells: Cells,
  options: { cursor: Cursor | null; style: CellStyle },
): Line[] {
  const { columns, rows } = cells;
  const { cursor, style } = options;
  const grid = fillGrid(scene.marks, window, columns, rows);
  const drawn = gridLines(grid, scene.palette, style);
  const at = cursor === null ? null : cellOf(cursor, window, cells);
  const names = sideNames(scene, window, drawn.length);
  const body = drawn.map((one, row): Line => {
    const shown = at !== null && at.line === row ? withCursor(one, at.column) : one;
    return [span(`${padStart(names[row], SIDE - 1)}│`, 'dim'), ...shown];
  });
  return [...body, ...timeLines(window, columns)];
}

/**
 * What the colours or symbols that occur mean, in one line of so many cells; of kinds also how many
 * accesses there are.
 */
export function legendLine(
  palette: Palette,
  codes: Uint8Array,
  style: CellStyle,
  room: number,
): Line {
  const counts = new Float64Array(palette.length + 1);
  for (const code of codes) counts[code] += 1;
  const entries = palette.flatMap(({ symbol, colour, short }, index): [Span, Span][] => {
    if (counts[index + 1] === 0) return [];
    const text = palette === KINDS ? `${short} ${count(counts[index + 1])}` : short;
    const mark = style === 'blocks' ? '■' : symbol;
    return [[span(mark, `sgr:38;5;${colour}`), span(` ${text}   `)]];
  });
  // What is worst is told even where there is little room.
  if (palette === KINDS) entries.reverse();
  const spans: Span[] = [span(' ')];
  let left = room - 1;
  for (const [index, [mark, text]] of entries.entries()) {
    left -= 1 + text.text.length;
    const others = `and ${entries.length - index} more   `;
    if (left < (index + 1 === entries.length ? -3 : others.length)) {
      return [...spans, span(others, 'dim')];
    }
    spans.push(mark, text);
  }
  return spans;
}

function cellOf({ timeUs, position }: Cursor, window: Window, cells: Cells) {
  const { timeFrom, timeTo, diskFrom, diskTo } = window;
  const column = Math.floor(((timeUs - timeFrom) / (timeTo - timeFrom)) * cells.columns);
  const row = Math.floor(((position - diskFrom) / (diskTo - diskFrom)) * cells.rows);
  return {
    column: Math.min(Math.max(0, column), cells.columns - 1),
    line: Math.min(Math.max(0, Math.floor(row / 2)), cells.rows / 2 - 1),
  };
}

/** Addresses at every fourth line, or each layer where it begins. */
function sideNames(scene: Scene, window: Window, lines: number): string[] {
  const names = Array<string>(lines).fill('');
  const perLine = (window.diskTo - window.diskFrom) / lines;
  if (scene.axis.order === 'lba') {
    for (let row = 0; row < lines; row += 4) {
      const address = addressAt(scene, window.diskFrom + row * perLine);
      if (address !== null) names[row] = bytes(address);
    }
    return names;
  }
  for (const { layer, from, to } of scene.axis.bands) {
    if (to <= window.diskFrom || from >= window.diskTo) continue;
    const row = Math.floor((Math.max(from, window.diskFrom) - window.diskFrom) / perLine);
    if (names[row] === '') names[row] = `layer ${layer ?? ''}`;
  }
  return names;
}

function timeLines({ timeFrom, timeTo }: Window, columns: number): Line[] {
  const edge = Array<string>(columns).fill('─');
  const perUs = columns / (timeTo - timeFrom);
  let labels = '';
  for (const { timeUs, label } of timeTicks(timeFrom, timeTo, TICK_CELLS / perUs)) {
    const column = Math.floor((timeUs - timeFrom) * perUs);
    if (column < 0 || column >= columns) continue;
    edge[column] = '┴';
    const start = Math.max(0, column - Math.floor(cellWidth(label) / 2));
    if (start < cellWidth(labels) + 1 && labels !== '') continue;
    if (start + cellWidth(label) <= columns) labels = labels.padEnd(start, ' ') + label;
  }
  const side = ' '.repeat(SIDE);
  return [line(`${' '.repeat(SIDE - 1)}└${edge.join('')}`, 'dim'), line(side + labels, 'dim')];
}
