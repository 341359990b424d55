import type { SimulationResult } from '../../src/prefetch/simulate/types.ts';
import { slide, SLIDERS, type LinkChoice, type Slider } from '../model/link.ts';
import { moveSelected, selectedOf } from '../model/state.ts';
import { bar, sparkline } from '../paint/bars.ts';
import { fact, fitLine, line, span, type Line } from '../paint/line.ts';
import { pad } from '../paint/text.ts';
import { bytes, count, duration, percent } from '../paint/units.ts';
import { laterNotice, NO_TRACE, notice } from './notice.ts';
import type { View, ViewContext } from './view.ts';

export const simulate: View = {
  id: 'simulate',
  title: 'Simulate',
  keys: [
    ['↑ ↓', 'choose'],
    ['← →', 'change'],
    ['t', 'next trace'],
  ],
  draw: (context) => drawSimulate(context, false),
  report: (context) => drawSimulate(context, true),
  onKey: (context, key) => {
    const { state } = context;
    const slider = SLIDERS[selectedOf(state, SLIDERS.length)];
    if (key === 'left') return { ...state, link: slide(state.link, slider, -1) };
    if (key === 'right') return { ...state, link: slide(state.link, slider, 1) };
    return moveSelected(state, key, SLIDERS.length, SLIDERS.length);
  },
};

function drawSimulate({ session, state, columns }: ViewContext, isReport: boolean): Line[] {
  const opened = session.traces[state.trace];
  if (opened === undefined) return notice(NO_TRACE, columns);
  const selected = selectedOf(state, SLIDERS.length);
  const sliders = SLIDERS.map((slider, index) => {
    const isSelected = index === selected;
    if (!isReport) return sliderLine(slider, state.link, isSelected, columns);
    return fact(slider.name, slider.labels[state.link[slider.key]], isSelected ? ', selected' : '');
  });
  const found = session.simulation(state.trace, state.link);
  const result =
    found.state === 'done'
      ? resultLines(found.value, columns, isReport)
      : laterNotice(found, columns);
  return [
    [span(' A cold start of ', 'dim'), span(opened.name, 'strong')],
    line(''),
    ...sliders,
    line(''),
    ...result,
  ];
}

function sliderLine(
  slider: Slider,
  choice: LinkChoice,
  isSelected: boolean,
  columns: number,
): Line {
  const place = choice[slider.key];
  const last = slider.labels.length - 1;
  const width = last * 2 + 1;
  const track = '─'.repeat(place * 2) + '●' + '─'.repeat(width - place * 2 - 1);
  const text = ` ${isSelected ? '▶' : ' '} ${pad(slider.name, 12)} ${pad(track, 20)} `;
  const tone = isSelected ? 'selected' : undefined;
  return fitLine(
    [span(text, tone), span(slider.labels[place], isSelected ? tone : 'strong')],
    columns,
    tone,
  );
}

function resultLines(result: SimulationResult, columns: number, isReport: boolean): Line[] {
  const times: [string, number][] = [
    ['replayed', result.predictedMs],
    ['bound', result.boundMs],
    ['lazy', result.lazyMs],
    ['warm', result.warmMs],
  ];
  const longest = Math.max(...times.map(([, ms]) => ms), 1);
  const width = Math.max(10, Math.min(80, columns - 31));
  const { requests, gapClosure, curve } = result;
  return [
    ...times.map(([name, ms], index) =>
      fact(
        name,
        span(duration(ms).padStart(8), index === 0 ? 'strong' : undefined),
        span(` ${bar(ms / longest, width)}`, index === 0 ? 'accent' : 'dim'),
      ),
    ),
    line(''),
    fact(
      'replay / bound',
      `${result.ratio.toFixed(2)}   gap closed ${percent(gapClosure)}   ` +
        `${(result.lazyMs / Math.max(result.predictedMs, 1)).toFixed(1)} x faster than lazy`,
    ),
    fact('coverage', `${percent(result.coverage)}   in time ${percent(result.timeliness)}`),
    fact(
      'requests',
      `${count(requests.prefetch)} prefetch, ${count(requests.demand)} demand; ` +
        `${bytes(result.fetchedBytes)} fetched, ${bytes(result.touchedBytes)} touched`,
    ),
    fact('waited', `${count(result.stalls)} times, ${duration(result.stalledMs)} in all`),
    ...(isReport ? [] : curveLines(curve, Math.max(10, Math.min(100, columns - 19)))),
  ];
}

/** How far it is over time. */
function curveLines(curve: SimulationResult['curve'], width: number): Line[] {
  const end = curve.at(-1);
  if (end === undefined) return [];
  const at = (column: number) => {
    const timeMs = ((column + 1) / width) * end.timeMs;
    return curve.findLast((point) => point.timeMs <= timeMs) ?? curve[0];
  };
  const points = Array.from({ length: width }, (_, column) => at(column));
  const all = Math.max(end.fetchedBytes, end.touchedBytes, 1);
  const draw = (values: readonly (number | null)[], max: number): string =>
    sparkline(values, width, max);
  return [
    fact(
      'fetched',
      span(
        draw(
          points.map((point) => point.fetchedBytes),
          all,
        ),
        'accent',
      ),
    ),
    fact(
      'touched',
      span(
        draw(
          points.map((point) => point.touchedBytes),
          all,
        ),
        'accent',
      ),
    ),
    fact(
      'coverage',
      span(
        draw(
          points.map((point) => point.coverage),
          1,
        ),
        'accent',
      ),
    ),
    fact('', span(`0${duration(end.timeMs).padStart(width - 1)}`, 'dim')),
  ];
}
