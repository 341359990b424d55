import assert from 'node:assert/strict';
import type { AttachmentReport } from '../../src/daemon/attachment.ts';
import { listLoops } from '../../native/loop.ts';
import { readMountTable } from '../../src/frontend/fuse/mount-table.ts';
import { CliProcess, type CliOptions } from './cli.ts';
import type { Scratch } from './scratch.ts';

/** The line that `attach --json` prints when the device can be used. */
export interface ReadyFacts {
  device: string;
  id: string;
  mode: 'off' | 'record' | 'replay';
  frontend: 'fuse' | 'nbd' | 'tcmu' | 'vhost-user';
  path: string;
  mount: string | null;
  control: string;
  virtualSizeBytes: number;
  readyMs: number;
}

/** An image that another process serves as a device. */
export class Attached {
  readonly process: CliProcess;
  readonly ready: ReadyFacts;

  private constructor(process: CliProcess, ready: ReadyFacts) {
    this.process = process;
    this.ready = ready;
  }

  /** Runs `replaybd attach --json ...` until its device is ready. */
  static async start(
    scratch: Scratch,
    args: readonly string[],
    options: CliOptions = {},
  ): Promise<Attached> {
    const process = new CliProcess(scratch, ['attach', '--json', ...args], options);
    return new Attached(process, JSON.parse(await process.line()) as ReadyFacts);
  }

  /** Ends it as Ctrl-C or a service manager would, and checks that it ends well. */
  async detach(signal: NodeJS.Signals = 'SIGTERM'): Promise<AttachmentReport> {
    this.process.kill(signal);
    return await this.report();
  }

  /** What it prints when it is detached, by whomever. */
  async report(): Promise<AttachmentReport> {
    const { code, stderr } = await this.process.ended;
    assert.equal(code, 0, stderr);
    return JSON.parse(await this.process.line()) as AttachmentReport;
  }

  /** As the kernel ends a process when memory is short. */
  async crash(): Promise<void> {
    this.process.kill('SIGKILL');
    await this.process.ended;
  }
}

/** What is mounted at or below any of some paths, and loop devices backed by files there. */
export function leftovers(...paths: string[]): string[] {
  const concerns = (file: string): boolean => {
    return paths.some((path) => file === path || file.startsWith(`${path}/`));
  };
  const mounts = readMountTable().filter(({ target }) => concerns(target));
  const loops = listLoops().filter(({ backingFile }) => concerns(backingFile));
  return [
    ...mounts.map(({ source, target }) => `${source} on ${target}`),
    ...loops.map(({ device, backingFile }) => `${device} of ${backingFile}`),
  ];
}
