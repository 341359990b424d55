import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Workload } from './definitions.ts';

/** A workload as directories for image layers, the bottom first, and its command line in the image. */
export interface WorkloadRootfs {
  readonly rootfs: readonly string[];
  readonly command: readonly string[];
}

/** The shell is the image's own: what a start needs beside it is busybox. */
const BASE_PACKAGES = ['busybox-static', 'ca-certificates'];

/**
 * As a container runtime does, with namespaces of its own: the image below, memory above. All that
 * the workload starts ends with the first process.
 */
const ENTER = `#!/bin/sh
set -e
mount -t tmpfs tmpfs /workload/memory
cd /workload/memory
mkdir upper work root
mount -t overlay -o lowerdir=/,upperdir=upper,workdir=work overlay root
cd root
mount -t proc proc proc
mount -t tmpfs tmpfs run
mount -t tmpfs tmpfs tmp
chmod 1777 tmp
exec chroot . /bin/sh -e /workload/start
`;

/**
 * Makes a workload's root file system: a minimal Debian by debootstrap (shared by all workloads) and,
 * as a layer above it, the workload's packages and set-up. Kept in `folder` and used again. Needs
 * root, debootstrap and the mirror that this machine's apt uses.
 */
export function makeWorkloadRootfs(workload: Workload, folder: string): WorkloadRootfs {
  mkdirSync(folder, { recursive: true });
  const base = join(folder, 'base');
  if (!existsSync(base)) makeBase(base);
  const upper = join(folder, workload.name);
  if (!existsSync(upper)) makeUpper(workload, base, upper);
  const enter = ['--mount', '--pid', '--fork', '--kill-child', '/workload/enter'];
  return { rootfs: [base, upper], command: ['/usr/bin/unshare', ...enter] };
}

function makeBase(base: string): void {
  const partial = `${base}.partial`;
  rmSync(partial, { recursive: true, force: true });
  const include = `--include=${BASE_PACKAGES.join(',')}`;
  run('debootstrap', ['--variant=minbase', include, codename(), partial, mirror()]);
  rmSync(join(partial, 'var/cache/apt/archives'), { recursive: true });
  renameSync(partial, base);
}

/** Installs into an overlay: what that writes is the layer. */
function makeUpper(workload: Workload, base: string, upper: string): void {
  const partial = `${upper}.partial`;
  const [merged, work] = [`${upper}.merged`, `${upper}.work`];
  for (const path of [partial, work]) {
    rmSync(path, { recursive: true, force: true });
    mkdirSync(path);
  }
  mkdirSync(merged, { recursive: true });
  // Nothing here has to survive a power cut: dpkg's many syncs would take minutes.
  const options = `lowerdir=${base},upperdir=${partial},workdir=${work},volatile`;
  const mounts = [merged, join(merged, 'proc'), join(merged, 'run'), join(merged, 'tmp')];
  run('mount', ['-t', 'overlay', '-o', options, 'overlay', merged]);
  try {
    run('mount', ['-t', 'proc', 'proc', mounts[1]]);
    for (const path of mounts.slice(2)) run('mount', ['-t', 'tmpfs', 'tmpfs', path]);
    mkdirSync(join(merged, 'workload/memory'), { recursive: true });
    writeFileSync(join(merged, 'workload/enter'), ENTER, { mode: 0o755 });
    writeFileSync(join(merged, 'workload/start'), `${workload.start.trim()}\n`);
    writeFileSync(join(merged, 'etc/resolv.conf'), readFileSync('/etc/resolv.conf'));
    // Services of packages are not started while they are installed.
    writeFileSync(join(merged, 'usr/sbin/policy-rc.d'), '#!/bin/sh\nexit 101\n', { mode: 0o755 });
    inImage(merged, 'apt-get update -qq');
    inImage(
      merged,
      `apt-get install -y -qq --no-install-recommends ${workload.packages.join(' ')}`,
    );
    inImage(merged, workload.setup);
    inImage(merged, 'apt-get clean; rm -rf /var/lib/apt/lists/* /usr/sbin/policy-rc.d');
  } finally {
    for (const path of mounts.reverse()) spawnSync('umount', ['-l', path]);
  }
  for (const path of [merged, work]) rmSync(path, { recursive: true });
  // What overlayfs marks as removed (a character device) stays: layers of images here only add.
  run('find', [partial, '-type', 'c', '-delete']);
  renameSync(partial, upper);
}

function inImage(folder: string, script: string): void {
  const env = {
    PATH: '/usr/sbin:/usr/bin:/sbin:/bin',
    DEBIAN_FRONTEND: 'noninteractive',
    HOME: '/tmp',
  };
  run('chroot', [folder, '/bin/sh', '-e', '-c', script], env);
}

/** The Debian mirror of this machine's apt. */
function mirror(): string {
  const sites = run('apt-get', ['indextargets', '--format', '$(SITE)', 'Created-By: Packages']);
  const site = sites.split('\n').find((url) => /\/debian\/?$/.test(url));
  if (site === undefined) throw new Error('apt is set up with no mirror of Debian');
  return site;
}

function codename(): string {
  const found = /^VERSION_CODENAME=(\w+)$/m.exec(readFileSync('/etc/os-release', 'utf8'));
  if (found === null) throw new Error('/etc/os-release names no release of Debian');
  return found[1];
}

function run(command: string, args: readonly string[], env = process.env): string {
  const result = spawnSync(command, args, { encoding: 'utf8', env, maxBuffer: 2 ** 28 });
  if (result.status === 0) return result.stdout;
  const reason = result.error?.message ?? `${result.stdout}\n${result.stderr}`.slice(-2000);
  throw new Error(`${command} ${args.join(' ').slice(0, 200)}: ${reason}`);
}
