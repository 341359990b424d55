import { OUTCOMES, type RecordOutcomes } from '../../src/prefetch/simulate/outcomes.ts';
import { kindCode, KINDS } from './kinds.ts';
import { lastAtMost, type Accesses } from './accesses.ts';
import { DiskAxis, touchedExtents, type DiskOrder, type SectorExtent } from './disk-axis.ts';
import type { Marks, Window } from './grid.ts';
import type { OpenedTrace } from './opened-trace.ts';
import type { Palette } from './palette.ts';
import { marksOf, wholeWindow } from './timeline-marks.ts';

/** What colours and symbols of a timeline tell. */
export type Colouring = 'layers' | 'replay' | 'waits' | 'against';

/** A timeline, whatever part of it is looked at. */
export interface Scene {
  readonly accesses: Accesses;
  readonly palette: Palette;
  readonly axis: DiskAxis;
  readonly marks: Marks;
  readonly whole: Window;
}

export function sceneOf(
  accesses: Accesses,
  palette: Palette,
  order: DiskOrder,
  durationUs: number,
): Scene {
  const axis = new DiskAxis(accesses, order);
  const marks = marksOf(accesses, axis);
  return { accesses, palette, axis, marks, whole: wholeWindow(durationUs, axis) };
}

/** A trace's records by layer, or by what the recorded run waited for. */
export function colouredAccesses(
  { accesses, trace, palette }: OpenedTrace,
  colouring: 'layers' | 'waits',
): [Accesses, Palette] {
  if (colouring === 'layers') return [accesses, palette];
  const { count, waitUs } = trace.records;
  const [local, waited] = [kindCode('cached'), kindCode('demand')];
  const codes = new Uint8Array(count).fill(local);
  // A record is stamped before it waits itself.
  for (let i = 0; i + 1 < count; i += 1) if (waitUs[i + 1] > waitUs[i]) codes[i] = waited;
  return [{ ...accesses, codes }, KINDS];
}

/** A trace's records by what they meet with in a simulated replay. */
export function simulatedAccesses(
  { accesses }: OpenedTrace,
  outcomes: RecordOutcomes,
): [Accesses, Palette] {
  return [{ ...accesses, codes: outcomes.codes.map((code) => kindCode(OUTCOMES[code])) }, KINDS];
}

/**
 * What a replay of `plan` would have been for the run that `run` recorded: what both have is prefetched,
 * what only the run has is read on demand, what only the plan has is unused. By layer and address.
 */
export function replayedAccesses(plan: OpenedTrace, run: OpenedTrace): Accesses {
  const inPlan = coverage(plan);
  const inRun = coverage(run);
  const { accesses } = run;
  const codes = Uint8Array.from({ length: accesses.count }, (_, i) =>
    kindCode(
      inPlan(digestAt(run, i), accesses.lba[i], accesses.sectors[i]) ? 'prefetched' : 'demand',
    ),
  );
  const unused: number[] = [];
  for (let i = 0; i < plan.accesses.count; i += 1) {
    const { lba, sectors } = plan.accesses;
    if (!inRun(digestAt(plan, i), lba[i], sectors[i])) unused.push(i);
  }
  return withUnused({ ...accesses, codes }, plan, run, unused);
}

/** Records of the plan that nobody read, among those that somebody did, in order of time. */
function withUnused(
  read: Accesses,
  plan: OpenedTrace,
  run: OpenedTrace,
  unused: readonly number[],
): Accesses {
  const count = read.count + unused.length;
  const merged = {
    count,
    timeUs: new Float64Array(count),
    lba: new Float64Array(count),
    sectors: new Float64Array(count),
    layer: new Uint16Array(count),
    codes: new Uint8Array(count),
    record: new Uint32Array(count),
  };
  const layers = run.trace.image.layers.map(({ digest }) => digest);
  const from = plan.accesses;
  let next = 0;
  for (let at = 0; at < count; at += 1) {
    const r = at - next;
    const u = unused[next] ?? -1;
    const isUnused = u >= 0 && (r >= read.count || from.timeUs[u] < read.timeUs[r]);
    const [source, i] = isUnused ? [from, u] : [read, r];
    merged.timeUs[at] = source.timeUs[i];
    merged.lba[at] = source.lba[i];
    merged.sectors[at] = source.sectors[i];
    // A layer that the run's image lacks is shown as its lowest.
    merged.layer[at] = isUnused ? Math.max(0, layers.indexOf(digestAt(plan, i))) : read.layer[i];
    merged.record[at] = i;
    merged.codes[at] = isUnused ? kindCode('unused') : read.codes[i];
    if (isUnused) next += 1;
  }
  return merged;
}

function digestAt({ trace }: OpenedTrace, record: number): string {
  return trace.image.layers[trace.records.layer[record]].digest;
}

/** Tells whether a trace has at least half of some sectors of a layer. */
function coverage(opened: OpenedTrace): (digest: string, lba: number, sectors: number) => boolean {
  const layers = new Map<string, { starts: Float64Array; extents: SectorExtent[] }>();
  for (const [index, { digest }] of opened.trace.image.layers.entries()) {
    const extents = touchedExtents(opened.accesses, index);
    layers.set(digest, { starts: Float64Array.from(extents, ({ start }) => start), extents });
  }
  return (digest, lba, sectors) => {
    const layer = layers.get(digest);
    if (layer === undefined) return false;
    const { starts, extents } = layer;
    let covered = 0;
    for (let i = Math.max(0, lastAtMost(starts, lba)); i < extents.length; i += 1) {
      if (extents[i].start >= lba + sectors) break;
      covered += Math.max(
        0,
        Math.min(extents[i].end, lba + sectors) - Math.max(extents[i].start, lba),
      );
    }
    return covered * 2 >= sectors;
  };
}
