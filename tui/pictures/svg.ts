import { SECTOR_BYTES } from '../../src/base/limits.ts';
import type { RecordOutcomes } from '../../src/prefetch/simulate/outcomes.ts';
import type { SimulationResult } from '../../src/prefetch/simulate/types.ts';
import { DiskAxis, type DiskOrder } from '../model/disk-axis.ts';
import { fillGrid, type Grid } from '../model/grid.ts';
import { workloadName, type OpenedTrace } from '../model/opened-trace.ts';
import { NOTHING, OWN_COLOURS, type Palette } from '../model/palette.ts';
import { timeTicks } from '../model/time-axis.ts';
import { colouredAccesses, simulatedAccesses } from '../model/scene.ts';
import { marksOf, wholeWindow } from '../model/timeline-marks.ts';
import { clip } from '../paint/text.ts';
import { bytes, count, duration, linkSpeed } from '../paint/units.ts';

const WIDTH = 1200;
const HEIGHT = 680;
/** Where records are drawn. */
const PLOT = { x: 96, y: 78, width: 1080, height: 486 };
/** A cell is so many pixels wide and high: a vector file of every record would be huge. */
const CELL = 3;
const INK = '#1f2933';
const FAINT = '#66717d';
const RULE = '#dfe4ea';
const FONT = 'DejaVu Sans';
const TITLE_CHARACTERS_MAX = 86;

/** A simulated start, and what the records meet with in it. */
export interface SimulatedPicture {
  readonly result: SimulationResult;
  readonly outcomes: RecordOutcomes;
}

/**
 * A trace as an SVG picture: time to the right, downwards what was touched of the disk, by address or by
 * layer; colours tell layers, or what records meet with in a simulated start. What nobody read takes no
 * room.
 */
export function traceSvg(
  opened: OpenedTrace,
  order: DiskOrder,
  simulated: SimulatedPicture | null = null,
): string {
  const { name, trace, summary } = opened;
  const [accesses, palette] =
    simulated === null
      ? colouredAccesses(opened, 'layers')
      : simulatedAccesses(opened, simulated.outcomes);
  const axis = new DiskAxis(accesses, order);
  const window = wholeWindow(summary.recording.durationUs, axis);
  const [columns, rows] = [PLOT.width / CELL, PLOT.height / CELL];
  const grid = fillGrid(marksOf(accesses, axis), window, columns, rows);
  const { records, recordedBytes } = summary;
  const facts =
    `${count(records)} first reads, ${bytes(recordedBytes)} of a disk of ` +
    `${bytes(trace.image.virtualSizeBytes)}, in ${duration(window.timeTo / 1000)}` +
    (simulated === null ? '' : `; ${startName(simulated.result)}`);
  return (
    `<svg xmlns="http://www.w3.org/2000/svg" width="${WIDTH}" height="${HEIGHT}" ` +
    `viewBox="0 0 ${WIDTH} ${HEIGHT}" font-family="${FONT}, sans-serif">\n` +
    `<title>${escape(name)}</title>\n` +
    `<rect width="${WIDTH}" height="${HEIGHT}" fill="#ffffff"/>\n` +
    text(PLOT.x, 36, clip(workloadName(trace.workload), TITLE_CHARACTERS_MAX), {
      size: 20,
      weight: 'bold',
    }) +
    text(PLOT.x, 60, facts, { size: 14, fill: FAINT }) +
    timeAxis(window.timeTo) +
    (order === 'lba' ? addressAxis(axis) : layerAxis(axis)) +
    cells(grid, palette) +
    `<rect x="${PLOT.x}" y="${PLOT.y}" width="${PLOT.width}" height="${PLOT.height}" ` +
    `fill="none" stroke="${FAINT}"/>\n` +
    legend(palette, new Set(accesses.codes)) +
    '</svg>\n'
  );
}

function startName({ policy, link, predictedMs, stalledMs }: SimulationResult): string {
  const { bytesPerSecond, roundTripMs } = link;
  const start = policy === 'none' ? 'a lazy start' : `a replay (${policy})`;
  return (
    `${start} on ${linkSpeed(bytesPerSecond)}, ${duration(roundTripMs)} takes ` +
    `${duration(predictedMs)} and waits ${duration(stalledMs)}`
  );
}

function timeAxis(durationUs: number): string {
  const ticks = timeTicks(0, durationUs, durationUs / 11);
  const marks = ticks.map(({ timeUs, label }) => {
    const x = PLOT.x + (timeUs / durationUs) * PLOT.width;
    const bottom = PLOT.y + PLOT.height;
    return rule(x, PLOT.y, x, bottom + 5) + text(x, bottom + 21, label, { anchor: 'middle' });
  });
  const middle = PLOT.x + PLOT.width / 2;
  const title = 'time since the recording began';
  return (
    marks.join('') +
    text(middle, PLOT.y + PLOT.height + 44, title, { anchor: 'middle', fill: FAINT })
  );
}

