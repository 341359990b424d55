import { mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { TcmuEvents } from '../../src/frontend/tcmu/kernel/monitor.ts';
import type { TcmuEvent, TcmuEventKind } from '../../src/frontend/tcmu/kernel/tcmu-family.ts';

export interface FakeDevice {
  minor: number;
  hba?: number;
  folder?: string;
  /** What stands in dev_config. */
  config: string;
}

/** A kernel's files and events, as far as whoever follows TCMU devices looks at them. */
export class FakeTcmu implements TcmuEvents {
  readonly root: string;
  /** What was answered, in order: kind, device index and status. */
  readonly answers: [TcmuEventKind, number, number][] = [];
  readonly #waiting: (TcmuEvent | Error)[] = [];
  #onEvents: (() => void) | null = null;
  #onAnswer: () => void = () => undefined;
  isClosed = false;

  /** `root` stands for /sys. */
  constructor(root: string, isLoaded = true) {
    this.root = root;
    mkdirSync(join(root, 'class', 'uio'), { recursive: true });
    if (isLoaded) this.load();
  }

  /** As modprobe target_core_user. */
  load(): void {
    const parameters = join(this.root, 'module', 'target_core_user', 'parameters');
    mkdirSync(parameters, { recursive: true });
    for (const name of ['block_netlink', 'reset_netlink'])
      writeFileSync(join(parameters, name), '');
  }

  /** The files of a device; its index is 100 more than its number. */
  make(device: FakeDevice): void {
    const statistics = join(this.#folderOf(device), 'statistics', 'scsi_dev');
    mkdirSync(statistics, { recursive: true });
    writeFileSync(join(statistics, 'indx'), `${device.minor + 100}\n`);
    mkdirSync(this.#uioOf(device), { recursive: true });
    writeFileSync(join(this.#uioOf(device), 'name'), `${nameOf(device)}\n`);
  }

  removeFolder(device: FakeDevice): void {
    rmSync(this.#folderOf(device), { recursive: true });
  }

  removeUio(device: FakeDevice): void {
    rmSync(this.#uioOf(device), { recursive: true });
  }

  tell(kind: TcmuEventKind, device: FakeDevice, change: TcmuEvent['change'] = {}): void {
    const { minor } = device;
    this.#waiting.push({ kind, deviceIndex: minor + 100, minor, name: nameOf(device), change });
    this.#onEvents?.();
  }

  /** Events were lost: the socket says so, once. */
  lose(): void {
    this.#waiting.push(new Error('ENOBUFS'));
    this.#onEvents?.();
  }

  /** Resolves when so many answers were given. */
  async answered(count: number): Promise<void> {
    while (this.answers.length < count) {
      await new Promise<void>((resolve) => {
        this.#onAnswer = resolve;
      });
    }
  }

  listen(): void {
    this.#onEvents = null;
  }

  watch(onEvents: () => void): { close: () => void } {
    this.#onEvents = onEvents;
    return { close: () => (this.#onEvents = null) };
  }

  receive(): { events: TcmuEvent[]; refusals: number[] } | null {
    const next = this.#waiting.shift();
    if (next instanceof Error) throw next;
    return next === undefined ? null : { events: [next], refusals: [] };
  }

  answer(kind: TcmuEventKind, deviceIndex: number, status: number): void {
    this.answers.push([kind, deviceIndex, status]);
    this.#onAnswer();
  }

  close(): void {
    this.isClosed = true;
  }

  #folderOf({ hba = 999_999_999, folder, minor }: FakeDevice): string {
    const core = join(this.root, 'kernel', 'config', 'target', 'core');
    return join(core, `user_${hba}`, folder ?? `dev_${minor}`);
  }

  #uioOf({ minor }: FakeDevice): string {
    return join(this.root, 'class', 'uio', `uio${minor}`);
  }
}

function nameOf({ hba = 999_999_999, folder, minor, config }: FakeDevice): string {
  return `tcm-user/${hba}/${folder ?? `dev_${minor}`}/${config}`;
}
