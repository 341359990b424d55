import assert from 'node:assert/strict';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { packageRoot } from '../../src/base/package-root.ts';
import { needs } from '../support/needs.ts';
import { makeInitramfs, makeRootDiskInitramfs } from './initramfs.ts';
import { guestKernel } from './kernel.ts';
import { boot, findAccelerator, QEMU, type GuestConsole } from './qemu.ts';

/** Machines that do much else may need more than five minutes. */
const JOB_MS_MAX = Number(process.env.REPLAYBD_GUEST_SECONDS ?? '900') * 1000;
/** A guest is ended, and its log printed, before its test is. */
const TEST_MS_MAX = JOB_MS_MAX + 60_000;
const HOST_FILES = 'local,path=/,mount_tag=host,security_model=none,readonly=on,multidevs=remap';

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
  /** Run by the host's systemd, as a service; the guest's files can then be changed, in memory. */
  isService?: boolean;
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
  const command = {
    command: [process.execPath, '--disable-warning=ExperimentalWarning', file, ...(job.args ?? [])],
    cwd: packageRoot,
    modules: job.modules,
    env: {
      PATH: '/usr/sbin:/usr/bin:/sbin:/bin',
      REPLAYBD_TEST_MAIN: join(packageRoot, 'dist/src/cli/main.js'),
    },
    isService: job.isService === true,
  };
  const log = await boot({
    kernel,
    accelerator: await findAccelerator(kernel),
    initramfs: makeInitramfs(kernel, command),
    msMax: JOB_MS_MAX,
    ...(job.memoryMiB === undefined ? {} : { memoryMiB: job.memoryMiB }),
    devices: ['-virtfs', HOST_FILES, ...(job.qemu ?? [])],
  });
  const [printed = ''] = log.split('GUEST-KERNEL-LOG');
  if (!/^GUEST-EXIT 0$/m.test(log)) throw new Error(`guest job ${job.name} failed:\n${log}`);
  return printed;
}

export interface RootDiskGuest {
  memoryMiB: number;
  /** For QEMU: the disk, which the guest sees as /dev/vda. */
  qemu: readonly string[];
  /** Sits at the console, and turns the guest off at the end. */
  user: (console: GuestConsole) => Promise<void>;
}

/**
 * Boots a guest whose root file system is /dev/vda, and which has nothing else. Returns all that it
 * printed; fails with that when its user fails, or when the guest is not off in time.
 */
export async function runRootDiskGuest(guest: RootDiskGuest): Promise<string> {
  const kernel = guestKernel();
  assert.ok(kernel !== null);
  const log = await boot({
    kernel,
    accelerator: await findAccelerator(kernel),
    initramfs: makeRootDiskInitramfs(kernel),
    msMax: JOB_MS_MAX,
    memoryMiB: guest.memoryMiB,
    devices: guest.qemu,
    user: guest.user,
  });
  if (log.includes('\n(ended: ')) throw new Error(`the guest did not end well:\n${log}`);
  return log;
}
