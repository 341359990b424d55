import type { FilePart } from '../../src/trace/diff-file.ts';
import type { FileDiff, FileFinder, TraceDiff } from '../../src/trace/diff.ts';
import type { FileUse } from '../../src/trace/file-report.ts';
import type { RecordOutcomes } from '../../src/prefetch/simulate/outcomes.ts';
import type { SimulationResult } from '../../src/prefetch/simulate/types.ts';
import type { LinkChoice } from './link.ts';
import type { LiveModel } from './live.ts';
import type { OpenedTrace } from './opened-trace.ts';

/** What is found out beside the screen: it is being worked on, it is there, or it cannot be had. */
export type Later<T> =
  | { readonly state: 'absent'; readonly why: string }
  | { readonly state: 'working' }
  | { readonly state: 'failed'; readonly why: string }
  | { readonly state: 'done'; readonly value: T };

/** Files of the image that a trace is about. */
export interface FilesData {
  readonly fileSystem: string;
  readonly files: readonly FileUse[];
  /** That the trace's records have, and the image serves from other layers: of no file here. */
  readonly foreignBytes: number;
  /**
   * Names of what some sectors of a layer belong to, in their order; of what the image serves from
   * another layer, none.
   */
  readonly namesAt: (digest: string, lba: number, sectors: number) => readonly string[];
  readonly filesOf: FileFinder;
}

/** What a thread tells of a simulated start; the outcomes if it was asked for them. */
export interface Simulated {
  readonly result: SimulationResult;
  readonly outcomes: RecordOutcomes | null;
}

/** All that the views look at. What is not there yet is asked for by looking at it. */
export interface Session {
  readonly traces: readonly OpenedTrace[];
  readonly live: LiveModel;
  files(trace: number): Later<FilesData>;
  /** Of the first two traces. */
  diff(): Later<TraceDiff>;
  /** The same by file, those that differ most first. */
  diffFiles(): Later<readonly FileDiff[]>;
  /** What the two have of one file, in its order. */
  fileParts(path: string): readonly FilePart[];
  simulation(trace: number, choice: LinkChoice): Later<SimulationResult>;
  /** What a trace's records meet with in that simulation. */
  outcomes(trace: number, choice: LinkChoice): Later<RecordOutcomes>;
}
