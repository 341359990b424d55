import { ok, problem, warning, type Finding } from './finding.ts';
import type { SystemView } from './system-view.ts';

/** A part of the kernel that may be a module. */
export interface KernelPart {
  module: string;
  /** Its name in the kernel's configuration. */
  option: string;
  /** Its name in /proc/filesystems, if it is a file system. */
  fileSystem?: string;
  /** What cannot be done without it. */
  serves: string;
}

export const KERNEL_PARTS: readonly KernelPart[] = [
  { module: 'fuse', option: 'CONFIG_FUSE_FS', fileSystem: 'fuse', serves: '--frontend fuse' },
  { module: 'loop', option: 'CONFIG_BLK_DEV_LOOP', serves: '--frontend fuse' },
  { module: 'target_core_user', option: 'CONFIG_TCM_USER2', serves: '--frontend tcmu' },
  { module: 'tcm_loop', option: 'CONFIG_LOOPBACK_TARGET', serves: '--frontend tcmu' },
  { module: 'sd_mod', option: 'CONFIG_BLK_DEV_SD', serves: '--frontend tcmu' },
  { module: 'ext4', option: 'CONFIG_EXT4_FS', fileSystem: 'ext4', serves: 'mounting ext4 images' },
  {
    module: 'erofs',
    option: 'CONFIG_EROFS_FS',
    fileSystem: 'erofs',
    serves: 'mounting erofs images',
  },
];

/** 'ready': in the kernel now. 'loadable': modprobe will do. */
export type PartState = 'ready' | 'loadable' | 'absent' | 'unknown';

/** Whether the running kernel has a part, from what it tells and from what lies in /lib/modules. */
export function partState(system: SystemView, part: KernelPart): PartState {
  const { module, option, fileSystem } = part;
  if (system.access(`/sys/module/${module}`, 'read') === 'ok') return 'ready';
  if (fileSystem !== undefined) {
    const known = system.readText('/proc/filesystems') ?? '';
    if (new RegExp(`\\t${fileSystem}$`, 'm').test(known)) return 'ready';
  }
  const folder = `/lib/modules/${system.kernelRelease}`;
  const file = new RegExp(`/${module.replaceAll('_', '[_-]')}\\.ko(\\.\\w+)?(:|$)`, 'm');
  if (file.test(system.readText(`${folder}/modules.builtin`) ?? '')) return 'ready';
  const dependencies = system.readText(`${folder}/modules.dep`);
  if (dependencies !== null && file.test(dependencies)) return 'loadable';
  const config =
    system.readText('/proc/config.gz') ?? system.readText(`/boot/config-${system.kernelRelease}`);
  const set = config === null ? null : new RegExp(`^${option}=(y|m)$`, 'm').exec(config);
  if (set?.[1] === 'y') return 'ready';
  // A module that was configured, but whose file is not here, cannot be loaded.
  return config === null && dependencies === null ? 'unknown' : 'absent';
}

/** `isNeeded`: without it, it is a problem. */
export function checkPart(system: SystemView, part: KernelPart, isNeeded: boolean): Finding {
  const { module, option, serves } = part;
  const name = `module.${module}`;
  const state = partState(system, part);
  if (state === 'ready') return ok(name, 'in the kernel');
  const lacking = isNeeded ? problem : warning;
  const load = `modprobe ${module}, and at every start: echo ${module} >> /etc/modules-load.d/replaybd.conf`;
  if (state === 'loadable') {
    return lacking(name, 'not loaded', `${serves} does not work until it is loaded`, load);
  }
  if (state === 'unknown') {
    const found = 'not loaded, and this kernel does not say whether it could be';
    return lacking(name, found, `${serves} may not work`, load);
  }
  return lacking(
    name,
    `not part of kernel ${system.kernelRelease}`,
    `${serves} does not work`,
    `run a kernel with ${option}; distributions' kernels for clouds often lack it, their general ones ` +
      'have it (Debian: linux-image-amd64; Ubuntu: linux-modules-extra-$(uname -r))',
  );
}
