import { SECTOR_BYTES } from '../../src/base/limits.ts';
import {
  countOutcomes,
  OUTCOMES,
  type RecordOutcomes,
} from '../../src/prefetch/simulate/outcomes.ts';
import { recordOf } from '../model/accesses.ts';
import { kindCode } from '../model/kinds.ts';
import { replayName } from '../model/link.ts';
import { shortDigest } from '../model/opened-trace.ts';
import type { Scene } from '../model/scene.ts';
import type { Session } from '../model/session.ts';
import { isOfOther, namesOf, otherTrace, outcomesOf } from '../model/timeline-data.ts';
import { windowOf, type Nearest } from '../model/viewport.ts';
import type { CellStyle } from '../paint/cells.ts';
import { line, span, type Line, type Span } from '../paint/line.ts';
import { cellWidth, clipStart, plain } from '../paint/text.ts';
import { bytes, count, counted, duration } from '../paint/units.ts';
import { legendLine } from './plot.ts';
import type { ViewContext } from './view.ts';

/** In cells: an access that is farther from the cursor is not under it. */
const UNDER = 1;
/** Records that a report lists: those that are waited for longest. */
const LONGEST_MAX = 10;

/** The trace, and what is shown of it. */
export function headingLine({ session, state }: ViewContext, scene: Scene): Line {
  const { order, viewport, colouring } = state.timeline;
  const window = windowOf(viewport, scene);
  const closer = Math.max(
    scene.whole.timeTo / (window.timeTo - window.timeFrom),
    scene.whole.diskTo / (window.diskTo - window.diskFrom),
  );
  const filter = state.filters.timeline ?? '';
  const other = otherTrace(session, state);
  const spans: Span[] = [
    span(` ${session.traces[state.trace].name}`, 'strong'),
    span(`  ${counted(scene.accesses.count, 'record')}`, 'dim'),
  ];
  if (colouring === 'layers') {
    spans.push(span(` by ${order === 'lba' ? 'address' : 'layer'}`, 'dim'));
  }
  if (colouring === 'replay') spans.push(span(`, ${replayName(state.link)}`, 'dim'));
  if (colouring === 'waits') spans.push(span(', what the recorded run waited for', 'dim'));
  if (colouring === 'against' && other !== undefined) {
    spans.push(span(`, as a replay of ${other.name}`, 'dim'));
  }
  if (filter !== '') spans.push(span(`, only "${plain(filter)}"`, 'warning'));
  if (closer > 1.01)
    spans.push(span(`   ${closer.toFixed(closer < 10 ? 1 : 0)} x closer`, 'accent'));
  return spans;
}

/** What the colours or symbols mean; of a simulated replay, also how it goes, or why there is none. */
export function keyLine({ session, state, columns }: ViewContext, scene: Scene, style: CellStyle) {
  const legend = (room: number): Line =>
    legendLine(scene.palette, scene.accesses.codes, style, room);
  if (state.timeline.colouring !== 'replay') return legend(columns);
  const found = session.outcomes(state.trace, state.link);
  if (found.state === 'working') {
    const working = span('simulating ...', 'warning');
    return [...legend(columns - working.text.length), working];
  }
  if (found.state !== 'done') return line(` Not simulated: ${found.why}`, 'warning');
  const waitMs = totalWaitMs(found.value);
  const text = waitMs === 0 ? 'waits for nothing' : `waits ${duration(waitMs)} in all`;
  const waited = span(text, 'strong');
  return [...legend(columns - waited.text.length), waited];
}

/** The access that is nearest to the cursor, in two lines; in words where nothing is drawn. */
export function cursorLines(
  context: ViewContext,
  scene: Scene,
  nearest: Nearest | null,
  isReport = false,
): readonly [Line, Line] {
  if (nearest === null) return [line(' Nothing was read here.', 'dim'), line('')];
  const { session, state, columns } = context;
  const { accesses } = scene;
  const { access, distance } = nearest;
  const isUnder = distance <= UNDER;
  const isOther = isOfOther(accesses, access, state);
  const of = (isOther ? otherTrace(session, state) : undefined) ?? session.traces[state.trace];
  const record = recordOf(accesses, access);
  const layer = of.trace.records.layer[record];
  const away = isUnder ? '' : `, ${distance.toFixed(0)} cells away`;
  const met = metWith(context, scene, access);
  const facts =
    `   record ${count(record + 1)}${isOther ? ` of ${of.name}` : ''}${away}, layer ${layer} ` +
    shortDigest(of.trace.image.layers[layer].digest);
  return [
    [
      isReport
        ? span(isUnder ? ' At the cursor: ' : ' Nearest to the cursor: ')
        : span(isUnder ? ' ● ' : ' ○ ', isUnder ? 'accent' : 'dim'),
      span(`LBA ${count(accesses.lba[access])}`, 'strong'),
      span(` + ${bytes(accesses.sectors[access] * SECTOR_BYTES)}`),
      span(` at ${duration(accesses.timeUs[access] / 1000)}`),
      span(met === '' ? '' : `: ${met}`),
    ],
    [span(facts, 'dim'), ...nameSpans(context, scene, access, columns - cellWidth(facts) - 2)],
  ];
}

