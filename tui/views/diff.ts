import type { FileDiff, TraceDiff } from '../../src/trace/diff.ts';
import { DIFF_ORDERS, sortDiffs } from '../model/diff-order.ts';
import { shortDigest } from '../model/opened-trace.ts';
import { filterOf, firstShown, moveSelected, selectedOf, type AppState } from '../model/state.ts';
import { bar } from '../paint/bars.ts';
import { fact, line, span, type Line } from '../paint/line.ts';
import { fitColumns, headingLine, rowLine, type Column } from '../paint/table.ts';
import { plain } from '../paint/text.ts';
import { bytes, counted, percent } from '../paint/units.ts';
import { drawDiffFile, onDiffFileKey, showAgainst } from './diff-file.ts';
import { laterNotice, notice } from './notice.ts';
import type { View, ViewContext } from './view.ts';

/** Lines above the rows of the table. */
const ABOVE = 7;

export const diff: View = {
  id: 'diff',
  title: 'Diff',
  keys: [
    ['↑ ↓', 'choose'],
    ['enter', 'parts, timeline'],
    ['f', 'by file, by layer'],
    ['s', 'sort files'],
    ['/', 'filter'],
    ['esc', 'back'],
  ],
  notes: [
    'kept: both traces read it. moved: both do, at another place in the order or another time. lost: ' +
      'only the first does. new: only the second does.',
    'enter: the parts of a file, and from there and from layers the timeline of the second run, as ' +
      'if the first trace had been replayed for it. Files sort by what changed, lost, new, moved, ' +
      'kept and path.',
  ],
  draw: (context) => drawDiff(context),
  report: (context) => drawDiff({ ...context, rows: Infinity }),
  onKey: (context, key) => onKey(context, key),
};

function onKey(context: ViewContext, key: string): AppState {
  const { session, state } = context;
  const found = session.diff();
  if (found.state !== 'done') return state;
  if (state.diff.file !== null) return onDiffFileKey(context, state.diff.file, key);
  const files = shownFiles(context);
  if (key === 'f') {
    const selected = { ...state.selected, diff: 0 };
    return { ...state, selected, diff: { ...state.diff, isByFile: !state.diff.isByFile } };
  }
  if (key === 's' && files !== null) {
    const order = DIFF_ORDERS[(DIFF_ORDERS.indexOf(state.diff.order) + 1) % DIFF_ORDERS.length];
    return { ...state, diff: { ...state.diff, order } };
  }
  const layers = layerRows(context, found.value);
  const { length } = files ?? layers;
  const selected = selectedOf(state, length);
  if (key === 'enter' && length > 0) {
    return files === null
      ? showAgainst(state, layers[selected].filter)
      : { ...state, diff: { ...state.diff, file: { path: files[selected].path, part: 0 } } };
  }
  return moveSelected(state, key, length, context.rows - ABOVE - 1);
}

type Kinds<T> = Readonly<Record<'kept' | 'moved' | 'lost' | 'new', T>>;
interface DiffRow {
  readonly name: string;
  /** What its timeline is filtered by. */
  readonly filter: string;
  readonly bytes: Kinds<number>;
}

const COLUMNS: readonly Column[] = [
  { title: 'KEPT', width: 8, align: 'right' },
  { title: 'MOVED', width: 8, align: 'right' },
  { title: 'LOST', width: 8, align: 'right' },
  { title: 'NEW', width: 8, align: 'right' },
  { title: 'LAYER', width: 10, align: 'path' },
];

function drawDiff(context: ViewContext): Line[] {
  const { session, state, columns, rows } = context;
  const found = session.diff();
  if (found.state !== 'done') return laterNotice(found, columns);
  if (state.diff.file !== null) return drawDiffFile(context, state.diff.file);
  const files = shownFiles(context);
  const all = files === null ? layerRows(context, found.value) : files.map(fileRow);
  const above = [
    ...summaryLines(context, found.value),
    whatLine(context, files),
    headingLine(fitColumns(columnsOf(files !== null), columns)),
  ];
  if (all.length === 0) {
    const filter = filterOf(state);
    const why =
      filter === '' ? 'Neither trace reads a file.' : `Nothing here has "${filter}" in its name.`;
    return [...above, ...notice(why, columns)];
  }
  const selected = selectedOf(state, all.length);
  const room = Math.max(1, Math.min(all.length, rows - above.length));
  const from = firstShown(selected, all.length, room);
  const fitted = fitColumns(columnsOf(files !== null), columns);
  return [
    ...above,
    ...all
      .slice(from, from + room)
      .map((row, index) => rowLine(fitted, cellsOf(row), from + index === selected)),
  ];
}

