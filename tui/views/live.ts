import type { LiveDevice, LiveSample } from '../model/live.ts';
import { filterOf, firstShown, moveSelected, selectedOf } from '../model/state.ts';
import { sparkline } from '../paint/bars.ts';
import { line, span, type Line } from '../paint/line.ts';
import { fitColumns, headingLine, rowLine, type Column } from '../paint/table.ts';
import { pad, padStart, plain } from '../paint/text.ts';
import { bytes, count, duration, linkSpeed, percent } from '../paint/units.ts';
import { notice } from './notice.ts';
import { legendLine, plotCells, plotLines } from './plot.ts';
import { sliceLines } from './time-slices.ts';
import type { View, ViewContext } from './view.ts';

/** Lines beside the plot of a replay: heading, counters, legend. */
const AROUND = 4;
/** Lines of sparklines below the list. */
const GRAPHS = 10;

export const live: View = {
  id: 'live',
  title: 'Live',
  keys: [
    ['↑ ↓', 'choose'],
    ['enter', 'its replay as it happens'],
    ['esc', 'back'],
    ['/', 'filter'],
  ],
  draw: (context) => drawLive(context, false),
  report: (context) => drawLive(context, true),
  onKey: (context, key) => {
    const { state } = context;
    if (state.device !== null) return key === 'escape' ? { ...state, device: null } : state;
    const shown = shownDevices(context);
    if (key === 'enter' && shown.length > 0) {
      return { ...state, device: shown[selectedOf(state, shown.length)].summary.device };
    }
    return moveSelected(state, key, shown.length, context.rows - GRAPHS - 3);
  },
};

function drawLive(context: ViewContext, isReport: boolean): Line[] {
  const { session, state, columns } = context;
  const model = session.live;
  if (state.device !== null) return drawDevice(context, state.device, isReport);
  if (model.state === 'connecting') return notice('Looking for devices ...', columns);
  if (model.state === 'down') {
    return [...notice(model.why, columns), line(''), line('  Trying again every second.', 'dim')];
  }
  const shown = shownDevices(context);
  if (shown.length === 0) {
    const nothing =
      model.devices.length === 0
        ? 'No device is attached. Attach one: replaybd attach --daemon IMAGE, or replaybd attach IMAGE'
        : `No device has "${filterOf(state)}" in its name or image.`;
    return notice(nothing, columns);
  }
  const selected = selectedOf(state, shown.length);
  const room = isReport
    ? shown.length
    : Math.max(1, Math.min(shown.length, context.rows - GRAPHS - 2));
  const first = firstShown(selected, shown.length, room);
  return [
    ...deviceTable(shown.slice(first, first + room), columns, selected - first),
    line(''),
    ...graphLines(shown[selected], columns, isReport),
  ];
}

const COLUMNS: readonly Column[] = [
  { title: 'DEVICE', width: 14, align: 'left' },
  { title: 'STATE', width: 7, align: 'left' },
  { title: 'MODE', width: 6, align: 'left' },
  { title: 'HITS', width: 7, align: 'right' },
  { title: 'COVERED', width: 7, align: 'right' },
  { title: 'P95', width: 7, align: 'right' },
  { title: 'IMAGE', width: 10, align: 'path' },
];

function deviceTable(devices: readonly LiveDevice[], columns: number, selected: number): Line[] {
  const fitted = fitColumns(COLUMNS, columns);
  return [
    headingLine(fitted),
    ...devices.map(({ summary, stats }, index) => {
      const quality = stats?.quality ?? null;
      const all = quality === null ? 0 : quality.hits + quality.misses;
      return rowLine(
        fitted,
        [
          plain(summary.device),
          summary.state,
          plain(summary.mode),
          quality === null || all === 0 ? '-' : percent(quality.hits / all),
          quality === null ? '-' : percent(quality.coverage),
          quality === null || quality.misses === 0 ? '-' : duration(quality.missLatencyMs.p95),
          plain(summary.failure === null ? summary.image : `${summary.image}: ${summary.failure}`),
        ],
        index === selected,
      );
    }),
  ];
}

/** The last minutes of a device, a value a second. */
function graphLines(
  { summary, stats, samples }: LiveDevice,
  columns: number,
  isReport: boolean,
): Line[] {
  const heading = [
    span(` ${plain(summary.device)}`, 'strong' as const),
    span(replayState(stats), 'dim' as const),
  ];
  if (stats === null) return [heading];
  const width = Math.max(10, Math.min(120, columns - 30));
  const graph = (
    name: string,
    value: (sample: LiveSample) => number | null,
    show: (value: number) => string,
    max?: number,
  ): Line => {
    const values = samples.map(value);
    const greatest = max ?? values.reduce<number>((most, one) => Math.max(most, one ?? 0), 0);
    const last = values.at(-1) ?? null;
    const now = padStart(last === null ? '-' : show(last), 13);
    const drawn = isReport ? '' : sparkline(values, width, greatest);
    return [span(` ${pad(name, 14)}`, 'dim'), span(now), span(` ${drawn}`, 'accent')];
  };
  return [
    heading,
    graph('hit rate', (sample) => sample.hitRate, percent, 1),
    graph('bandwidth', (sample) => sample.bytesPerSecond, linkSpeed),
    graph('in flight', (sample) => sample.inFlightBytes, bytes),
    graph('demand lane', (sample) => sample.demandQueued, count),
    graph('prefetch lane', (sample) => sample.prefetchQueued, count),
    graph('miss p50', (sample) => sample.p50, duration),
    graph('miss p95', (sample) => sample.p95, duration),
    graph('miss p99', (sample) => sample.p99, duration),
  ];
}

function replayState(stats: LiveDevice['stats']): string {
  if (stats === null) return '';
  const { replay, trace } = stats;
  if (replay !== null) {
    return `  replay ${replay.end ?? 'running'}, ${bytes(replay.requestedBytes)} asked for`;
  }
  return trace === null ? '' : `  ${count(trace.records)} records`;
}

function drawDevice(context: ViewContext, id: string, isReport: boolean): Line[] {
  const { session, columns, rows, isColourless } = context;
  const model = session.live;
  const device = model.devices.find(({ summary }) => summary.device === id);
  if (device === undefined) return notice(`${id} is no longer attached. Esc goes back.`, columns);
  const scene = model.scene();
  const { count: touches, lost } = model.touches;
  const heading: Line = [
    span(` ${plain(id)}`, 'strong'),
    span(`  ${plain(device.summary.image)}`, 'dim'),
    span(replayState(device.stats), 'dim'),
    ...(model.state === 'down' ? [span('  no answer; trying again', 'alarm' as const)] : []),
  ];
  const counters = line(
    ` ${count(touches)} first touches${lost > 0 ? ` (${count(lost)} older ones are lost)` : ''}` +
      (model.expected === null ? '' : `, ${count(model.expected.accesses.count)} expected`),
  );
  if (scene.accesses.count === 0) {
    return [heading, counters, ...notice('Nothing was read yet.', columns)];
  }
  if (isReport) return [heading, counters, ...sliceLines(scene)];
  const style = isColourless || context.state.timeline.isSymbols ? 'symbols' : 'blocks';
  return [
    heading,
    counters,
    ...plotLines(scene, scene.whole, plotCells(columns, rows - AROUND), { cursor: null, style }),
    legendLine(scene.palette, scene.accesses.codes, style, columns),
  ];
}

function shownDevices({ session, state }: ViewContext): LiveDevice[] {
  const wanted = state.filters.live ?? '';
  return session.live.devices.filter(({ summary }) => {
    return summary.device.includes(wanted) || summary.image.includes(wanted);
  });
}
