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
  const isOther = isOfOther(accesses, access, state);
  const trace = isOther ? Number(state.trace === 0) : state.trace;
  const files = session.files(trace);
  if (files.state !== 'done') return [];
  const { records, image } = session.traces[trace].trace;
  const { digest } = image.layers[records.layer[recordOf(accesses, access)]];
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
  const { image } = session.traces[state.trace].trace;
  const isLayer = image.layers.map(({ digest }, index) => {
    if (number !== undefined) return index === Number(number);
    return /^[0-9a-f]{4,}$/.test(filter) && digest.startsWith(`sha256:${filter}`);
  });
  const places: number[] = [];
  for (let i = 0; i < accesses.count; i += 1) {
    const names = number === undefined ? namesOf(accesses, i, session, state) : [];
    if (isLayer[accesses.layer[i]] || names.some((name) => name.includes(filter))) places.push(i);
  }
  return pickAccesses(accesses, places);
}
