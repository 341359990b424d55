import type { FileUse } from '../../src/trace/file-report.ts';
import type { SimulationResult } from '../../src/prefetch/simulate/types.ts';
import type { TraceDiff } from '../../src/trace/diff.ts';
import type { LinkChoice } from './link.ts';
import type { LiveModel } from './live.ts';
import type { OpenedTrace } from './opened-trace.ts';

/** What is found out beside the screen: it is being worked on, it is there, or it cannot be had. */
export type Later<T> =
  | { readonly state: 'absent'; readonly why: string }
  | { readonly state: 'working' }
  | { readonly state: 'failed'; readonly why: string }
  | { readonly state: 'done'; readonly value: T };

/** Files of the image that the first trace is about. */
export interface FilesData {
  readonly fileSystem: string;
  readonly files: readonly FileUse[];
  /** Names of what some sectors belong to, in their order; what is of no file is left out. */
  readonly namesAt: (lba: number, sectors: number) => readonly string[];
}

/** All that the views look at. What is not there yet is asked for by looking at it. */
export interface Session {
  readonly traces: readonly OpenedTrace[];
  readonly live: LiveModel;
  files(): Later<FilesData>;
  /** Of the first two traces. */
  diff(): Later<TraceDiff>;
  simulation(trace: number, choice: LinkChoice): Later<SimulationResult>;
}
