import { readFileSync } from 'node:fs';
import { basename } from 'node:path';
import { moduleFiles, type GuestKernel } from './kernel.ts';

const ALIGNMENT = 4;
const MODE_FILE = 0o100755;
const MODE_FOLDER = 0o040755;
const BUSYBOX = '/bin/busybox';

/** What a guest needs before it can see the host's files. */
const BOOT_MODULES = ['virtio_pci', '9pnet_virtio', '9p'];
const SERVICE_MODULES = [...BOOT_MODULES, 'overlay'];
const ROOT_DISK_MODULES = ['virtio_pci', 'virtio_blk', 'crc32c_generic', 'ext4'];
/** The last ones are where the kernel's target core writes down persistent reservations. */
const FOLDERS = [
  ...['bin', 'proc', 'sys', 'dev', 'host', 'modules', 'root', 'changes'],
  ...['var', 'var/target', 'var/target/pr'],
];
const MOUNT_HOST =
  'mount -t 9p -o ro,trans=virtio,version=9p2000.L,msize=524288,cache=loose host /host';
/** What a device of the guest had to complain about is often in the kernel's log alone. */
const PRINT_KERNEL_LOG = 'echo GUEST-KERNEL-LOG; dmesg | tail -n 80';
/** Changing a terminal's settings waits until all that was printed has left; turning off does not. */
const DRAIN_CONSOLE = 'stty -echo < /dev/console';

/** What the guest runs. */
export interface GuestCommand {
  /** Program and arguments, run with the host's root directory as theirs. */
  command: readonly string[];
  cwd: string;
  /** Kernel modules that are loaded before. */
  modules: readonly string[];
  env: Readonly<Record<string, string>>;
  /** PID 1 is the host's systemd, over a copy of the host's root directory that can be changed. */
  isService: boolean;
}

/**
 * A first file system (cpio, "newc"): busybox, the modules that mount the host's root directory
 * read-only through 9p, and a script that runs the command there and prints how it ended.
 */
export function makeInitramfs(kernel: GuestKernel, command: GuestCommand | null): Buffer {
  if (command === null) return pack(kernel, [], ['status=0', ...endSteps()]);
  if (command.isService) return pack(kernel, SERVICE_MODULES, serviceSteps(kernel, command));
  return pack(kernel, BOOT_MODULES, [...hostSteps(kernel, command), ...endSteps()]);
}

/** One that goes over to the file system of /dev/vda, and whatever is its /sbin/init. */
export function makeRootDiskInitramfs(kernel: GuestKernel): Buffer {
  const steps = ['mount -t ext4 /dev/vda /root', ...switchRoot('/sbin/init')];
  return pack(kernel, ROOT_DISK_MODULES, steps);
}

function pack(kernel: GuestKernel, modules: readonly string[], steps: readonly string[]): Buffer {
  const archive = new CpioArchive();
  for (const folder of FOLDERS) archive.addFolder(folder);
  archive.addFile('bin/busybox', readFileSync(BUSYBOX));
  const insmods = moduleFiles(kernel, modules).map((file) => {
    archive.addFile(`modules/${basename(file)}`, readFileSync(file));
    return `insmod /modules/${basename(file)}`;
  });
  archive.addFile('init', Buffer.from(initScript([...insmods, ...steps])));
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
    ...steps,
    '',
  ].join('\n');
}

function endSteps(): string[] {
  return ['echo "GUEST-EXIT $status"', DRAIN_CONSOLE, 'poweroff -f'];
}

function switchRoot(init: string): string[] {
  return ['umount /proc /sys', 'mount --move /dev /root/dev', `exec switch_root /root ${init}`];
}

function hostSteps(kernel: GuestKernel, command: GuestCommand): string[] {
  const script = [
    ...command.modules.map((name) => `modprobe -d ${quote(kernel.folder)} ${quote(name)}`),
    'mount -t configfs configfs /sys/kernel/config',
    ...commandSteps(command),
  ].join('\n');
  return [
    'status=0',
    `${MOUNT_HOST} || status=97`,
    'for dir in proc sys dev; do mount --rbind /$dir /host/$dir; done',
    'mount -t tmpfs tmpfs /host/run',
    'mkdir -p /host/run/tmp /host/run/home',
    'ip link set lo up',
    `[ $status = 0 ] && { chroot /host /bin/sh -c ${quote(script)}; status=$?; }`,
    'sync',
    PRINT_KERNEL_LOG,
  ];
}

/** The guest's own kernel modules are where modprobe looks for them; the host's mounts are not its. */
function serviceSteps(kernel: GuestKernel, command: GuestCommand): string[] {
  const script = [
    'exec >/dev/console 2>&1',
    'mkdir -p /run/tmp /run/home',
    ...command.modules.map((name) => `modprobe ${quote(name)}`),
    `(${commandSteps(command).join('\n')})`,
    'status=$?',
    PRINT_KERNEL_LOG,
    'echo "GUEST-EXIT $status"',
    DRAIN_CONSOLE,
    'systemctl poweroff -ff',
  ].join('\n');
  const unit = [
    '[Unit]\nDefaultDependencies=no\nRequires=sysinit.target\nAfter=sysinit.target',
    '[Service]\nType=exec\nExecStart=/bin/sh /etc/guest-job',
  ].join('\n');
  const target = '[Unit]\nRequires=guest-job.service\nAllowIsolate=yes';
  const units = '/root/etc/systemd/system';
  const modules = `lib/modules/${kernel.release}`;
  return [
    MOUNT_HOST,
    'mount -t tmpfs -o mode=755 changes /changes',
    'mkdir /changes/upper /changes/work',
    'mount -t overlay -o lowerdir=/host,upperdir=/changes/upper,workdir=/changes/work root /root',
    'mkdir -p /root/usr/lib/modules',
    `ln -s ${quote(`${kernel.folder}/${modules}`)} /root/usr/${modules}`,
    ': > /root/etc/fstab',
    // A host that is a container says so here, and systemd would take the guest for one.
    'rm -f /root/.dockerenv',
    `echo ${quote(script)} > /root/etc/guest-job`,
    `echo ${quote(unit)} > ${units}/guest-job.service`,
    `echo ${quote(target)} > ${units}/guest-job.target`,
    `ln -sf guest-job.target ${units}/default.target`,
    // It would empty /tmp, where the checkout may be, and copy all of that up first.
    `ln -sf /dev/null ${units}/systemd-tmpfiles-setup.service`,
    'mkdir -p /root/etc/systemd/system.conf.d',
    "printf '[Manager]\\nShowStatus=no\\n' > /root/etc/systemd/system.conf.d/guest.conf",
    ...switchRoot('/lib/systemd/systemd'),
  ];
}

function commandSteps({ command, cwd, env }: GuestCommand): string[] {
  const variables = Object.entries({ ...env, TMPDIR: '/run/tmp', HOME: '/run/home' });
  return [
    `cd ${quote(cwd)}`,
    'dmesg --clear',
    ...variables.map(([name, value]) => `export ${name}=${quote(value)}`),
    `exec ${command.map(quote).join(' ')}`,
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