/** Whose bytes an access reads, in so many cells. */
function nameSpans(context: ViewContext, scene: Scene, access: number, room: number): Span[] {
  const { session, state } = context;
  const names = namesOf(scene.accesses, access, session, state);
  const filter = state.filters.timeline ?? '';
  const name = names.find((one) => filter !== '' && one.includes(filter)) ?? names[0];
  if (name === undefined) return [];
  const others = names.length > 1 ? ` and ${names.length - 1} more` : '';
  const shown = clipStart(plain(name), Math.max(8, room - others.length));
  return [span(`  ${shown}`, 'accent'), span(others, 'dim')];
}

/** What an access met with, in words; '' where colours tell layers. */
function metWith({ session, state }: ViewContext, scene: Scene, access: number): string {
  const { accesses } = scene;
  const { colouring } = state.timeline;
  const record = recordOf(accesses, access);
  if (colouring === 'replay') {
    const outcomes = outcomesOf(session, state);
    return outcomes === null ? '' : outcomeName(outcomes, record);
  }
  if (colouring === 'waits') {
    const { waitUs } = session.traces[state.trace].trace.records;
    const waitedUs = (waitUs[record + 1] ?? waitUs[record]) - waitUs[record];
    return waitedUs > 0 ? `the run waited ${duration(waitedUs / 1000)}` : 'the run did not wait';
  }
  const other = otherTrace(session, state);
  if (colouring !== 'against' || other === undefined) return '';
  if (isOfOther(accesses, access, state)) return `unused, only ${other.name} has it`;
  const isCovered = accesses.codes[access] === kindCode('prefetched');
  return isCovered ? `prefetched, ${other.name} has it` : `demand, ${other.name} lacks it`;
}

/** What a record meets with in a simulated replay, in words. */
function outcomeName({ codes, waitMs, together }: RecordOutcomes, record: number): string {
  const outcome = OUTCOMES[codes[record]];
  if (outcome === 'cached') return 'cached, was there already';
  if (outcome === 'prefetched') return 'prefetched in time';
  if (outcome === 'unused') return 'unused, behind the end of the start';
  if (waitMs[record] === 0) return `${outcome}, with the record before it`;
  const others = together[record] > 1 ? ` with ${count(together[record] - 1)} more` : '';
  return `${outcome}, waits ${duration(waitMs[record])}${others}`;
}

/** A simulated replay in words: how many records meet with what, and which are waited for longest. */
export function outcomeLines({ session, state }: ViewContext): Line[] {
  const { link, trace } = state;
  const found = session.outcomes(trace, link);
  if (found.state === 'working') return [line(''), line(' Simulating a replay ...')];
  if (found.state !== 'done') return [line(''), line(` Not simulated: ${found.why}`)];
  const outcomes = found.value;
  const met = Object.entries(countOutcomes(outcomes))
    .filter(([, records]) => records > 0)
    .map(([outcome, records]) => `${count(records)} ${outcome}`);
  const longest = [...outcomes.waitMs.keys()]
    .filter((record) => outcomes.waitMs[record] > 0)
    .sort((a, b) => outcomes.waitMs[b] - outcomes.waitMs[a] || a - b)
    .slice(0, LONGEST_MAX);
  const of = longest.length === 0 ? '' : '; longest for:';
  return [
    line(''),
    line(` A simulated ${replayName(link)}: ${met.join(', ')}`),
    line(` It waits ${duration(totalWaitMs(outcomes))} in all${of}`),
    ...longest.map((record) => line(`   ${waitedFor(session, trace, outcomes, record)}`)),
  ];
}

/** A record that is waited for, in words. */
function waitedFor(
  session: Session,
  trace: number,
  outcomes: RecordOutcomes,
  record: number,
): string {
  const { records, image } = session.traces[trace].trace;
  const [lba, sectors] = [records.lba[record], records.sectors[record]];
  const files = session.files(trace);
  const { digest } = image.layers[records.layer[record]];
  const [name] = files.state === 'done' ? files.value.namesAt(digest, lba, sectors) : [];
  return (
    `record ${count(record + 1)}, LBA ${count(lba)} + ${bytes(sectors * SECTOR_BYTES)} ` +
    `at ${duration(records.timeUs[record] / 1000)}: ${outcomeName(outcomes, record)}` +
    (name === undefined ? '' : `  ${plain(name)}`)
  );
}

function totalWaitMs({ waitMs, together }: RecordOutcomes): number {
  return waitMs.reduce((sum, ms, record) => sum + ms / together[record], 0);
}
