import { summariseTrace, type TraceSummary } from '../../src/trace/describe.ts';
import type { ReplayRun } from '../../src/trace/store-facts.ts';
import type { Trace } from '../../src/trace/trace.ts';
import { plain } from '../paint/text.ts';
import { bytes } from '../paint/units.ts';
import type { Accesses } from './accesses.ts';
import { paletteOf, type Palette } from './palette.ts';

/** A trace file that was read. */
export interface OpenedTrace {
  /** The file's name, for people. */
  readonly name: string;
  readonly trace: Trace;
  readonly summary: TraceSummary;
  /** Every record, with the code of its layer. */
  readonly accesses: Accesses;
  /** Of layers. */
  readonly palette: Palette;
  /** How its last replays went, the latest last; of a trace of the store. */
  readonly runs: readonly ReplayRun[];
}

export function openedTrace(
  name: string,
  trace: Trace,
  fileBytes: number,
  runs: readonly ReplayRun[] = [],
): OpenedTrace {
  const { records } = trace;
  const codes = Uint8Array.from(records.layer, (layer) => layer + 1);
  const summary = summariseTrace(trace, fileBytes);
  const names = trace.image.layers.map(({ digest }, index) => ({
    label: `layer ${index} ${shortDigest(digest)}, ${bytes(summary.layers[index].recordedBytes)}`,
    short: `layer ${index}`,
  }));
  const accesses = { ...records, codes };
  return { name: plain(name), trace, summary, accesses, palette: paletteOf(names), runs };
}

/** Of a digest, what people need to tell it from others. */
export function shortDigest(digest: string): string {
  return plain(digest.replace(/^sha256:/, '').slice(0, 12));
}

/** The command line that ran, or the beginning of the workload's key. */
export function workloadName({ entrypoint, args, key }: Trace['workload']): string {
  return plain([...entrypoint, ...args].join(' ')) || `workload ${key.slice(0, 12)}`;
}
