import { SECTOR_BYTES } from '../../src/base/limits.ts';
import type { FilePart } from '../../src/trace/diff-file.ts';
import { shortDigest } from '../model/opened-trace.ts';
import {
  firstShown,
  goTo,
  movedPlace,
  WHOLE,
  type AppState,
  type DiffState,
} from '../model/state.ts';
import { line, span, type Line } from '../paint/line.ts';
import { fitColumns, headingLine, rowLine, type Column } from '../paint/table.ts';
import { clipStart, plain } from '../paint/text.ts';
import { bytes, count, counted, duration } from '../paint/units.ts';
import type { ViewContext } from './view.ts';

type ChosenFile = NonNullable<DiffState['file']>;

/** Lines beside the rows of the table. */
const AROUND = 4;

const COLUMNS: readonly Column[] = [
  { title: 'IN FILE', width: 8, align: 'right' },
  { title: 'SIZE', width: 8, align: 'right' },
  { title: 'WHAT', width: 5, align: 'left' },
  { title: 'FIRST AT', width: 8, align: 'right' },
  { title: 'SECOND AT', width: 9, align: 'right' },
  { title: 'LBA', width: 13, align: 'right' },
  { title: 'LAYER', width: 12, align: 'left' },
];

/** Where two traces agree about a file and where not. */
export function drawDiffFile({ session, columns, rows }: ViewContext, file: ChosenFile): Line[] {
  const parts = session.fileParts(file.path);
  const part = Math.min(file.part, parts.length - 1);
  const room = Math.max(1, Math.min(parts.length, rows - AROUND));
  const from = firstShown(part, parts.length, room);
  const fitted = fitColumns(COLUMNS, columns);
  const sizes = (['kept', 'moved', 'lost', 'new'] as const).flatMap((kind) => {
    const sectors = parts.reduce((sum, one) => sum + (one.kind === kind ? one.sectors : 0), 0);
    return sectors === 0 ? [] : [`${bytes(sectors * SECTOR_BYTES)} ${kind}`];
  });
  return [
    [span(` ${clipStart(plain(file.path), columns - 2)}`, 'strong')],
    line(` ${counted(parts.length, 'part')}: ${sizes.join(', ')}`, 'dim'),
    line(''),
    headingLine(fitted),
    ...parts
      .slice(from, from + room)
      .map((one, index) => rowLine(fitted, cellsOf(one), from + index === part)),
  ];
}

function cellsOf({
  kind,
  digest,
  lba,
  sectors,
  fileOffset,
  firstUs,
  secondUs,
}: FilePart): string[] {
  const at = (timeUs: number | null): string => (timeUs === null ? '-' : duration(timeUs / 1000));
  return [
    bytes(fileOffset),
    bytes(sectors * SECTOR_BYTES),
    kind,
    at(firstUs),
    at(secondUs),
    count(Math.floor(lba)),
    shortDigest(digest),
  ];
}

/** The timeline of the second run, as a replay of the first, filtered. */
export function showAgainst(state: AppState, filter: string): AppState {
  const timeline = { ...state.timeline, viewport: WHOLE, former: [] };
  return {
    ...goTo({ ...state, trace: 1 }, 'timeline'),
    filters: { ...state.filters, timeline: filter },
    timeline: { ...timeline, colouring: 'against' },
  };
}

/** What keys do while a file is looked at. */
export function onDiffFileKey(
  { session, state, rows }: ViewContext,
  file: ChosenFile,
  key: string,
): AppState {
  if (key === 'escape') return { ...state, diff: { ...state.diff, file: null } };
  if (key === 'enter') return showAgainst(state, file.path);
  const { length } = session.fileParts(file.path);
  const part = movedPlace(Math.min(file.part, length - 1), key, length, rows - AROUND);
  return part === null ? state : { ...state, diff: { ...state.diff, file: { ...file, part } } };
}
