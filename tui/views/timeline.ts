import { kindCode } from '../model/kinds.ts';
import { slide, SLIDERS } from '../model/link.ts';
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
import type { Line } from '../paint/line.ts';
import { NO_TRACE, notice } from './notice.ts';
import { plotCells, plotLines } from './plot.ts';
import { sliceLines } from './time-slices.ts';
import { cursorLines, headingLine, keyLine, outcomeLines } from './timeline-text.ts';
import type { View, ViewContext } from './view.ts';

/** Lines beside the plot: a heading, the legend, and two about what is under the cursor. */
const AROUND = 4;
/** Lines of the screen on which the cursor moves where nothing is drawn. */
const UNSEEN_LINES = 20;
const ZOOM = 0.5;
/** What Enter goes closer by. */
const DEEPER = 0.25;

/** Codes of kinds from here on are waited for. */
const WAITED = kindCode('late');

const [BANDWIDTH, ROUND_TRIP] = SLIDERS;

export const timeline: View = {
  id: 'timeline',
  title: 'Timeline',
  keys: [
    ['← ↓ ↑ →', 'cursor'],
    ['c', 'colours'],
    ['+ -', 'zoom time'],
    ['< >', 'zoom disk'],
    ['n p', 'next, previous record'],
    ['w W', 'next, previous that waits'],
    ['enter esc', 'closer, back'],
    ['0', 'all'],
    ['o', 'by address, by layer'],
    ['b B r R', 'link: bandwidth, round trip'],
    ['s', 'symbols'],
    ['H L', 'half a screen left, right'],
    ['/', 'filter: layer 3, digest, path'],
    ['t', 'next trace'],
  ],
  notes: [
    'c: colours and symbols tell the layer; what a record meets with in a simulated replay, on the ' +
      'link of Simulate; what the recorded run waited for; what a replay of the other trace brings.',
    'prefetched: there in time. late: still under way, so it waits. demand: not fetched ahead, ' +
      'so it waits. cached: there already. unused: nobody reads it.',
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
    keyLine(context, scene, style),
    ...cursorLines(context, scene, nearestAccess(viewport, scene, cells)),
  ];
}

function reportTimeline(context: ViewContext): Line[] {
  const { session, state, columns } = context;
  const scene = timelineScene(session, state);
  if (scene === null) return notice(NO_TRACE, columns);
  const heading = headingLine(context, scene);
  if (scene.accesses.count === 0) return [heading, ...notice('No record to show.', columns)];
  const cells = plotCells(columns, UNSEEN_LINES);
  const nearest = nearestAccess(state.timeline.viewport, scene, cells);
  return [
    heading,
    ...sliceLines(scene),
    ...cursorLines(context, scene, nearest, true),
    ...outcomeLines(context),
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
  const isFaster = key === 'b' || key === 'r';
  if (isFaster || key === 'B' || key === 'R') {
    const slider = key.toLowerCase() === 'b' ? BANDWIDTH : ROUND_TRIP;
    const link = slide(state.link, slider, isFaster ? 1 : -1);
    return { ...withTimeline({ colouring: 'replay' }), link };
  }
  if (key === 's') return withTimeline({ isSymbols: !now.isSymbols });
  if (key === '0') return withTimeline({ viewport: WHOLE, former: [] });
  if (key === 'escape' && now.former.length > 0) {
    return withTimeline({ viewport: now.former.at(-1) ?? WHOLE, former: now.former.slice(0, -1) });
  }
  if (key === 'escape' && (state.filters.timeline ?? '') !== '') {
    return { ...withTimeline({ viewport: WHOLE }), filters: { ...state.filters, timeline: '' } };
  }
  const isToWait = key === 'w' || key === 'W';
  if (isToWait && now.colouring === 'layers') return withTimeline({ colouring: 'replay' });
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
  const factors = zooms[key];
  if (factors !== undefined) return zoom(viewport, scene, ...factors);
  const last = scene.accesses.count - 1;
  if (key === 'home') return jumpTo(viewport, scene, 0);
  if (key === 'end') return jumpTo(viewport, scene, last);
  if (!['n', 'p', 'w', 'W'].includes(key)) return null;
  const here = nearestAccess(viewport, scene, cells)?.access ?? 0;
  const by = key === 'n' || key === 'w' ? 1 : -1;
  if (key === 'n' || key === 'p') {
    return jumpTo(viewport, scene, Math.min(Math.max(0, here + by), last));
  }
  const { codes } = scene.accesses;
  let access = here + by;
  while (access >= 0 && access <= last && codes[access] < WAITED) access += by;
  return jumpTo(viewport, scene, access);
}

function nextColouring(now: Colouring, traces: number): Colouring {
  const all: readonly Colouring[] = [
    'layers',
    'replay',
    'waits',
    ...(traces > 1 ? (['against'] as const) : []),
  ];
  return all[(all.indexOf(now) + 1) % all.length];
}

function styleOf({ state, isColourless }: ViewContext): CellStyle {
  return isColourless || state.timeline.isSymbols ? 'symbols' : 'blocks';
}
