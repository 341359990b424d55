import assert from 'node:assert/strict';
import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { recoverStale } from '../../src/frontend/fuse/stale.ts';
import type { Scratch } from './scratch.ts';

/** Guests, which are slow, run the built tool. */
const MAIN =
  process.env.REPLAYBD_TEST_MAIN ??
  fileURLToPath(new URL('../../src/cli/main.ts', import.meta.url));
/** A child that is asked to end and does not, for so long, is killed. */
const END_MS_MAX = 15_000;

export interface CliOptions {
  env?: Readonly<Record<string, string>>;
  /** Run as this user and group. */
  uid?: number;
  /** A program, with its arguments, that runs the tool. */
  through?: readonly string[];
}

export interface Ended {
  code: number | null;
  signal: NodeJS.Signals | null;
  stdout: string;
  stderr: string;
}

/** The command line tool as a process of its own, ended with its scratch. */
export class CliProcess {
  readonly ended: Promise<Ended>;
  readonly pid: number;
  readonly #child: ChildProcess;
  readonly #lines: string[] = [];
  #stderr = '';
  #wake: () => void = () => undefined;
  #isOver = false;

  constructor(scratch: Scratch, args: readonly string[], options: CliOptions = {}) {
    const { uid, env, through = [] } = options;
    const [program = '', ...rest] = [...through, process.execPath, MAIN, ...args];
    this.#child = spawn(program, rest, {
      stdio: ['ignore', 'pipe', 'pipe'],
      cwd: scratch.folder,
      // Nothing of the user who runs the tests: no credentials, no folders, no proxies.
      env: {
        PATH: process.env.PATH ?? '',
        HOME: scratch.folder,
        XDG_RUNTIME_DIR: scratch.folder,
        DOCKER_CONFIG: scratch.path('docker'),
        ...env,
      },
      ...(uid === undefined ? {} : { uid, gid: uid }),
    });
    assert.ok(this.#child.pid !== undefined, 'the process starts');
    this.pid = this.#child.pid;
    this.ended = this.#run();
    scratch.atEnd(() => this.#end());
  }

  /** The first line of standard output that is not taken yet. Rejects when the process ends first. */
  async line(): Promise<string> {
    for (;;) {
      const line = this.#lines.shift();
      if (line !== undefined) return line;
      await this.#more();
    }
  }

  /** Resolves when standard error holds `text`. Rejects when the process ends first. */
  async untilSaid(text: string): Promise<void> {
    while (!this.#stderr.includes(text)) await this.#more();
  }

  kill(signal: NodeJS.Signals): void {
    this.#child.kill(signal);
  }

  /** Waits for more output; one wait at a time. */
  async #more(): Promise<void> {
    assert.ok(!this.#isOver, `ended before it printed what was expected: ${this.#stderr}`);
    await new Promise<void>((resolve) => {
      this.#wake = resolve;
    });
  }

  async #run(): Promise<Ended> {
    const { stdout, stderr } = this.#child;
    assert.ok(stdout !== null && stderr !== null);
    const all: string[] = [];
    stderr.setEncoding('utf8').on('data', (text: string) => {
      this.#stderr += text;
      this.#wake();
    });
    createInterface({ input: stdout }).on('line', (line) => {
      all.push(line);
      this.#lines.push(line);
      this.#wake();
    });
    const [code, signal] = (await once(this.#child, 'close')) as [
      number | null,
      NodeJS.Signals | null,
    ];
    this.#isOver = true;
    this.#wake();
    return { code, signal, stdout: all.join('\n'), stderr: this.#stderr };
  }

  /** For a test that failed half way; one that succeeded has ended its processes. */
  async #end(): Promise<void> {
    if (this.#isOver) return;
    this.kill('SIGTERM');
    const timer = new AbortController();
    const late = sleep(END_MS_MAX, 'late', { signal: timer.signal }).catch(() => '');
    if ((await Promise.race([this.ended, late])) === 'late') {
      this.kill('SIGKILL');
      await this.ended;
      await recoverStale();
    }
    timer.abort();
  }
}

/** Runs a command to its end. */
export async function cli(
  scratch: Scratch,
  args: readonly string[],
  options: CliOptions = {},
): Promise<Ended> {
  return await new CliProcess(scratch, args, options).ended;
}

/** Runs a command that must succeed; its standard output. */
export async function cliOutput(
  scratch: Scratch,
  args: readonly string[],
  options: CliOptions = {},
): Promise<string> {
  const { code, stdout, stderr } = await cli(scratch, args, options);
  assert.equal(code, 0, `replaybd ${args.join(' ')}: ${stderr}`);
  return stdout;
}

/** Runs a command that must succeed with --json; what it prints. */
export async function cliJson<T>(
  scratch: Scratch,
  args: readonly string[],
  options: CliOptions = {},
): Promise<T> {
  return JSON.parse(await cliOutput(scratch, [...args, '--json'], options)) as T;
}

/** `replaybd registry serve` until the scratch is closed; its URL. */
export async function serveRegistry(
  scratch: Scratch,
  root: string,
  ...args: string[]
): Promise<string> {
  const registry = new CliProcess(scratch, ['registry', 'serve', '--root', root, ...args]);
  return await registry.line();
}
