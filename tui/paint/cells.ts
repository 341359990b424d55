import { halveRows, type Grid } from '../model/grid.ts';
import { NOTHING, type Palette } from '../model/palette.ts';
import { span, type Line, type Span, type Tone } from './line.ts';

/** How a grid becomes cells: two rows a cell in colours, or one with a symbol for each kind. */
export type CellStyle = 'blocks' | 'symbols';

/** Lines of a grid with an even number of rows: half as many as it has rows. */
export function gridLines(grid: Grid, palette: Palette, style: CellStyle): Line[] {
  const { columns, rows, codes } = style === 'blocks' ? grid : halveRows(grid);
  const perLine = style === 'blocks' ? 2 : 1;
  const ink = (code: number): Tone | undefined =>
    code === NOTHING ? undefined : `sgr:38;5;${palette[code - 1].colour}`;
  const symbol = (code: number): string => (code === NOTHING ? ' ' : palette[code - 1].symbol);
  const block = (upper: number, lower: number): [string, Tone | undefined] => {
    if (upper === lower) return [upper === NOTHING ? ' ' : '█', ink(upper)];
    if (lower === NOTHING) return ['▀', ink(upper)];
    if (upper === NOTHING) return ['▄', ink(lower)];
    return ['▀', `sgr:38;5;${palette[upper - 1].colour};48;5;${palette[lower - 1].colour}`];
  };
  return Array.from({ length: Math.floor(rows / perLine) }, (_, line) => {
    const start = line * perLine * columns;
    const upper = codes.subarray(start, start + columns);
    if (style === 'symbols') return runs(columns, (x) => [symbol(upper[x]), ink(upper[x])]);
    const lower = codes.subarray(start + columns, start + 2 * columns);
    return runs(columns, (x) => block(upper[x], lower[x]));
  });
}

/** Cells that look alike together, so that a terminal is told of each look once. */
function runs(columns: number, cell: (x: number) => [string, Tone | undefined]): Line {
  const spans: Span[] = [];
  let text = '';
  let tone: Tone | undefined;
  for (let x = 0; x < columns; x += 1) {
    const [character, look] = cell(x);
    if (look !== tone && text !== '') {
      spans.push(span(text, tone));
      text = '';
    }
    tone = look;
    text += character;
  }
  return text === '' ? spans : [...spans, span(text, tone)];
}

/** The line with one of its cells shown as the cursor. */
export function withCursor(line: Line, column: number): Line {
  const spans: Span[] = [];
  let x = 0;
  for (const one of line) {
    const at = column - x;
    const { length } = one.text;
    x += length;
    if (at < 0 || at >= length) {
      spans.push(one);
      continue;
    }
    const [before, under, after] = [one.text.slice(0, at), one.text[at], one.text.slice(at + 1)];
    if (before !== '') spans.push({ ...one, text: before });
    spans.push(span(under === ' ' ? '┼' : under, 'cursor'));
    if (after !== '') spans.push({ ...one, text: after });
  }
  return spans;
}
