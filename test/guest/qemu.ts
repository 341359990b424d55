import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Writable } from 'node:stream';
import { makeInitramfs } from './initramfs.ts';
import { guestFolder, type GuestKernel } from './kernel.ts';

export const QEMU = 'qemu-system-x86_64';
const PROBE_MS_MAX = 10_000;
const MEMORY_MIB = 1536;
/** cmpxchg16b of QEMU's own emulation makes some kernels fail; nothing here needs it. */
const EMULATED_CPU = 'max,-cx16';
/**
 * Emulated processors keep each other busy: where the host has two, a guest with two takes 1.4 times the
 * processor time of a guest with one. A job that wants two asks for them (`-smp 2`).
 */
const PROCESSORS = { kvm: 2, tcg: 1 } as const;
/** A guest that is not scheduled for a while would find its timer broken, and panic. */
const KERNEL_PARAMETERS = 'console=ttyS0 panic=-1 quiet no_timer_check';

export type Accelerator = 'kvm' | 'tcg';

export interface Boot {
  kernel: GuestKernel;
  accelerator: Accelerator;
  initramfs: Buffer;
  msMax: number;
  memoryMiB?: number;
  /** For QEMU: devices of this guest alone. */
  devices?: readonly string[];
  /** Who sits at the guest's console; a guest whose user fails is ended. */
  user?: (console: GuestConsole) => Promise<void>;
}

/** A guest's serial line. */
export class GuestConsole {
  /** All that the guest has printed. */
  log = '';
  readonly #input: Writable;
  #seen = 0;
  #wake: () => void = () => undefined;
  #isOver = false;

  constructor(input: Writable) {
    this.#input = input;
    // A guest that ends while it is typed to has closed this.
    input.on('error', () => undefined);
  }

  /**
   * Waits for `text` behind what was waited for before, and returns what is between them. Rejects
   * when the guest ends first.
   */
  async until(text: string): Promise<string> {
    for (;;) {
      const at = this.log.indexOf(text, this.#seen);
      if (at >= 0) {
        const between = this.log.slice(this.#seen, at);
        this.#seen = at + text.length;
        return between;
      }
      if (this.#isOver) throw new Error(`the guest ended without saying ${JSON.stringify(text)}`);
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
    }
  }

  type(line: string): void {
    this.#input.write(`${line}\n`);
  }

  add(text: string): void {
    this.log += text.replaceAll('\r', '');
    this.#wake();
  }

  end(): void {
    this.#isOver = true;
    this.#wake();
  }
}

/** All that a guest prints on its console until it ends or is ended. */
export async function boot(options: Boot): Promise<string> {
  const folder = mkdtempSync(join(tmpdir(), 'replaybd-guest-'));
  try {
    const initrd = join(folder, 'initrd');
    writeFileSync(initrd, options.initramfs);
    return await runGuest(options, initrd);
  } finally {
    rmSync(folder, { recursive: true });
  }
}

async function runGuest(options: Boot, initrd: string): Promise<string> {
  const args = [...qemuArguments(options, initrd), ...(options.devices ?? [])];
  const guest = spawn(QEMU, args, { stdio: 'pipe' });
  const console = new GuestConsole(guest.stdin);
  for (const stream of [guest.stdout, guest.stderr]) {
    stream.setEncoding('utf8').on('data', (text: string) => console.add(text));
  }
  const end = (why: string): void => {
    console.add(`\n(ended: ${why})\n`);
    guest.kill('SIGKILL');
  };
  const timer = setTimeout(() => end(`it took more than ${options.msMax} ms`), options.msMax);
  const closed = once(guest, 'close').then(() => console.end());
  const used = options.user?.(console).catch((error: unknown) => end(String(error)));
  await Promise.all([closed, used]);
  clearTimeout(timer);
  return console.log;
}

function qemuArguments(options: Boot, initrd: string): string[] {
  const { kernel, accelerator, memoryMiB = MEMORY_MIB } = options;
  const cpu = accelerator === 'kvm' ? 'host' : EMULATED_CPU;
  return [
    ...['-machine', 'q35', '-accel', accelerator === 'tcg' ? 'tcg,thread=multi' : 'kvm'],
    ...['-cpu', cpu, '-m', String(memoryMiB)],
    ...['-smp', String(PROCESSORS[accelerator])],
    ...['-nographic', '-no-reboot', '-nodefaults', '-serial', 'stdio'],
    ...['-kernel', kernel.image, '-initrd', initrd],
    ...['-append', KERNEL_PARAMETERS],
  ];
}

/**
 * KVM where it runs this kernel: that /dev/kvm exists does not say so. Found out once per boot of
 * the host; REPLAYBD_GUEST_ACCEL=tcg or kvm decides it otherwise.
 */
export async function findAccelerator(kernel: GuestKernel): Promise<Accelerator> {
  const wanted = process.env.REPLAYBD_GUEST_ACCEL;
  if (wanted === 'kvm' || wanted === 'tcg') return wanted;
  if (!existsSync('/dev/kvm')) return 'tcg';
  const bootId = readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim();
  const known = join(guestFolder, 'accelerator', bootId);
  if (existsSync(known)) return readFileSync(known, 'utf8') === 'kvm' ? 'kvm' : 'tcg';
  const initramfs = makeInitramfs(kernel, null);
  const log = await boot({ kernel, accelerator: 'kvm', initramfs, msMax: PROBE_MS_MAX });
  const found = /^GUEST-EXIT 0$/m.test(log) ? 'kvm' : 'tcg';
  mkdirSync(join(guestFolder, 'accelerator'), { recursive: true });
  writeFileSync(known, found);
  return found;
}
