import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { packageRoot } from '../../src/base/package-root.ts';
import { needs } from '../support/needs.ts';
import { makeInitramfs, type GuestCommand } from './initramfs.ts';
import { guestFolder, guestKernel, type GuestKernel } from './kernel.ts';

const QEMU = 'qemu-system-x86_64';
/** Machines that do much else may need more than five minutes. */
const JOB_MS_MAX = Number(process.env.REPLAYBD_GUEST_SECONDS ?? '300') * 1000;
/** A guest is ended, and its log printed, before its test is. */
const TEST_MS_MAX = JOB_MS_MAX + 60_000;
const PROBE_MS_MAX = 10_000;
const MEMORY_MIB = 1536;
/** cmpxchg16b of QEMU's own emulation makes some kernels fail; nothing here needs it. */
const EMULATED_CPU = 'max,-cx16';

type Accelerator = 'kvm' | 'tcg';

export interface GuestJob {
  /** A file of test/guest/jobs, without .ts. */
  name: string;
  /** Kernel modules the job needs. */
  modules: readonly string[];
  /** Arguments of the job; files of the host that it is to read, for example. */
  args?: readonly string[];
  memoryMiB?: number;
  /** For QEMU: devices of this job alone. */
  qemu?: readonly string[];
}

/** The options of a test that runs a guest job, which needs these programs. */
export function inGuest(...programs: string[]): { skip: string | false; timeout: number } {
  return { skip: needsGuest(...programs), timeout: TEST_MS_MAX };
}

function needsGuest(...programs: string[]): string | false {
  const lacking = needs(QEMU, 'busybox', 'modprobe', ...programs);
  if (lacking !== false) return lacking;
  return guestKernel() === null ? 'needs a guest kernel: sh test/guest/fetch-kernel.sh' : false;
}

/**
 * Boots a guest that sees the host's files read-only, runs a job of test/guest/jobs in it under this
 * Node, and returns what the job printed. Fails, with all that the guest printed, when the job does
 * not succeed in time.
 */
export async function runGuestJob(job: GuestJob): Promise<string> {
  const kernel = guestKernel();
  assert.ok(kernel !== null);
  const file = fileURLToPath(new URL(`./jobs/${job.name}.ts`, import.meta.url));
  const guestCommand = {
    command: [process.execPath, '--disable-warning=ExperimentalWarning', file, ...(job.args ?? [])],
    cwd: packageRoot,
    modules: job.modules,
    env: {
      PATH: '/usr/sbin:/usr/bin:/sbin:/bin',
      REPLAYBD_TEST_MAIN: join(packageRoot, 'dist/src/cli/main.js'),
    },
  };
  const chosen = await accelerator(kernel);
  const log = await boot(kernel, chosen, JOB_MS_MAX, job.memoryMiB, guestCommand, job.qemu);
  const [printed = ''] = log.split('GUEST-KERNEL-LOG');
  if (!/^GUEST-EXIT 0$/m.test(log)) throw new Error(`guest job ${job.name} failed:\n${log}`);
  return printed;
}

/** All that a guest prints on its console until it ends or is ended. */
async function boot(
  kernel: GuestKernel,
  accelerator: Accelerator,
  msMax: number,
  memoryMiB = MEMORY_MIB,
  command: GuestCommand | null = null,
  devices: readonly string[] = [],
): Promise<string> {
  const folder = mkdtempSync(join(tmpdir(), 'replaybd-guest-'));
  try {
    const initrd = join(folder, 'initrd');
    writeFileSync(initrd, makeInitramfs(kernel, command));
    const args = qemuArguments(kernel, accelerator, initrd, memoryMiB);
    const guest = spawn(QEMU, [...args, ...devices], {
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    let log = '';
    for (const stream of [guest.stdout, guest.stderr]) {
      stream.setEncoding('utf8').on('data', (text: string) => {
        log += text.replaceAll('\r', '');
      });
    }
    const timer = setTimeout(() => {
      log += `\n(ended after ${msMax} ms)\n`;
      guest.kill('SIGKILL');
    }, msMax);
    await once(guest, 'close');
    clearTimeout(timer);
    return log;
  } finally {
    rmSync(folder, { recursive: true });
  }
}

function qemuArguments(
  kernel: GuestKernel,
  accelerator: Accelerator,
  initrd: string,
  memoryMiB: number,
): string[] {
  const cpu = accelerator === 'kvm' ? 'host' : EMULATED_CPU;
  return [
    ...['-machine', 'q35', '-accel', accelerator === 'tcg' ? 'tcg,thread=multi' : 'kvm'],
    ...['-cpu', cpu, '-m', String(memoryMiB), '-smp', '2'],
    ...['-nographic', '-no-reboot', '-nodefaults', '-serial', 'stdio'],
    ...['-kernel', kernel.image, '-initrd', initrd],
    ...['-append', 'console=ttyS0 panic=-1 quiet'],
    '-virtfs',
    'local,path=/,mount_tag=host,security_model=none,readonly=on,multidevs=remap',
  ];
}

/**
 * KVM where it runs this kernel: that /dev/kvm exists does not say so. Found out once per boot of
 * the host; REPLAYBD_GUEST_ACCEL=tcg or kvm decides it otherwise.
 */
async function accelerator(kernel: GuestKernel): Promise<Accelerator> {
  const wanted = process.env.REPLAYBD_GUEST_ACCEL;
  if (wanted === 'kvm' || wanted === 'tcg') return wanted;
  if (!existsSync('/dev/kvm')) return 'tcg';
  const bootId = readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim();
  const known = join(guestFolder, 'accelerator', bootId);
  if (existsSync(known)) return readFileSync(known, 'utf8') === 'kvm' ? 'kvm' : 'tcg';
  const log = await boot(kernel, 'kvm', PROBE_MS_MAX);
  const found = /^GUEST-EXIT 0$/m.test(log) ? 'kvm' : 'tcg';
  mkdirSync(join(guestFolder, 'accelerator'), { recursive: true });
  writeFileSync(known, found);
  return found;
}
