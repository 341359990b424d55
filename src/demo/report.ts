import { boundRatio, gapClosure } from '../prefetch/bound.ts';
import { renderTimeline, timelineLegend } from '../../tui/timeline.ts';
import type { DemoResult } from './demo.ts';
import type { DemoRun } from './run.ts';

const TIMELINE_ROWS = 10;

/** The figures of a demonstration, as `--json` prints them. */
export function demoFigures(result: DemoResult): object {
  const times = coldStartTimes(result);
  const figures = ({ totalMs, report }: DemoRun): object => ({
    firstOutputMs: totalMs,
    readyMs: report.readyMs,
    fetchedBytes: fetchedBytes(report),
    requests: requests(report),
    quality: report.quality,
  });
  return {
    link: result.link,
    image: result.image,
    guest: result.guest,
    tracePath: result.tracePath,
    lazy: figures(result.lazy),
    replay: figures(result.replay),
    warm: figures(result.warm),
    boundMs: result.boundMs,
    boundRatio: boundRatio(times),
    gapClosure: gapClosure(times),
  };
}

/** A demonstration as a table and two pictures. */
export function formatDemo(result: DemoResult, columns: number, color: boolean): string {
  const { lazy, replay, warm, boundMs, link, image, guest } = result;
  const times = coldStartTimes(result);
  const megabits = (link.bytesPerSecond * 8) / 1e6;
  const subject =
    guest.kind === 'mount'
      ? 'A Node web service, started from the mounted device (chroot)'
      : `Recorded reads of a Node web service, played over NBD (no mount: ${guest.why})`;
  const rows = [
    ['', 'first output', 'fetched', 'requests', 'coverage', 'accuracy', 'timeliness'],
    runRow('cold, lazy (recorded)', lazy),
    runRow('cold, replayed', replay),
    runRow('warm', warm),
    ['bound on this link', seconds(boundMs), '', '', '', '', ''],
  ];
  const head =
    `${subject}: "${guest.output}"\n` +
    `image ${mib(image.blobBytes)} compressed; link ${megabits} Mbit/s, ${link.latencyMs} ms\n\n`;
  const verdict =
    `\nreplay / bound ${boundRatio(times).toFixed(2)}    ` +
    `gap closed ${(gapClosure(times) * 100).toFixed(1)} %    ` +
    `${(lazy.totalMs / replay.totalMs).toFixed(1)} x faster than lazy\n`;
  return (
    head +
    formatTable(rows) +
    verdict +
    `\n${timelines(result, columns, color)}\n${timelineLegend()}\n` +
    `trace: ${result.tracePath}\n`
  );
}

/** Both cold runs on one scale, so that they can be compared by eye. */
function timelines(result: DemoResult, columns: number, color: boolean): string {
  const { lazy, replay } = result;
  const lbas = [...new Set(lazy.accesses.map(({ lba }) => lba))].sort((a, b) => a - b);
  const options = {
    columns: Math.max(20, columns - 2),
    rows: TIMELINE_ROWS,
    durationMs: lazy.totalMs,
    lbas,
    color,
  };
  return (
    renderTimeline(lazy.accesses, { ...options, title: 'cold, lazy: disk (down) by time' }) +
    '\n' +
    renderTimeline(replay.accesses, { ...options, title: 'cold, replayed' })
  );
}

function coldStartTimes(result: DemoResult): {
  lazyMs: number;
  replayMs: number;
  warmMs: number;
  boundMs: number;
} {
  const { lazy, replay, warm, boundMs } = result;
  return { lazyMs: lazy.totalMs, replayMs: replay.totalMs, warmMs: warm.totalMs, boundMs };
}

function runRow(name: string, { totalMs, report }: DemoRun): string[] {
  const { coverage, accuracy, timeliness } = report.quality;
  return [
    name,
    seconds(totalMs),
    mib(fetchedBytes(report)),
    String(requests(report)),
    percent(coverage),
    percent(accuracy),
    percent(timeliness),
  ];
}

function fetchedBytes({ quality }: DemoRun['report']): number {
  return quality.lanes.demand.bytes + quality.lanes.prefetch.bytes;
}

function requests({ quality }: DemoRun['report']): number {
  return quality.lanes.demand.requests + quality.lanes.prefetch.requests;
}

/** The first column to the left, figures to the right. */
function formatTable(rows: readonly (readonly string[])[]): string {
  const widths = rows[0].map((_, i) => Math.max(...rows.map((row) => row[i].length)));
  const line = (row: readonly string[]): string =>
    row
      .map((cell, i) => (i === 0 ? cell.padEnd(widths[i]) : cell.padStart(widths[i])))
      .join('  ')
      .trimEnd();
  return rows.map((row) => `${line(row)}\n`).join('');
}

function seconds(ms: number): string {
  return `${(ms / 1000).toFixed(2)} s`;
}

function mib(bytes: number): string {
  return `${(bytes / 2 ** 20).toFixed(1)} MiB`;
}

function percent(value: number | null): string {
  return value === null ? '-' : `${(value * 100).toFixed(1)} %`;
}
