import { SECTOR_BYTES } from '../../src/base/limits.ts';
import { touchedExtents } from '../model/disk-axis.ts';
import { shortDigest, type OpenedTrace } from '../model/opened-trace.ts';
import { filterOf, firstShown, goTo, moveSelected, selectedOf, WHOLE } from '../model/state.ts';
import { bar } from '../paint/bars.ts';
import { line, span, type Line } from '../paint/line.ts';
import { fitColumns, headingLine, rowLine, type Column } from '../paint/table.ts';
import { bytes, count, percent } from '../paint/units.ts';
import { NO_TRACE, notice } from './notice.ts';
import type { View, ViewContext } from './view.ts';

/** What a trace touches of a layer. */
interface LayerRow {
  readonly index: number;
  readonly digest: string;
  readonly sizeBytes: number;
  readonly planBytes: number;
  readonly readBytes: number;
  readonly records: number;
}

export const layers: View = {
  id: 'layers',
  title: 'Layers',
  keys: [
    ['↑ ↓', 'choose'],
    ['enter', 'its timeline'],
    ['/', 'filter by digest'],
    ['t', 'next trace'],
  ],
  draw: (context) => drawLayers(context),
  report: (context) => drawLayers({ ...context, rows: Infinity }),
  onKey: (context, key) => {
    const { session, state } = context;
    const opened = session.traces[state.trace];
    if (opened === undefined) return state;
    const shown = shownLayers(context, opened);
    if (key === 'enter' && shown.length > 0) {
      const { index } = shown[selectedOf(state, shown.length)];
      const filters = { ...state.filters, timeline: `layer ${index}` };
      const timeline = { ...state.timeline, viewport: WHOLE, former: [] };
      return { ...goTo(state, 'timeline'), filters, timeline };
    }
    return moveSelected(state, key, shown.length, context.rows - 8);
  },
};

const COLUMNS: readonly Column[] = [
  { title: 'LAYER', width: 5, align: 'right' },
  { title: 'DIGEST', width: 12, align: 'left' },
  { title: 'BLOB', width: 8, align: 'right' },
  { title: 'PLANNED', width: 8, align: 'right' },
  { title: 'READ', width: 8, align: 'right' },
  { title: 'RECORDS', width: 8, align: 'right' },
  { title: 'PLANNED / BLOB', width: 14, align: 'left' },
];

function drawLayers(context: ViewContext): Line[] {
  const { session, state, columns, rows } = context;
  const opened = session.traces[state.trace];
  if (opened === undefined) return notice(NO_TRACE, columns);
  const shown = shownLayers(context, opened);
  if (shown.length === 0)
    return notice(`No layer has "${filterOf(state)}" in its digest.`, columns);
  const selected = selectedOf(state, shown.length);
  const room = Math.max(1, Math.min(shown.length, rows - 7));
  const first = firstShown(selected, shown.length, room);
  const table = tableLines(shown.slice(first, first + room), columns, selected - first);
  return [...table, line(''), ...extentLines(shown[selected], opened, columns)];
}

/** Layers as a table, for the overview: the topmost first, as many as fit. */
export function layerRows(context: ViewContext, opened: OpenedTrace): Line[] {
  return tableLines(rowsOf(opened), context.columns, -1);
}

function tableLines(rows: readonly LayerRow[], width: number, selected: number): Line[] {
  const fitted = fitColumns(COLUMNS, width);
  const barWidth = Math.max(4, Math.min(30, fitted[fitted.length - 1].width - 8));
  return [
    headingLine(fitted),
    ...rows.map((row, index) => {
      const part = row.planBytes / Math.max(1, row.sizeBytes);
      return rowLine(
        fitted,
        [
          String(row.index),
          row.digest,
          bytes(row.sizeBytes),
          bytes(row.planBytes),
          bytes(row.readBytes),
          count(row.records),
          `${bar(part, barWidth)} ${percent(part)}`,
        ],
        index === selected,
      );
    }),
  ];
}

/** Where a layer was touched: the disk from its beginning to its end, and what lies there. */
function extentLines(row: LayerRow, opened: OpenedTrace, columns: number): Line[] {
  const { name, trace, accesses } = opened;
  const width = Math.max(10, columns - 4);
  const cells = new Float64Array(width);
  const perCell = trace.image.virtualSizeBytes / SECTOR_BYTES / width;
  const extents = touchedExtents(accesses, row.index);
  const largest = extents.reduce((most, { start, end }) => Math.max(most, end - start), 0);
  for (const { start, end } of extents) {
    for (let cell = Math.floor(start / perCell); cell * perCell < end && cell < width; cell += 1) {
      cells[cell] += Math.min(end, (cell + 1) * perCell) - Math.max(start, cell * perCell);
    }
  }
  const shades = [...cells].map((sectors) => {
    return sectors === 0 ? '·' : '░▒▓█'[Math.min(3, Math.floor((sectors / perCell) * 4))];
  });
  const end = bytes(trace.image.virtualSizeBytes);
  return [
    [
      span(` Layer ${row.index} of ${name}`, 'strong'),
      span(
        `  touched in ${count(extents.length)} extents, the largest ${bytes(largest * SECTOR_BYTES)}`,
      ),
    ],
    [span('  '), span(shades.join(''), 'accent')],
    line(`  0${end.padStart(width - 1)}`, 'dim'),
  ];
}

function shownLayers({ state }: ViewContext, opened: OpenedTrace): LayerRow[] {
  const wanted = (state.filters.layers ?? '').toLowerCase();
  return rowsOf(opened).filter(({ digest }) => digest.includes(wanted));
}

const rowsByTrace = new WeakMap<OpenedTrace, LayerRow[]>();

/** The topmost layer first. */
function rowsOf(opened: OpenedTrace): LayerRow[] {
  const known = rowsByTrace.get(opened);
  if (known !== undefined) return known;
  const { trace, summary, accesses } = opened;
  const records = new Float64Array(trace.image.layers.length);
  for (let i = 0; i < accesses.count; i += 1) records[accesses.layer[i]] += 1;
  const rows = trace.image.layers.map(({ digest, sizeBytes }, index): LayerRow => {
    const { planBytes, recordedBytes } = summary.layers[index];
    return {
      ...{ index, digest: shortDigest(digest), sizeBytes, planBytes, readBytes: recordedBytes },
      records: records[index],
    };
  });
  rows.reverse();
  rowsByTrace.set(opened, rows);
  return rows;
}
