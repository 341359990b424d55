import { KINDS } from './kinds.ts';
import { pickAccesses, type Accesses } from './accesses.ts';
import type { OpenedTrace } from './opened-trace.ts';
import type { Palette } from './palette.ts';
import { colouredAccesses, replayedAccesses, sceneOf, type Scene } from './scene.ts';
import type { FilesData, Session } from './session.ts';
import type { AppState } from './state.ts';

/** The last scene that was made: keys ask for the same one again and again. */
let latest: { key: readonly unknown[]; scene: Scene } | null = null;

/** What the timeline shows: of the present trace, coloured, ordered and filtered as chosen. */
export function timelineScene(session: Session, state: AppState): Scene | null {
  const opened = session.traces[state.trace];
  if (opened === undefined) return null;
  const { order, colouring } = state.timeline;
  const filter = state.filters.timeline ?? '';
  const files = session.files();
  const namesAt = files.state === 'done' && state.trace === 0 ? files.value.namesAt : null;
  const other = session.traces[state.trace === 0 ? 1 : 0];
  const key = [opened, other, order, colouring, filter, namesAt];
  if (latest !== null && key.every((part, index) => part === latest?.key[index]))
    return latest.scene;
  const [accesses, palette] = dataOf(opened, other, colouring);
  const shown = filtered(accesses, filter, opened, namesAt);
  const scene = sceneOf(shown, palette, order, opened.summary.recording.durationUs);
  latest = { key, scene };
  return scene;
}

function dataOf(
  opened: OpenedTrace,
  other: OpenedTrace | undefined,
  colouring: AppState['timeline']['colouring'],
): [Accesses, Palette] {
  if (colouring !== 'against') return colouredAccesses(opened, colouring);
  if (other === undefined) return colouredAccesses(opened, 'layers');
  return [replayedAccesses(other, opened), KINDS];
}

/** Of a layer (`layer 3`, or the beginning of its digest), or of files with the text in their names. */
function filtered(
  accesses: Accesses,
  filter: string,
  { trace }: OpenedTrace,
  namesAt: FilesData['namesAt'] | null,
): Accesses {
  if (filter === '') return accesses;
  const number = /^layer (\d+)$/.exec(filter)?.[1];
  const isLayer = trace.image.layers.map(({ digest }, index) => {
    if (number !== undefined) return index === Number(number);
    return /^[0-9a-f]{4,}$/.test(filter) && digest.startsWith(`sha256:${filter}`);
  });
  const places: number[] = [];
  for (let i = 0; i < accesses.count; i += 1) {
    const names = number === undefined ? namesAt?.(accesses.lba[i], accesses.sectors[i]) : [];
    const isNamed = names?.some((name) => name.includes(filter)) === true;
    if (isNamed || isLayer[accesses.layer[i]]) places.push(i);
  }
  return pickAccesses(accesses, places);
}
