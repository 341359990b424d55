import { messageOf } from '../src/base/errors.ts';
import { diffTraces, type TraceDiff } from '../src/trace/diff.ts';
import type { SimulationResult } from '../src/prefetch/simulate/types.ts';
import type { LinkChoice } from './model/link.ts';
import { LiveModel } from './model/live.ts';
import type { OpenedTrace } from './model/opened-trace.ts';
import type { FilesData, Later, Session } from './model/session.ts';
import { Simulations } from './simulations.ts';

/** Stretches that a comparison lists. */
const DIFF_LIST_MAX = 20;

/** Traces that were opened, and what is found out about them when somebody looks. */
export class OpenedSession implements Session {
  readonly traces: readonly OpenedTrace[];
  readonly live = new LiveModel();
  readonly #simulations: Simulations;
  readonly #onChange: () => void;
  #files: Later<FilesData> = {
    state: 'absent',
    why:
      'Which files the records belong to is in the image. Name it: replaybd tui TRACE --image REF, ' +
      'a registry reference or a config.v1.json.',
  };
  #diff: Later<TraceDiff> | null = null;

  /** `onChange` is called when something that is shown has been found out. */
  constructor(traces: readonly OpenedTrace[], onChange: () => void) {
    this.traces = traces;
    this.#onChange = onChange;
    const simulated = traces.map(({ trace }) => trace);
    this.#simulations = new Simulations(simulated, onChange);
  }

  /** The image is being read for the names of its files. */
  async findFiles(find: () => Promise<FilesData>): Promise<void> {
    this.#files = { state: 'working' };
    try {
      this.#files = { state: 'done', value: await find() };
    } catch (error) {
      this.#files = { state: 'failed', why: messageOf(error) };
    }
    this.#onChange();
  }

  files(): Later<FilesData> {
    return this.#files;
  }

  diff(): Later<TraceDiff> {
    this.#diff ??= this.#compare();
    return this.#diff;
  }

  simulation(trace: number, choice: LinkChoice): Later<SimulationResult> {
    return this.#simulations.result(trace, choice);
  }

  async close(): Promise<void> {
    await this.#simulations.close();
  }

  #compare(): Later<TraceDiff> {
    const [first, second] = this.traces;
    if (second === undefined) {
      return {
        state: 'absent',
        why: 'Name two traces to compare them: replaybd tui A.trace B.trace',
      };
    }
    try {
      const value = diffTraces(first.trace, second.trace, { listMax: DIFF_LIST_MAX });
      return { state: 'done', value };
    } catch (error) {
      return { state: 'failed', why: messageOf(error) };
    }
  }
}
