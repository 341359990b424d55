import { cellWidth, clipStart, pad, padStart } from './text.ts';
import { span, type Line } from './line.ts';

export interface Column {
  readonly title: string;
  readonly width: number;
  readonly align: 'left' | 'right' | 'path';
}

/** Columns of which the last takes what room is left. */
export function fitColumns(columns: readonly Column[], width: number): Column[] {
  const used = columns.slice(0, -1).reduce((sum, column) => sum + column.width + 2, 1);
  const last = columns[columns.length - 1];
  return [...columns.slice(0, -1), { ...last, width: Math.max(4, width - used) }];
}

export function headingLine(columns: readonly Column[]): Line {
  return [span(` ${columns.map((column) => cell(column, column.title)).join('  ')}`, 'dim')];
}

export function rowLine(
  columns: readonly Column[],
  texts: readonly string[],
  isSelected = false,
): Line {
  const text = ` ${columns.map((column, index) => cell(column, texts[index])).join('  ')}`;
  return [isSelected ? span(text, 'selected') : span(text)];
}

function cell({ align, width }: Column, text: string): string {
  if (align === 'right') return padStart(text, width);
  if (align === 'left') return pad(text, width);
  const clipped = clipStart(text, width);
  return clipped + ' '.repeat(Math.max(0, width - cellWidth(clipped)));
}
