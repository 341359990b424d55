import { FILE_ORDERS, sortFiles, type FileUse } from '../../src/trace/file-report.ts';
import type { OpenedTrace } from '../model/opened-trace.ts';
import type { FilesData } from '../model/session.ts';
import { filterOf, firstShown, goTo, moveSelected, selectedOf, WHOLE } from '../model/state.ts';
import { line, span, type Line } from '../paint/line.ts';
import { fitColumns, headingLine, rowLine, type Column } from '../paint/table.ts';
import { clipStart, plain } from '../paint/text.ts';
import { bytes, count, duration } from '../paint/units.ts';
import { laterNotice, notice } from './notice.ts';
import type { View, ViewContext } from './view.ts';

export const files: View = {
  id: 'files',
  title: 'Files',
  keys: [
    ['↑ ↓', 'choose'],
    ['s', 'sort: time, size, path, wait'],
    ['/', 'filter by path'],
    ['enter', 'its timeline'],
    ['t', 'next trace'],
  ],
  draw: (context) => drawFiles(context),
  report: (context) => drawFiles({ ...context, rows: Infinity }),
  onKey: (context, key) => {
    const { session, state } = context;
    if (key === 's') {
      const next = (FILE_ORDERS.indexOf(state.fileOrder) + 1) % FILE_ORDERS.length;
      return { ...state, fileOrder: FILE_ORDERS[next] };
    }
    const found = session.files(state.trace);
    if (found.state !== 'done') return state;
    const shown = shownFiles(context, found.value);
    if (key === 'enter' && shown.length > 0) {
      const { name } = shown[selectedOf(state, shown.length)];
      const filters = { ...state.filters, timeline: name };
      const timeline = { ...state.timeline, viewport: WHOLE, former: [] };
      return { ...goTo(state, 'timeline'), filters, timeline };
    }
    return moveSelected(state, key, shown.length, context.rows - 4);
  },
};

const COLUMNS: readonly Column[] = [
  { title: 'FIRST', width: 8, align: 'right' },
  { title: 'READ', width: 8, align: 'right' },
  { title: 'OF', width: 6, align: 'right' },
  { title: 'WAITED', width: 8, align: 'right' },
  { title: 'LAYER', width: 5, align: 'right' },
  { title: 'FILE', width: 4, align: 'path' },
];

function drawFiles(context: ViewContext): Line[] {
  const { session, state, columns, rows } = context;
  const found = session.files(state.trace);
  if (found.state !== 'done') return laterNotice(found, columns);
  const { fileSystem, files: all, foreignBytes } = found.value;
  const shown = shownFiles(context, found.value);
  const { length, [state.trace]: opened } = session.traces;
  if (shown.length === 0)
    return notice(nothingShown(opened, foreignBytes, filterOf(state)), columns);
  const selected = selectedOf(state, shown.length);
  const room = Math.max(1, Math.min(shown.length, rows - 4));
  const first = firstShown(selected, shown.length, room);
  const fitted = fitColumns(COLUMNS, columns);
  const foreign =
    foreignBytes === 0 ? '' : ` ${bytes(foreignBytes)} more lie where this image has other layers`;
  const of = length > 1 ? ` of ${opened.name}` : '';
  const total = shown.reduce((sum, file) => sum + file.bytes, 0);
  return [
    [
      span(` ${count(shown.length)} of ${count(all.length)} files and structures`, 'strong'),
      span(` (${fileSystem})${of}, ${bytes(total)} read, by ${state.fileOrder}`, 'dim'),
    ],
    headingLine(fitted),
    ...shown
      .slice(first, first + room)
      .map((file, index) => rowLine(fitted, cellsOf(file), first + index === selected)),
    line(foreign, 'warning'),
    lastRow(shown[selected], columns),
  ];
}

function nothingShown(opened: OpenedTrace, foreignBytes: number, filter: string): string {
  if (filter !== '') return `No file has "${filter}" in its path.`;
  if (foreignBytes === 0) return `${opened.name} has no records: it read no file.`;
  return (
    `The image that --image names serves nothing that ${opened.name} read from the trace's layers: it is of ` +
    `another image. ${bytes(foreignBytes)} lie in other layers there.`
  );
}

function cellsOf(file: FileUse): string[] {
  return [
    duration(file.firstUs / 1000),
    bytes(file.bytes),
    file.share === null ? '-' : `${Math.round(file.share * 100)} %`,
    file.waitUs < 1 ? '-' : duration(file.waitUs / 1000),
    file.layers.map(({ layer }) => layer).join(','),
    plain(file.name),
  ];
}

function lastRow({ name, paths, sizeBytes, firstUs, lastUs }: FileUse, columns: number): Line {
  const size = sizeBytes === null ? '' : ` of ${bytes(sizeBytes)}`;
  const links = paths.length > 1 ? `, ${paths.length} paths` : '';
  const last = lastUs === firstUs ? '' : ` to ${duration(lastUs / 1000)}`;
  const facts = `${size}${links}, read ${last === '' ? 'at' : 'from'} ${duration(firstUs / 1000)}${last}`;
  const shown = clipStart(plain(name), Math.max(8, columns - 2 - facts.length));
  return [span(` ${shown}`, 'accent'), span(facts, 'dim')];
}

function shownFiles({ state }: ViewContext, { files: all }: FilesData): FileUse[] {
  const wanted = state.filters.files ?? '';
  const matching = wanted === '' ? all : all.filter(({ name }) => name.includes(wanted));
  return sortFiles(matching, state.fileOrder);
}