/** Where on the disk the touched parts lie. */
function addressAxis(axis: DiskAxis): string {
  const STEPS = 8;
  const marks = Array.from({ length: STEPS + 1 }, (_, step) => {
    const found = axis.at((step / STEPS) * axis.total);
    if (found === null) return '';
    const y = PLOT.y + (step / STEPS) * PLOT.height;
    const label = bytes(found.lba * SECTOR_BYTES);
    return (
      rule(PLOT.x - 5, y, PLOT.x + PLOT.width, y) +
      text(PLOT.x - 10, y + 4, label, { anchor: 'end' })
    );
  });
  return marks.join('') + sideTitle('address on the disk; only what was read');
}

/** A name beside each band that has room for one, and a rule between bands. */
function layerAxis(axis: DiskAxis): string {
  const marks = axis.bands.map(({ layer, from, to }) => {
    const [top, bottom] = [from, to].map((at) => PLOT.y + (at / axis.total) * PLOT.height);
    const label = `layer ${layer ?? ''}`;
    const name =
      bottom - top < 12 ? '' : text(PLOT.x - 10, (top + bottom) / 2 + 4, label, { anchor: 'end' });
    return rule(PLOT.x - 5, bottom, PLOT.x + PLOT.width, bottom) + name;
  });
  return marks.join('') + sideTitle('layers, the topmost first; only what was read');
}

function sideTitle(title: string): string {
  const [x, y] = [18, PLOT.y + PLOT.height / 2];
  return text(x, y, title, { anchor: 'middle', fill: FAINT, rotate: true });
}

/** One path a colour, made of runs of cells that lie beside each other. */
function cells({ columns, rows, codes }: Grid, palette: Palette): string {
  const paths = new Map<string, string[]>();
  for (let row = 0; row < rows; row += 1) {
    for (let start = 0, end = 0; start < columns; start = end) {
      const code = codes[row * columns + start];
      for (end = start + 1; end < columns && codes[row * columns + end] === code;) end += 1;
      if (code === NOTHING) continue;
      const { hex } = palette[code - 1];
      const [x, y] = [PLOT.x + start * CELL, PLOT.y + row * CELL];
      const path = paths.get(hex) ?? [];
      path.push(`M${x} ${y}h${(end - start) * CELL}v${CELL}h-${(end - start) * CELL}z`);
      paths.set(hex, path);
    }
  }
  return [...paths]
    .map(
      ([hex, path]) => `<path fill="${hex}" shape-rendering="crispEdges" d="${path.join('')}"/>\n`,
    )
    .join('');
}

/** Layers that occur; those without a colour of their own together. */
function legend(palette: Palette, occurring: ReadonlySet<number>): string {
  const own = palette.slice(0, OWN_COLOURS).filter((_, index) => occurring.has(index + 1));
  const others = [...occurring].filter((code) => code > OWN_COLOURS).length;
  const entries = own.map(({ hex, label }) => ({ hex, label }));
  if (others > 0) entries.push({ hex: palette[OWN_COLOURS].hex, label: `${others} other layers` });
  const PER_ROW = 4;
  return entries
    .map(({ hex, label }, index) => {
      const x = PLOT.x + (index % PER_ROW) * (PLOT.width / PER_ROW);
      const y = HEIGHT - 44 + Math.floor(index / PER_ROW) * 22;
      const box = `<rect x="${x}" y="${y - 11}" width="13" height="13" rx="2" fill="${hex}"/>\n`;
      return box + text(x + 20, y, label, { size: 13 });
    })
    .join('');
}

interface TextLook {
  size?: number;
  fill?: string;
  weight?: 'bold';
  anchor?: 'middle' | 'end';
  rotate?: boolean;
}

function text(x: number, y: number, content: string, look: TextLook = {}): string {
  const { size = 13, fill = INK, weight, anchor, rotate } = look;
  return (
    `<text x="${round(x)}" y="${round(y)}" font-size="${size}" fill="${fill}"` +
    (weight === undefined ? '' : ` font-weight="${weight}"`) +
    (anchor === undefined ? '' : ` text-anchor="${anchor}"`) +
    (rotate === true ? ` transform="rotate(-90 ${round(x)} ${round(y)})"` : '') +
    `>${escape(content)}</text>\n`
  );
}

function rule(x1: number, y1: number, x2: number, y2: number): string {
  const [a, b, c, d] = [x1, y1, x2, y2].map(round);
  return `<path d="M${a} ${b}L${c} ${d}" stroke="${RULE}"/>\n`;
}

function round(value: number): number {
  return Math.round(value * 100) / 100;
}

function escape(content: string): string {
  const names: Readonly<Record<string, string>> = { '&': '&amp;', '<': '&lt;', '>': '&gt;' };
  return content.replaceAll(/[&<>]/g, (character) => names[character]);
}
