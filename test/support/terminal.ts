import assert from 'node:assert/strict';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { output, run } from './programs.ts';
import type { Scratch } from './scratch.ts';

const MAIN = fileURLToPath(new URL('../../src/cli/main.ts', import.meta.url));
/** How long a screen may take to show something: machines that run tests are busy. */
const SHOWN_MS_MAX = 60_000;
const POLL_MS = 50;

/** The command line tool in a real terminal: keys in, screen out. Ended with its scratch. */
export class Terminal {
  readonly #server: readonly string[];

  private constructor(socket: string) {
    this.#server = ['-S', socket, '-f', '/dev/null'];
  }

  /** Runs the tool in a shell, which is still there when it has ended. */
  static async start(
    scratch: Scratch,
    args: readonly string[],
    [columns, rows]: readonly [number, number],
    env: Readonly<Record<string, string>> = {},
  ): Promise<Terminal> {
    const terminal = new Terminal(scratch.path('tmux'));
    const variables = { HOME: scratch.folder, XDG_RUNTIME_DIR: scratch.folder, ...env };
    const size = ['-x', String(columns), '-y', String(rows)];
    const shell = ['env', ...Object.entries(variables).map(([name, value]) => `${name}=${value}`)];
    await terminal.#tmux('new-session', '-d', ...size, ...shell, 'PS1=ready> ', 'sh');
    scratch.atEnd(() => terminal.#tmux('kill-server'));
    await terminal.until(/ready>/);
    await terminal.run(args);
    return terminal;
  }

  /** Runs the tool in the shell, which waits for a command. */
  async run(args: readonly string[]): Promise<void> {
    await this.type([process.execPath, MAIN, ...args].map((word) => `'${word}'`).join(' '));
    await this.keys('Enter');
  }

  /** Named keys, as tmux names them. */
  async keys(...names: string[]): Promise<void> {
    for (const name of names) await this.#tmux('send-keys', name);
  }

  async type(text: string): Promise<void> {
    await this.#tmux('send-keys', '-l', text);
  }

  async resize(columns: number, rows: number): Promise<void> {
    await this.#tmux('resize-window', '-x', String(columns), '-y', String(rows));
  }

  /** The screen's rows; with `attributes` as the sequences that make them. */
  async rows(attributes = false): Promise<string[]> {
    const how = attributes ? ['-e'] : [];
    return (await this.#tmux('capture-pane', '-p', ...how)).replace(/\n$/, '').split('\n');
  }

  /** Waits until the screen shows something; its rows. */
  async until(expected: RegExp): Promise<string[]> {
    let rows: string[] = [];
    for (const end = Date.now() + SHOWN_MS_MAX; Date.now() < end; await sleep(POLL_MS)) {
      rows = await this.rows();
      if (expected.test(rows.join('\n'))) return rows;
    }
    assert.fail(`the screen never showed ${String(expected)}:\n${rows.join('\n')}`);
  }

  /** A property of the terminal, such as `alternate_on`. */
  async property(name: string): Promise<string> {
    return (await this.#tmux('display-message', '-p', `#{${name}}`)).trim();
  }

  /** The process that runs in the terminal. */
  async programs(): Promise<number[]> {
    const shell = await this.property('pane_pid');
    const { stdout } = await run('pgrep', '-P', shell);
    return stdout.trim().split('\n').filter(Boolean).map(Number);
  }

  async #tmux(...args: string[]): Promise<string> {
    return await output('tmux', ...this.#server, ...args);
  }
}
