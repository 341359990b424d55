import { SECTOR_BYTES } from '../../src/base/limits.ts';
import { shortDigest } from '../model/opened-trace.ts';
import type { Colouring, Scene } from '../model/scene.ts';
import { WHOLE, type AppState, type TimelineState } from '../model/state.ts';
import { timelineScene } from '../model/timeline-data.ts';
import {
  cursorOf,
  jumpTo,
  moveCursor,
  nearestAccess,
  windowOf,
  zoom,
  type Cells,
} from '../model/viewport.ts';
import type { CellStyle } from '../paint/cells.ts';
import { line, span, type Line, type Span } from '../paint/line.ts';
import { plain } from '../paint/text.ts';
import { bytes, count, duration } from '../paint/units.ts';
import { NO_TRACE, notice } from './notice.ts';
import { legendLine, plotCells, plotLines } from './plot.ts';
import { sliceLines } from './time-slices.ts';
import type { View, ViewContext } from './view.ts';

/** Lines beside the plot: a heading, the legend, and two about what is under the cursor. */
const AROUND = 4;
const ZOOM = 0.5;
/** What Enter goes closer by. */
const DEEPER = 0.25;
/** In cells: an access that is farther from the cursor is not under it. */
const UNDER = 1;

export const timeline: View = {
  id: 'timeline',
  title: 'Timeline',
  keys: [
    ['← ↓ ↑ →', 'cursor'],
    ['+ -', 'zoom time'],
    ['< >', 'zoom disk'],
    ['enter esc', 'closer, back'],
    ['o', 'by address, by layer'],
    ['c', 'colour by layer, wait, other trace'],
    ['n p', 'next, previous record'],
    ['s', 'symbols'],
    ['0', 'all'],
    ['/', 'filter'],
    ['t', 'next trace'],
  ],
  draw: (context) => drawTimeline(context),
  report: (context) => reportTimeline(context),
  onKey: (context, key) => onKey(context, key),
};

function drawTimeline(context: ViewContext): Line[] {
  const { session, state, columns, rows } = context;
  const scene = timelineScene(session, state);
  if (scene === null) return notice(NO_TRACE, columns);
  const heading = headingLine(context, scene);
  if (scene.accesses.count === 0) return [heading, ...notice('No record to show.', columns)];
  const { viewport } = state.timeline;
  const cells = plotCells(columns, rows - AROUND);
  const cursor = cursorOf(viewport, scene);
  const style = styleOf(context);
  return [
    heading,
    ...plotLines(scene, windowOf(viewport, scene), cells, { cursor, style }),
    legendLine(scene.palette, scene.accesses.codes, style),
    ...underCursor(context, scene, cells),
  ];
}

function headingLine({ session, state }: ViewContext, scene: Scene): Line {
  const { order, viewport, colouring } = state.timeline;
  const window = windowOf(viewport, scene);
  const part = window.timeTo - window.timeFrom;
  const closer = Math.max(
    scene.whole.timeTo / part,
    scene.whole.diskTo / (window.diskTo - window.diskFrom),
  );
  const filter = state.filters.timeline ?? '';
  const spans: Span[] = [
    span(` ${session.traces[state.trace].name}`, 'strong'),
    span(
      `  ${count(scene.accesses.count)} records by ${order === 'lba' ? 'address' : 'layer'}`,
      'dim',
    ),
  ];
  if (colouring === 'waits') spans.push(span(', what the run waited for', 'dim'));
  if (colouring === 'against' && session.traces.length > 1) {
    const other = session.traces[state.trace === 0 ? 1 : 0];
    spans.push(span(`, as a replay of ${other.name}`, 'dim'));
  }
  if (filter !== '') spans.push(span(`, only "${plain(filter)}"`, 'warning'));
  if (closer > 1.01)
    spans.push(span(`   ${closer.toFixed(closer < 10 ? 1 : 0)} x closer`, 'accent'));
  return spans;
}

