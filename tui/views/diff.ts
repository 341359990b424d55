import type { DiffCounts, TraceDiff } from '../../src/trace/diff.ts';
import { shortDigest } from '../model/opened-trace.ts';
import { filterOf, goTo, moveSelected, selectedOf, firstShown, WHOLE } from '../model/state.ts';
import { bar } from '../paint/bars.ts';
import { fact, line, span, type Line } from '../paint/line.ts';
import { fitColumns, headingLine, rowLine, type Column } from '../paint/table.ts';
import { plain } from '../paint/text.ts';
import { bytes, percent } from '../paint/units.ts';
import { laterNotice } from './notice.ts';
import type { View, ViewContext } from './view.ts';

export const diff: View = {
  id: 'diff',
  title: 'Diff',
  keys: [
    ['↑ ↓', 'choose'],
    ['enter', 'the second run as a replay of the first'],
    ['/', 'filter'],
  ],
  draw: (context) => drawDiff(context),
  report: (context) => drawDiff({ ...context, rows: Infinity }),
  onKey: (context, key) => {
    const { session, state } = context;
    const found = session.diff();
    if (found.state !== 'done') return state;
    if (key === 'enter') {
      const timeline = {
        ...{ ...state.timeline, viewport: WHOLE, former: [] },
        colouring: 'against' as const,
      };
      return { ...goTo({ ...state, trace: 1 }, 'timeline'), timeline };
    }
    return moveSelected(state, key, rowsOf(context, found.value).length, context.rows - 9);
  },
};

interface DiffRow extends DiffCounts {
  readonly name: string;
}

const COLUMNS: readonly Column[] = [
  { title: 'KEPT', width: 8, align: 'right' },
  { title: 'MOVED', width: 8, align: 'right' },
  { title: 'LOST', width: 8, align: 'right' },
  { title: 'NEW', width: 8, align: 'right' },
  { title: 'LAYER OR FILE', width: 10, align: 'path' },
];

function drawDiff(context: ViewContext): Line[] {
  const { session, state, columns, rows } = context;
  const found = session.diff();
  if (found.state !== 'done') return laterNotice(found, columns);
  const { similarity, sectorShare, orderCorrelation } = found.value;
  const [first, second] = session.traces;
  const lines: Line[] = [
    fact('first', span(first.name, 'strong')),
    fact('second', span(second.name, 'strong')),
    fact('similarity', span(bar(similarity, 20), 'accent'), ` ${percent(similarity)}`),
    fact(
      '',
      `${percent(sectorShare)} of the bytes of either in both, ` +
        `order correlates by ${orderCorrelation.toFixed(2)}`,
    ),
    line(''),
  ];
  const shown = rowsOf(context, found.value);
  const selected = selectedOf(state, shown.length);
  const room = Math.max(1, Math.min(shown.length, rows - lines.length - 1));
  const from = firstShown(selected, shown.length, room);
  const fitted = fitColumns(COLUMNS, columns);
  return [
    ...lines,
    headingLine(fitted),
    ...shown
      .slice(from, from + room)
      .map((row, index) => rowLine(fitted, cellsOf(row), from + index === selected)),
  ];
}

function cellsOf(row: DiffRow): string[] {
  const size = (value: number): string => (value === 0 ? '-' : bytes(value));
  return [
    size(row.kept.bytes),
    size(row.moved.bytes),
    size(row.lost.bytes),
    size(row.new.bytes),
    row.name,
  ];
}

/** All, then layers, then files if they are known. */
function rowsOf({ state }: ViewContext, found: TraceDiff): DiffRow[] {
  const sums = (value: number) => ({ bytes: value, parts: 0 });
  const rows: DiffRow[] = [
    { ...found, name: 'all' },
    ...found.layers.map((layer, index) => {
      const where = !layer.inSecond ? ' (first only)' : layer.inFirst ? '' : ' (second only)';
      return { ...layer, name: `layer ${index} ${shortDigest(layer.digest)}${where}` };
    }),
    ...(found.files ?? []).map((file) => ({
      name: plain(file.path),
      kept: sums(file.keptBytes),
      moved: sums(file.movedBytes),
      lost: sums(file.lostBytes),
      new: sums(file.newBytes),
    })),
  ];
  const wanted = filterOf({ ...state, view: 'diff' });
  return rows.filter(({ name }) => name.includes(wanted));
}
