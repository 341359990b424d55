import type { FilesData } from './model/session.ts';
import { VIEW_IDS, type ViewId } from './model/state.ts';
import { openTrace } from './control-source.ts';
import { LivePoller, type LiveSource } from './live-poller.ts';
import type { OpenedTrace } from './model/opened-trace.ts';
import { OpenedSession } from './opened-session.ts';
import { runScreen } from './screen.ts';
import { Store } from './store.ts';

export interface TuiOptions {
  readonly tracePaths: readonly string[];
  /** 1 to 7; the overview, or without a trace the live view, unless it is given. */
  readonly view?: number;
  /** Text that is read from top to bottom. */
  readonly isPlain: boolean;
  readonly source: LiveSource;
  /** Names of the traces' files, if their images are known. */
  readonly findFiles?: (
    traces: readonly OpenedTrace[],
    signal: AbortSignal,
  ) => Promise<readonly FilesData[]>;
  readonly stdin: NodeJS.ReadStream;
  readonly stdout: NodeJS.WriteStream;
  readonly env: NodeJS.ProcessEnv;
}

/** Of text that does not go to a terminal. */
const REPORT_SIZE = { columns: 160, rows: 1000 };

/**
 * The terminal interface until it is left; where the output is no terminal, a report of what it would show.
 * Errors: those of opening the traces; of a report, also those of the
 * source and of finding the files.
 */
export async function runTui(options: TuiOptions): Promise<void> {
  const { tracePaths, source, findFiles, stdout, stdin, env } = options;
  const traces = await Promise.all(tracePaths.map(openTrace));
  let onChange = (): void => undefined;
  const session = new OpenedSession(traces, () => onChange());
  const view = viewOf(options);
  const store = new Store({
    session,
    view,
    isColourless: (env.NO_COLOR ?? '') !== '' || env.TERM === 'dumb',
    isPlain: options.isPlain || !stdout.isTTY,
  });
  onChange = () => store.changed();
  // What is read aloud begins anew with each change: it waits for a key.
  const poller = new LivePoller(source, session.live, () => {
    if (!store.isPlain || session.live.state !== 'up') store.changed();
  });
  const left = new AbortController();
  try {
    const files = findFiles?.(traces, left.signal);
    const told = files === undefined ? null : session.findFiles(() => files);
    if (!stdout.isTTY || !stdin.isTTY) {
      // A view tells why there are no files; a report without them has failed.
      await files;
      await told;
      await report(store, poller, options);
      return;
    }
    const look = (): void => {
      poller.watch(store.state.device);
      poller.run(store.state.view === 'live');
    };
    look();
    store.subscribe(look);
    await runScreen({ store, stdin, stdout });
  } finally {
    left.abort();
    poller.run(false);
    await session.close();
  }
}

/** Prints one view, or all that have something to tell. */
async function report(store: Store, poller: LivePoller, options: TuiOptions): Promise<void> {
  const { stdout, view, tracePaths } = options;
  const wanted = view === undefined ? viewsFor(tracePaths.length, options) : [VIEW_IDS[view - 1]];
  const parts: string[] = [];
  for (const id of wanted) {
    if (id === 'live') await poller.ask();
    store.press(String(VIEW_IDS.indexOf(id) + 1), REPORT_SIZE);
    parts.push(`${(await settled(store)).join('\n')}\n`);
  }
  stdout.write(parts.join('\n'));
}

/** The rows once nothing is being worked on any more. */
async function settled(store: Store): Promise<string[]> {
  for (;;) {
    const rows = store.rows(REPORT_SIZE);
    if (!isSimulating(store)) return rows;
    await new Promise<void>((resolve) => {
      const stop = store.subscribe(() => {
        stop();
        resolve();
      });
    });
  }
}

/** Whether what the present view shows is being simulated. */
function isSimulating({ session, state: { link, trace, view } }: Store): boolean {
  if (session.traces.length === 0) return false;
  if (view === 'timeline') return session.outcomes(trace, link).state === 'working';
  const isShown = view === 'overview' || view === 'simulate';
  return isShown && session.simulation(trace, link).state === 'working';
}

function viewsFor(traces: number, { findFiles }: TuiOptions): ViewId[] {
  if (traces === 0) return ['live'];
  return [
    ...(['overview', 'timeline', 'layers'] as const),
    ...(findFiles === undefined ? [] : (['files'] as const)),
    ...(traces > 1 ? (['diff'] as const) : []),
    'simulate',
  ];
}

function viewOf({ view, tracePaths }: TuiOptions): ViewId {
  if (view !== undefined) return VIEW_IDS[view - 1];
  return tracePaths.length === 0 ? 'live' : 'overview';
}