function underCursor({ session, state }: ViewContext, scene: Scene, cells: Cells): Line[] {
  const nearest = nearestAccess(state.timeline.viewport, scene, cells);
  if (nearest === null) return [line(' Nothing was read here.', 'dim'), line('')];
  const { accesses, palette } = scene;
  const { access, distance } = nearest;
  const isUnder = distance <= UNDER;
  const { image } = session.traces[state.trace].trace;
  const layer = accesses.layer[access];
  const files = session.files();
  const names =
    files.state === 'done' && state.trace === 0
      ? files.value.namesAt(accesses.lba[access], accesses.sectors[access])
      : [];
  const filter = state.filters.timeline ?? '';
  const name = names.find((one) => filter !== '' && one.includes(filter)) ?? names[0] ?? '';
  const others = names.length > 1 ? ` and ${names.length - 1} more` : '';
  const what =
    state.timeline.colouring === 'layers' ? '' : `, ${palette[accesses.codes[access] - 1].short}`;
  return [
    [
      span(isUnder ? ' ● ' : ' ○ ', isUnder ? 'accent' : 'dim'),
      span(`LBA ${count(accesses.lba[access])}`, 'strong'),
      span(` + ${count(accesses.sectors[access])} sectors`),
      span(` (${bytes(accesses.sectors[access] * SECTOR_BYTES)})`),
      span(` at ${duration(accesses.timeUs[access] / 1000)}${what}`),
      span(isUnder ? '' : `   ${distance.toFixed(0)} cells away`, 'dim'),
    ],
    [
      span(`   record ${count(access + 1)}, layer ${layer} `, 'dim'),
      span(shortDigest(image.layers[layer].digest), 'dim'),
      span(name === '' ? '' : `  ${plain(name)}`, 'accent'),
      span(others, 'dim'),
    ],
  ];
}

function onKey(context: ViewContext, key: string): AppState {
  const { session, state, columns, rows } = context;
  const { timeline: now } = state;
  const withTimeline = (changed: Partial<TimelineState>): AppState => {
    return { ...state, timeline: { ...now, ...changed } };
  };
  if (key === 'o') {
    const order = now.order === 'lba' ? 'layers' : 'lba';
    return withTimeline({ order, viewport: WHOLE, former: [] });
  }
  if (key === 'c') {
    return withTimeline({ colouring: nextColouring(now.colouring, session.traces.length) });
  }
  if (key === 's') return withTimeline({ isSymbols: !now.isSymbols });
  if (key === '0') return withTimeline({ viewport: WHOLE, former: [] });
  if (key === 'escape' && now.former.length > 0) {
    return withTimeline({ viewport: now.former.at(-1) ?? WHOLE, former: now.former.slice(0, -1) });
  }
  if (key === 'escape' && (state.filters.timeline ?? '') !== '') {
    return { ...withTimeline({ viewport: WHOLE }), filters: { ...state.filters, timeline: '' } };
  }
  const scene = timelineScene(session, state);
  if (scene === null) return state;
  const { viewport } = now;
  if (key === 'enter') {
    const closer = zoom(viewport, scene, DEEPER, DEEPER);
    return withTimeline({ viewport: closer, former: [...now.former.slice(-15), viewport] });
  }
  const cells = plotCells(columns, rows - AROUND);
  const changed = moved(key, { viewport, scene, cells });
  return changed === null ? state : withTimeline({ viewport: changed });
}

function moved(
  key: string,
  { viewport, scene, cells }: { viewport: TimelineState['viewport']; scene: Scene; cells: Cells },
): TimelineState['viewport'] | null {
  const page = Math.floor(cells.columns / 2);
  const steps: Readonly<Record<string, readonly [number, number]>> = {
    left: [-1, 0],
    right: [1, 0],
    up: [0, -2],
    down: [0, 2],
    H: [-page, 0],
    L: [page, 0],
    pageup: [0, -Math.floor(cells.rows / 2)],
    pagedown: [0, Math.floor(cells.rows / 2)],
  };
  const step = steps[key];
  if (step !== undefined) return moveCursor(viewport, scene, cells, step);
  const zooms: Readonly<Record<string, readonly [number, number]>> = {
    ...{ '+': [ZOOM, 1], '=': [ZOOM, 1], '-': [1 / ZOOM, 1] },
    ...{ '<': [1, 1 / ZOOM], '>': [1, ZOOM] },
  };
  const by = zooms[key];
  if (by !== undefined) return zoom(viewport, scene, ...by);
  const last = scene.accesses.count - 1;
  if (key === 'home') return jumpTo(viewport, scene, 0);
  if (key === 'end') return jumpTo(viewport, scene, last);
  if (key !== 'n' && key !== 'p') return null;
  const here = nearestAccess(viewport, scene, cells)?.access ?? 0;
  return jumpTo(viewport, scene, Math.min(Math.max(0, here + (key === 'n' ? 1 : -1)), last));
}

function nextColouring(now: Colouring, traces: number): Colouring {
  const all: readonly Colouring[] =
    traces > 1 ? ['layers', 'waits', 'against'] : ['layers', 'waits'];
  return all[(all.indexOf(now) + 1) % all.length];
}

function styleOf({ state, isColourless }: ViewContext): CellStyle {
  return isColourless || state.timeline.isSymbols ? 'symbols' : 'blocks';
}

function reportTimeline(context: ViewContext): Line[] {
  const scene = timelineScene(context.session, context.state);
  if (scene === null) return notice(NO_TRACE, context.columns);
  return [headingLine(context, scene), ...sliceLines(scene)];
}
