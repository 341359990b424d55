import type { TraceDiff } from '../../src/trace/diff.ts';
import type { RecordOutcomes } from '../../src/prefetch/simulate/outcomes.ts';
import type { SimulationResult } from '../../src/prefetch/simulate/types.ts';
import type { Trace } from '../../src/trace/trace.ts';
import { openedTrace } from '../../tui/model/opened-trace.ts';
import type { FilesData, Later } from '../../tui/model/session.ts';
import type { ViewId } from '../../tui/model/state.ts';
import { OpenedSession } from '../../tui/opened-session.ts';
import { Store } from '../../tui/store.ts';
import { bootLikeRecords, syntheticLayers, traceOf } from '../trace/synthetic.ts';

export const SMALL = { columns: 80, rows: 24 } as const;
export const LARGE = { columns: 200, rows: 60 } as const;

export function bootTrace(count = 2000, layers = 4, seed = 1): Trace {
  const trace = traceOf(bootLikeRecords(count, layers, seed), syntheticLayers(layers));
  // A plan as a recording has it, if all layers were stored as they are.
  const metadata = 4096;
  return {
    ...trace,
    plan: {
      count: count + 1,
      blob: Uint16Array.from({ length: count + 1 }, (_, i) =>
        i === 0 ? 0 : trace.records.layer[i - 1],
      ),
      offset: Float64Array.from({ length: count + 1 }, (_, i) => i * metadata * 8),
      length: new Float64Array(count + 1).fill(metadata),
      dueUs: Float64Array.from({ length: count + 1 }, (_, i) =>
        i === 0 ? 0 : Math.max(1, trace.records.timeUs[i - 1]),
      ),
    },
  };
}

/** A store over traces; simulations are those that a test gives, if it gives any. */
export function storeOf(
  traces: readonly Trace[],
  options: {
    view?: ViewId;
    isColourless?: boolean;
    isPlain?: boolean;
    files?: FilesData;
    simulation?: Later<SimulationResult>;
    outcomes?: Later<RecordOutcomes>;
    diff?: Later<TraceDiff>;
  } = {},
): Store {
  const { view = 'overview', isColourless = false, isPlain = false } = options;
  const opened = traces.map((trace, index) => openedTrace(`${'ab'[index]}.trace`, trace, 1000));
  const session = new OpenedSession(opened, () => undefined);
  const failed = { state: 'failed', why: 'not simulated here' } as const;
  const { files, simulation = failed, outcomes = failed, diff } = options;
  session.simulation = () => simulation;
  session.outcomes = () => outcomes;
  if (files !== undefined) session.files = () => ({ state: 'done', value: files });
  if (diff !== undefined) session.diff = () => diff;
  return new Store({ session, view, isColourless, isPlain });
}

/** Rows without what makes them colourful. */
export function textOf(rows: readonly string[]): string[] {
  return rows.map((row) => row.replaceAll(/\u001b\[[\d;]*m/g, ''));
}
