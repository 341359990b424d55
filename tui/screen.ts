import type { Store } from './store.ts';

const ENTER = '\u001b[?1049h\u001b[?25l\u001b[H';
const LEAVE = '\u001b[?25h\u001b[?1049l';
/** What is drawn at most, so many times a second. */
const FRAMES_PER_SECOND = 10;

export interface ScreenOptions {
  readonly store: Store;
  readonly stdin: NodeJS.ReadStream;
  readonly stdout: NodeJS.WriteStream;
}

/**
 * Runs the interface until somebody quits it. The terminal's own screen comes back whatever ends it. The
 * first frame is drawn before ink is loaded, which takes longer than everything else; ink then draws the
 * same over it.
 */
export async function runScreen(options: ScreenOptions): Promise<void> {
  const { store, stdin, stdout } = options;
  // Text for a screen reader stays in the terminal's history.
  if (!store.isPlain) {
    const rows = store.rows({ columns: stdout.columns, rows: stdout.rows });
    stdout.write(`${ENTER}${rows.join('\r\n')}\u001b[H`);
  }
  const leave = (): void => void (store.isPlain || stdout.write(LEAVE));
  process.once('exit', leave);
  const crash = (error: unknown): void => {
    leave();
    process.off('exit', leave);
    throw error;
  };
  process.once('uncaughtException', crash);
  try {
    // React's other build measures itself all the time, and keeps what it has measured.
    process.env.NODE_ENV ??= 'production';
    const [{ render }, { createElement }, { App }] = await Promise.all([
      import('ink'),
      import('react'),
      import('./app.ts'),
    ]);
    // What the first frame had and ink's does not would stay.
    if (!store.isPlain) stdout.write('\u001b[H\u001b[J');
    const instance = render(createElement(App, { store }), {
      ...{ stdin, stdout, interactive: true, patchConsole: false },
      ...{ alternateScreen: !store.isPlain, isScreenReaderEnabled: store.isPlain },
      ...{ incrementalRendering: true, maxFps: FRAMES_PER_SECOND },
    });
    await instance.waitUntilExit();
  } finally {
    if (store.isPlain) stdout.write('\n');
    leave();
    process.off('exit', leave);
    process.off('uncaughtException', crash);
  }
}