function columnsOf(isByFile: boolean): readonly Column[] {
  const last = { ...COLUMNS[COLUMNS.length - 1], title: isByFile ? 'FILE' : 'LAYER' };
  return [...COLUMNS.slice(0, -1), last];
}

function summaryLines({ session }: ViewContext, found: TraceDiff): Line[] {
  const { similarity, sectorShare, orderCorrelation } = found;
  const [first, second] = session.traces;
  const order = found.kept.bytes === 0 ? '' : `, order ${orderCorrelation.toFixed(2)}`;
  return [
    fact('first', span(first.name, 'strong')),
    fact('second', span(second.name, 'strong')),
    fact(
      'similarity',
      `${percent(similarity)}: ${percent(sectorShare)} of the bytes in common${order}`,
      span(`  ${bar(similarity, 10)}`, 'accent'),
    ),
    line(''),
  ];
}

/** What the table is of; of files, why they are not told. */
function whatLine({ session, state }: ViewContext, files: readonly FileDiff[] | null): Line {
  if (files !== null) {
    return [
      span(` ${counted(files.length, 'file')}`, 'strong'),
      span(`, by ${state.diff.order}`, 'dim'),
    ];
  }
  if (!state.diff.isByFile) return [span(' By layer', 'strong')];
  const found = session.diffFiles();
  const why: Readonly<Record<string, string>> = {
    absent: '; by file with --image REF',
    working: '; reading the image for the files ...',
    failed: `; no files: ${found.state === 'failed' ? found.why : ''}`,
  };
  const isFailed = found.state === 'failed';
  return [
    span(' By layer', 'strong'),
    span(plain(why[found.state] ?? ''), isFailed ? 'warning' : 'dim'),
  ];
}

function cellsOf({ bytes: of, name }: DiffRow): string[] {
  const size = (value: number): string => (value === 0 ? '-' : bytes(value));
  return [size(of.kept), size(of.moved), size(of.lost), size(of.new), name];
}

/** All, then the layers. */
function layerRows({ session, state }: ViewContext, found: TraceDiff): DiffRow[] {
  const bytesOf = ({ kept, moved, lost, new: added }: Pick<TraceDiff, keyof Kinds<0>>) => ({
    ...{ kept: kept.bytes, moved: moved.bytes, lost: lost.bytes, new: added.bytes },
  });
  const rows: DiffRow[] = [
    { bytes: bytesOf(found), name: 'all', filter: '' },
    ...found.layers.map((layer) => {
      const filter = shortDigest(layer.digest);
      const [first, second] = session.traces.map(({ trace }) =>
        trace.image.layers.findIndex(({ digest }) => digest === layer.digest),
      );
      const place = layer.inFirst ? first : second;
      const where = !layer.inSecond ? ' of the first' : layer.inFirst ? '' : ' of the second';
      return { bytes: bytesOf(layer), name: `${filter} layer ${place}${where}`, filter };
    }),
  ];
  const wanted = filterOf({ ...state, view: 'diff' });
  return rows.filter(({ name }) => name.includes(wanted));
}

function fileRow({ path, keptBytes, movedBytes, lostBytes, newBytes }: FileDiff): DiffRow {
  const of = { kept: keptBytes, moved: movedBytes, lost: lostBytes, new: newBytes };
  return { name: plain(path), bytes: of, filter: path };
}

/** The last list that was made: keys ask for the same one again and again. */
let latest: { key: readonly unknown[]; files: readonly FileDiff[] } | null = null;

/** Files, filtered and sorted; null where they are not known or not wanted. */
function shownFiles({ session, state }: ViewContext): readonly FileDiff[] | null {
  if (!state.diff.isByFile) return null;
  const found = session.diffFiles();
  if (found.state !== 'done') return null;
  const wanted = filterOf({ ...state, view: 'diff' });
  const key = [found.value, wanted, state.diff.order];
  if (latest === null || !key.every((part, index) => part === latest?.key[index])) {
    const matching = found.value.filter(({ path }) => path.includes(wanted));
    latest = { key, files: sortDiffs(matching, state.diff.order) };
  }
  return latest.files;
}
