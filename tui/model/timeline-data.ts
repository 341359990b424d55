import type { RecordOutcomes } from '../../src/prefetch/simulate/outcomes.ts';
import { pickAccesses, recordOf, type Accesses } from './accesses.ts';
import { kindCode, KINDS } from './kinds.ts';
import type { OpenedTrace } from './opened-trace.ts';
import type { Palette } from './palette.ts';
import {
  colouredAccesses,
  replayedAccesses,
  sceneOf,
  simulatedAccesses,
  type Scene,
} from './scene.ts';
import type { Session } from './session.ts';
import type { AppState } from './state.ts';

/** The last scene that was made: keys ask for the same one again and again. */
let latest: { key: readonly unknown[]; scene: Scene } | null = null;

/** By trace, the outcomes that were shown last: they stay until those of another link are there. */
const shownOutcomes = new WeakMap<OpenedTrace, RecordOutcomes>();

/** What the timeline shows: of the present trace, coloured, ordered and filtered as chosen. */
export function timelineScene(session: Session, state: AppState): Scene | null {
  const opened = session.traces[state.trace];
  if (opened === undefined) return null;
  const { order, colouring } = state.timeline;
  const filter = state.filters.timeline ?? '';
  const other = otherTrace(session, state);
  const outcomes = colouring === 'replay' ? outcomesOf(session, state) : null;
  const key = [opened, other, order, colouring, filter, outcomes, session.files(state.trace).state];
  if (latest !== null && key.every((part, index) => part === latest?.key[index]))
    return latest.scene;
  const [accesses, palette] = dataOf(opened, other, colouring, outcomes);
  const shown = filtered(accesses, filter, session, state);
  // What only the other trace has may lie behind the end of this one.
  const lastUs = accesses.timeUs[accesses.count - 1] ?? 0;
  const durationUs = Math.max(opened.summary.recording.durationUs, lastUs);
  const scene = sceneOf(shown, palette, order, durationUs);
  latest = { key, scene };
  return scene;
}

/** The trace that the present one is compared with. */
export function otherTrace({ traces }: Session, { trace }: AppState): OpenedTrace | undefined {
  return traces[trace === 0 ? 1 : 0];
}

/** What the records meet with on the chosen link; on the link before, while that is worked on. */
export function outcomesOf(session: Session, { trace, link }: AppState): RecordOutcomes | null {
  const opened = session.traces[trace];
  const found = session.outcomes(trace, link);
  if (found.state === 'done') shownOutcomes.set(opened, found.value);
  if (found.state === 'done' || found.state === 'working') return shownOutcomes.get(opened) ?? null;
  return null;
}

/** Whether an access is of the trace that is compared with, as nobody read it in the present one. */
export function isOfOther({ codes }: Accesses, access: number, { timeline }: AppState): boolean {
  return timeline.colouring === 'against' && codes[access] === UNUSED;
}

const UNUSED = kindCode('unused');

/** What an access belongs to in its image, if that is known. */
export function namesOf(
  accesses: Accesses,
  access: number,
  session: Session,
  state: AppState,
): readonly string[] {
  const files = session.files(traceOf(accesses, access, state));
  if (files.state !== 'done') return [];
  const digest = digestOf(accesses, access, session, state);
  return files.value.namesAt(digest, accesses.lba[access], accesses.sectors[access]);
}

function dataOf(
  opened: OpenedTrace,
  other: OpenedTrace | undefined,
  colouring: AppState['timeline']['colouring'],
  outcomes: RecordOutcomes | null,
): [Accesses, Palette] {
  if (colouring === 'waits') return colouredAccesses(opened, 'waits');
  if (colouring === 'replay' && outcomes !== null) return simulatedAccesses(opened, outcomes);
  if (colouring === 'against' && other !== undefined) {
    return [replayedAccesses(other, opened), KINDS];
  }
  return colouredAccesses(opened, 'layers');
}

/** Of a layer (`layer 3`, or the beginning of its digest), or of files with the text in their names. */
function filtered(accesses: Accesses, filter: string, session: Session, state: AppState): Accesses {
  if (filter === '') return accesses;
  const number = /^layer (\d+)$/.exec(filter)?.[1];
  const wanted = new Set(digestsOf(filter, session, state));
  const places: number[] = [];
  for (let i = 0; i < accesses.count; i += 1) {
    const names = number === undefined ? namesOf(accesses, i, session, state) : [];
    const isOfLayer = wanted.has(digestOf(accesses, i, session, state));
    if (isOfLayer || names.some((name) => name.includes(filter))) places.push(i);
  }
  return pickAccesses(accesses, places);
}

/** The layers that a filter names: by number, of the present trace; by digest, also of the other. */
function digestsOf(filter: string, session: Session, state: AppState): string[] {
  const layersOf = (opened: OpenedTrace | undefined) =>
    (opened?.trace.image.layers ?? []).map(({ digest }) => digest);
  const own = layersOf(session.traces[state.trace]);
  const number = /^layer (\d+)$/.exec(filter)?.[1];
  if (number !== undefined) return own.filter((_, index) => index === Number(number));
  if (!/^[0-9a-f]{4,}$/.test(filter)) return [];
  const all = [...own, ...layersOf(otherTrace(session, state))];
  return all.filter((digest) => digest.startsWith(`sha256:${filter}`));
}

/** The layer that an access is of, in the trace that has it. */
function digestOf(accesses: Accesses, access: number, session: Session, state: AppState): string {
  const { records, image } = session.traces[traceOf(accesses, access, state)].trace;
  return image.layers[records.layer[recordOf(accesses, access)]].digest;
}

/** The number of the trace that has an access: that of the other where only it has it. */
function traceOf(accesses: Accesses, access: number, state: AppState): number {
  return isOfOther(accesses, access, state) ? Number(state.trace === 0) : state.trace;
}
