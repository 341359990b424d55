import type { GridRow } from './grid.ts';
import { OUTCOMES, type Outcome } from './outcomes.ts';
import type { SimulatedLink, SimulationPoint, SimulationResult } from './types.ts';

/** Lines of a report's curve. */
const CURVE_LINES = 12;

/**
 * One simulated start as lines for people, beside the one that reads the plan's hot blob. `records`: how
 * many of the trace's met with what.
 */
export function formatSimulation(
  result: SimulationResult,
  packed: SimulationResult,
  records: Readonly<Record<Outcome, number>>,
): string {
  const { requests, curve } = result;
  const row = (name: string, text: string): string => `${name.padEnd(11)}${text}\n`;
  const closed = result.gapClosure === null ? '' : `, gap closed ${percent(result.gapClosure)}`;
  return (
    row('link', formatLink(result.link)) +
    row('policy', result.policy) +
    row(
      'start',
      `${ms(result.predictedMs)} (lazy ${ms(result.lazyMs)}, warm ${ms(result.warmMs)}, ` +
        `bound ${ms(result.boundMs)})`,
    ) +
    row('', `${result.ratio.toFixed(2)} of the bound${closed}`) +
    row('packed', `${ms(packed.predictedMs)}, ${packed.requests.prefetch} prefetch requests`) +
    row('coverage', percent(result.coverage)) +
    row('timeliness', percent(result.timeliness)) +
    row('touched', `${mib(result.touchedBytes)}, fetched ${mib(result.fetchedBytes)}`) +
    row('requests', `${requests.prefetch} prefetch, ${requests.demand} demand`) +
    row('records', OUTCOMES.map((outcome) => `${records[outcome]} ${outcome}`).join(', ')) +
    row('waits', `${result.stalls}, ${ms(result.stalledMs)}; layers open at ${ms(result.openMs)}`) +
    `\n${table(thinned(curve).map(curveRow))}`
  );
}

/** A table of links as lines for people. */
export function formatGrid(rows: readonly GridRow[]): string {
  return table(
    rows.map((row) => {
      const [{ knob, best, bestMs, worst, worstMs }] = row.knobs;
      return {
        link: formatLink(row.link),
        'lazy ms': row.lazyMs.toFixed(0),
        [`${row.policy} ms`]: row.predictedMs.toFixed(0),
        'warm ms': row.warmMs.toFixed(0),
        'bound ms': row.boundMs.toFixed(0),
        'of bound': row.ratio.toFixed(2),
        pays: row.pays ? 'yes' : 'no',
        'knob that matters': `${knob}: ${best} ${ms(bestMs)}, ${worst} ${ms(worstMs)}`,
      };
    }),
  );
}

function curveRow(point: SimulationPoint): Record<string, string> {
  return {
    'at ms': point.timeMs.toFixed(0),
    fetched: mib(point.fetchedBytes),
    touched: mib(point.touchedBytes),
    coverage: percent(point.coverage),
    timeliness: percent(point.timeliness),
    'waited ms': point.stalledMs.toFixed(0),
  };
}

/** As many points as a report has lines for, the last included. */
function thinned(curve: readonly SimulationPoint[]): SimulationPoint[] {
  const step = Math.max(1, Math.ceil(curve.length / CURVE_LINES));
  return curve.filter((_, index) => (curve.length - 1 - index) % step === 0);
}

/** Columns; the first and the last to the left, numbers between to the right. */
function table(rows: readonly Record<string, string>[]): string {
  if (rows.length === 0) return '';
  const names = Object.keys(rows[0]);
  const lines = [names, ...rows.map((row) => Object.values(row))];
  const widths = names.map((_, column) => Math.max(...lines.map((line) => line[column].length)));
  const isText = names.map((name) => name === 'link' || name.startsWith('knob'));
  const cell = (text: string, column: number): string =>
    isText[column] ? text.padEnd(widths[column]) : text.padStart(widths[column]);
  return lines.map((line) => `${line.map(cell).join('  ').trimEnd()}\n`).join('');
}

function formatLink({ bytesPerSecond, roundTripMs }: SimulatedLink): string {
  const megabits = (bytesPerSecond * 8) / 1e6;
  return `${Number(megabits.toPrecision(3))} Mbit/s, ${Number(roundTripMs.toPrecision(3))} ms`;
}

function percent(value: number | null): string {
  return value === null ? 'n/a' : `${(value * 100).toFixed(1)} %`;
}

function ms(value: number): string {
  return `${value.toFixed(0)} ms`;
}

function mib(bytes: number): string {
  return `${(bytes / 2 ** 20).toFixed(1)} MiB`;
}
