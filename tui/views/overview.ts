import { slide, SLIDERS, startName } from '../model/link.ts';
import { shortDigest, workloadName, type OpenedTrace } from '../model/opened-trace.ts';
import { goTo } from '../model/state.ts';
import { bar, sparkline } from '../paint/bars.ts';
import { fact, line, span, type Line } from '../paint/line.ts';
import { plain } from '../paint/text.ts';
import { bytes, count, duration, percent } from '../paint/units.ts';
import { layerRows } from './layers.ts';
import { laterNotice, NO_TRACE, notice } from './notice.ts';
import type { View, ViewContext } from './view.ts';

/** Replays that are told one by one. */
const REPLAYS_MAX = 3;

const [BANDWIDTH, ROUND_TRIP] = SLIDERS;

export const overview: View = {
  id: 'overview',
  title: 'Overview',
  keys: [
    ['b B', 'bandwidth'],
    ['r R', 'round trip'],
    ['t', 'next trace'],
    ['enter', 'timeline'],
  ],
  draw: (context) => drawOverview(context),
  report: (context) => drawOverview(context),
  onKey: ({ state }, key) => {
    const { link } = state;
    if (key === 'b') return { ...state, link: slide(link, BANDWIDTH, 1) };
    if (key === 'B') return { ...state, link: slide(link, BANDWIDTH, -1) };
    if (key === 'r') return { ...state, link: slide(link, ROUND_TRIP, 1) };
    if (key === 'R') return { ...state, link: slide(link, ROUND_TRIP, -1) };
    return key === 'enter' ? goTo(state, 'timeline') : state;
  },
};

function drawOverview(context: ViewContext): Line[] {
  const { session, state, columns } = context;
  const opened = session.traces[state.trace];
  if (opened === undefined) return notice(NO_TRACE, columns);
  const { trace, summary, name } = opened;
  const { image, recording } = trace;
  const touched = summary.recordedBytes / Math.max(1, image.virtualSizeBytes);
  const blobs = image.layers.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0);
  const waited = trace.records.waitUs.at(-1) ?? 0;
  const lines: Line[] = [
    fact('trace', span(name, 'strong'), `, ${bytes(summary.fileBytes)}`, several(context)),
    fact('workload', workloadName(trace.workload)),
    fact(
      'image',
      image.manifestDigest === null ? 'without a manifest' : shortDigest(image.manifestDigest),
      `, ${image.layers.length} ${image.layers.length === 1 ? 'layer' : 'layers'}, ${bytes(blobs)} compressed`,
    ),
    fact(
      'recorded',
      `${new Date(recording.startedAtMs).toISOString().slice(0, 19).replace('T', ' ')} UTC, ` +
        `${duration(recording.durationUs / 1000)}, ended by ${plain(recording.endReason)}`,
    ),
    fact('runs', `${trace.runs}${waited > 0 ? `; it waited for ${duration(waited / 1000)}` : ''}`),
    fact('records', `${count(summary.records)} first reads, ${bytes(summary.recordedBytes)}`),
    fact(
      'disk',
      span(bar(touched, 20), 'accent'),
      ` ${percent(touched)} of ${bytes(image.virtualSizeBytes)} touched`,
    ),
    fact(
      'plan',
      `${count(summary.planRanges)} ranges, ${bytes(summary.planBytes)}: ` +
        `${percent(summary.planBytes / Math.max(1, blobs))} of the image`,
    ),
    line(''),
    ...coldStart(context),
    ...replays(opened),
    line(''),
  ];
  return [...lines, ...layerRows(context, opened)];
}

/** How the last replays of a trace of the store went. */
function replays({ runs }: OpenedTrace): Line[] {
  if (runs.length === 0) return [];
  const heading: Line = [
    span(' Last replays', 'strong'),
    span(`  coverage of ${runs.length} `, 'dim'),
    span(
      sparkline(
        runs.map(({ coverage }) => coverage),
        runs.length,
        1,
      ),
      'accent',
    ),
  ];
  return [
    line(''),
    heading,
    ...runs
      .slice(-REPLAYS_MAX)
      .reverse()
      .map(({ atMs, coverage, timeliness, overFetch }) =>
        fact(
          `  ${new Date(atMs).toISOString().slice(5, 16).replace('T', ' ')}`,
          `covered ${percent(coverage)}, in time ${percent(timeliness)}, ` +
            `over-fetch ${percent(overFetch)}`,
        ),
      ),
  ];
}

function several({ session, state }: ViewContext): string {
  const { length } = session.traces;
  return length < 2 ? '' : `  (trace ${state.trace + 1} of ${length})`;
}

/** How long a cold start would take on the link of the Simulate view. */
function coldStart({ session, state, columns }: ViewContext): Line[] {
  const heading: Line = [
    span(' Cold start', 'strong'),
    span(`  on a link of ${startName(state.link)}`, 'dim'),
  ];
  const found = session.simulation(state.trace, state.link);
  if (found.state !== 'done') return [heading, ...laterNotice(found, columns).slice(1)];
  const { predictedMs, lazyMs, warmMs, boundMs, coverage, timeliness } = found.value;
  return [
    heading,
    fact(
      '  replayed',
      span(duration(predictedMs), 'strong'),
      span(`   bound ${duration(boundMs)}`),
    ),
    fact('  lazy', duration(lazyMs), `   warm ${duration(warmMs)}`),
    fact('  coverage', percent(coverage), `   in time ${percent(timeliness)}`),
  ];
}
