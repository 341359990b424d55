import { messageOf } from '../src/base/errors.ts';
import { diffFile, type FilePart } from '../src/trace/diff-file.ts';
import { diffTraces, type FileDiff, type FileFinder, type TraceDiff } from '../src/trace/diff.ts';
import { firstFinder } from '../src/trace/file-finder.ts';
import type { RecordOutcomes } from '../src/prefetch/simulate/outcomes.ts';
import type { SimulationResult } from '../src/prefetch/simulate/types.ts';
import type { Trace } from '../src/trace/trace.ts';
import type { LinkChoice } from './model/link.ts';
import { LiveModel } from './model/live.ts';
import type { OpenedTrace } from './model/opened-trace.ts';
import type { FilesData, Later, Session } from './model/session.ts';
import { Simulations } from './simulations.ts';

/** Files that a comparison lists. */
const DIFF_FILES_MAX = 100_000;

const TWO_TRACES = {
  state: 'absent',
  why: 'Name two traces to compare them: replaybd tui A.trace B.trace',
} as const;

/** Traces that were opened, and what is found out about them when somebody looks. */
export class OpenedSession implements Session {
  readonly traces: readonly OpenedTrace[];
  readonly live = new LiveModel();
  readonly #simulations: Simulations;
  readonly #onChange: () => void;
  #files: Later<readonly FilesData[]> = {
    state: 'absent',
    why:
      'Which files the records belong to is in the image. Name it: replaybd tui TRACE --image REF, ' +
      'a registry reference or a config.v1.json.',
  };
  #diff: Later<TraceDiff> | null = null;
  #diffFiles: Later<readonly FileDiff[]> | null = null;
  #parts: { path: string; parts: readonly FilePart[] } | null = null;

  /** `onChange` is called when something that is shown has been found out. */
  constructor(traces: readonly OpenedTrace[], onChange: () => void) {
    this.traces = traces;
    this.#onChange = onChange;
    const simulated = traces.map(({ trace }) => trace);
    this.#simulations = new Simulations(simulated, onChange);
  }

  /** The images are being read for the names of their files, of each trace. */
  async findFiles(find: () => Promise<readonly FilesData[]>): Promise<void> {
    this.#files = { state: 'working' };
    try {
      this.#files = { state: 'done', value: await find() };
    } catch (error) {
      this.#files = { state: 'failed', why: messageOf(error) };
    }
    this.#onChange();
  }

  files(trace: number): Later<FilesData> {
    if (this.#files.state !== 'done') return this.#files;
    const value = this.#files.value[trace];
    return value === undefined
      ? { state: 'absent', why: 'No trace is open.' }
      : { state: 'done', value };
  }

  diff(): Later<TraceDiff> {
    this.#diff ??= this.#compared(([first, second]) => diffTraces(first, second, { listMax: 0 }));
    return this.#diff;
  }

  diffFiles(): Later<readonly FileDiff[]> {
    const filesOf = this.#finder();
    if (filesOf === null) {
      const found = this.files(0);
      return found.state === 'done' ? TWO_TRACES : found;
    }
    this.#diffFiles ??= this.#compared(([first, second]) => {
      const options = { listMax: 0, filesMax: DIFF_FILES_MAX, filesOf };
      return diffTraces(first, second, options).files ?? [];
    });
    return this.#diffFiles;
  }

  fileParts(path: string): readonly FilePart[] {
    const filesOf = this.#finder();
    const [first, second] = this.traces;
    if (filesOf === null || second === undefined) return [];
    if (this.#parts?.path !== path) {
      const parts = diffFile(first.trace, second.trace, { path, filesOf });
      this.#parts = { path, parts };
    }
    return this.#parts.parts;
  }

  simulation(trace: number, choice: LinkChoice): Later<SimulationResult> {
    return this.#simulations.result(trace, choice);
  }

  outcomes(trace: number, choice: LinkChoice): Later<RecordOutcomes> {
    return this.#simulations.outcomes(trace, choice);
  }

  async close(): Promise<void> {
    await this.#simulations.close();
  }

  /** What comes of the first two traces. */
  #compared<T>(compare: (traces: readonly [Trace, Trace]) => T): Later<T> {
    const [first, second] = this.traces;
    if (second === undefined) return TWO_TRACES;
    try {
      return { state: 'done', value: compare([first.trace, second.trace]) };
    } catch (error) {
      return { state: 'failed', why: messageOf(error) };
    }
  }

  /** Finds the files of both, once their images have been read. */
  #finder(): FileFinder | null {
    const [first, second] = [this.files(0), this.files(1)];
    if (first.state !== 'done' || second.state !== 'done') return null;
    return firstFinder([first.value.filesOf, second.value.filesOf]);
  }
}
