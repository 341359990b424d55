import { readFileSync } from 'node:fs';
import { basename } from 'node:path';
import { moduleFiles, type GuestKernel } from './kernel.ts';

const ALIGNMENT = 4;
const MODE_FILE = 0o100755;
const MODE_FOLDER = 0o040755;
const BUSYBOX = '/bin/busybox';

/** What a guest needs before it can see the host's files. */
const BOOT_MODULES = ['virtio_pci', '9pnet_virtio', '9p'];
const FOLDERS = ['bin', 'proc', 'sys', 'dev', 'host', 'modules'];

/** What the guest runs. */
export interface GuestCommand {
  /** Program and arguments, run with the host's root directory as theirs. */
  command: readonly string[];
  cwd: string;
  /** Kernel modules that are loaded before. */
  modules: readonly string[];
  env: Readonly<Record<string, string>>;
}

/**
 * A first file system (cpio, "newc"): busybox, the modules that mount the host's root directory
 * read-only through 9p, and a script that runs the command there and prints how it ended.
 */
export function makeInitramfs(kernel: GuestKernel, command: GuestCommand | null): Buffer {
  const archive = new CpioArchive();
  for (const folder of FOLDERS) archive.addFolder(folder);
  archive.addFile('bin/busybox', readFileSync(BUSYBOX));
  const insmods = moduleFiles(kernel, command === null ? [] : BOOT_MODULES).map((file) => {
    archive.addFile(`modules/${basename(file)}`, readFileSync(file));
    return `insmod /modules/${basename(file)}`;
  });
  const steps = command === null ? [] : [...insmods, ...hostSteps(kernel, command)];
  archive.addFile('init', Buffer.from(initScript(steps)));
  return archive.end();
}

function initScript(steps: readonly string[]): string {
  return [
    '#!/bin/busybox sh',
    '/bin/busybox --install -s /bin',
    'export PATH=/usr/sbin:/usr/bin:/sbin:/bin',
    'mount -t proc proc /proc',
    'mount -t sysfs sys /sys',
    'mount -t devtmpfs dev /dev',
    'status=0',
    ...steps,
    'echo "GUEST-EXIT $status"',
    'poweroff -f',
    '',
  ].join('\n');
}

function hostSteps(kernel: GuestKernel, { command, cwd, modules, env }: GuestCommand): string[] {
  const variables = Object.entries({ ...env, TMPDIR: '/run/tmp', HOME: '/run/home' });
  const script = [
    `cd ${quote(cwd)}`,
    ...modules.map((name) => `modprobe -d ${quote(kernel.folder)} ${quote(name)}`),
    'mount -t configfs configfs /sys/kernel/config',
    'dmesg --clear',
    ...variables.map(([name, value]) => `export ${name}=${quote(value)}`),
    `exec ${command.map(quote).join(' ')}`,
  ].join('\n');
  return [
    'mount -t 9p -o ro,trans=virtio,version=9p2000.L,msize=524288,cache=loose host /host || status=97',
    'for dir in proc sys dev; do mount --rbind /$dir /host/$dir; done',
    'mount -t tmpfs tmpfs /host/run',
    'mkdir -p /host/run/tmp /host/run/home',
    'ip link set lo up',
    `[ $status = 0 ] && { chroot /host /bin/sh -c ${quote(script)}; status=$?; }`,
    'sync',
    // What a device of the guest had to complain about is often in the kernel's log alone.
    'echo GUEST-KERNEL-LOG; dmesg | tail -n 80',
  ];
}

function quote(text: string): string {
  return `'${text.replaceAll("'", "'\\''")}'`;
}

/** Writes a cpio archive in the "newc" format, which the kernel unpacks. */
class CpioArchive {
  readonly #parts: Buffer[] = [];
  #lengthBytes = 0;
  #inode = 0;

  addFolder(name: string): void {
    this.#add(name, MODE_FOLDER, Buffer.alloc(0));
  }

  addFile(name: string, content: Buffer): void {
    this.#add(name, MODE_FILE, content);
  }

  end(): Buffer {
    this.#add('TRAILER!!!', 0, Buffer.alloc(0));
    return Buffer.concat(this.#parts);
  }

  #add(name: string, mode: number, content: Buffer): void {
    this.#inode += 1;
    const nameBytes = Buffer.byteLength(name) + 1;
    // inode, mode, uid, gid, links, mtime, size, device and special device twice each, name, check.
    const fields = [this.#inode, mode, 0, 0, 1, 0, content.length, 0, 0, 0, 0, nameBytes, 0];
    const header = fields.map((field) => field.toString(16).padStart(8, '0')).join('');
    this.#append(Buffer.from(`070701${header}${name}\0`));
    this.#append(content);
  }

  #append(bytes: Buffer): void {
    this.#lengthBytes += bytes.length;
    const padding = (ALIGNMENT - (this.#lengthBytes % ALIGNMENT)) % ALIGNMENT;
    this.#lengthBytes += padding;
    this.#parts.push(bytes, Buffer.alloc(padding));
  }
}
