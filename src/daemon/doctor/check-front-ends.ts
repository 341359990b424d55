import { ok, problem, warning, type Finding } from './finding.ts';
import { checkPart, KERNEL_PARTS, type KernelPart } from './kernel-modules.ts';
import type { SystemView } from './system-view.ts';

/** How a guest may reach a device; only the first two need anything of this kernel. */
export const FRONT_ENDS = ['fuse', 'tcmu', 'nbd', 'vhost-user'] as const;

export type FrontEndName = (typeof FRONT_ENDS)[number];

const CONFIGFS = '/sys/kernel/config';
const CAP_SYS_ADMIN = 21n;
const CAP_NET_ADMIN = 12n;

/** `wanted`: front ends that must work; without any, one of FUSE and TCMU must. */
export function checkFrontEnds(system: SystemView, wanted: readonly FrontEndName[]): Finding[] {
  const fuse = fuseFindings(system, wanted.includes('fuse'));
  const tcmu = tcmuFindings(system, wanted.includes('tcmu'));
  const others = partsFor('mounting').map((part) => checkPart(system, part, false));
  const findings = [...fuse, ...tcmu, ...others, checkOriginalDaemon(system)];
  if (wanted.length > 0) return findings;
  const working = [isClean(fuse) ? 'FUSE' : '', isClean(tcmu) ? 'TCMU' : ''].filter(Boolean);
  return [...findings, summary(working)];
}

function summary(working: readonly string[]): Finding {
  if (working.length > 0) return ok('front-ends', `${working.join(' and ')} can be used`);
  return problem(
    'front-ends',
    'neither FUSE nor TCMU can be used',
    'no image becomes a block device of this host; --frontend nbd and vhost-user work',
    'do what is said above for one of them',
  );
}

function isClean(findings: readonly Finding[]): boolean {
  return findings.every(({ level }) => level === 'ok');
}

function partsFor(use: string): KernelPart[] {
  return KERNEL_PARTS.filter(({ serves }) => serves.includes(use));
}

function fuseFindings(system: SystemView, isNeeded: boolean): Finding[] {
  return [
    ...partsFor('fuse').map((part) => checkPart(system, part, isNeeded)),
    checkDevice(system, '/dev/fuse', 'fuse', isNeeded),
    checkDevice(system, '/dev/loop-control', 'loop', isNeeded),
    checkCapability(system, 'CAP_SYS_ADMIN', CAP_SYS_ADMIN, '--frontend fuse', isNeeded),
  ];
}

function tcmuFindings(system: SystemView, isNeeded: boolean): Finding[] {
  return [
    ...partsFor('tcmu').map((part) => checkPart(system, part, isNeeded)),
    checkConfigfs(system, isNeeded),
    checkCapability(system, 'CAP_NET_ADMIN', CAP_NET_ADMIN, '--frontend tcmu', isNeeded),
  ];
}

export function checkDevice(
  system: SystemView,
  path: string,
  module: string,
  isNeeded: boolean,
): Finding {
  const name = `device.${path}`;
  const state = system.access(path, 'use');
  if (state === 'ok') return ok(name, 'may be opened');
  const lacking = isNeeded ? problem : warning;
  const meaning = '--frontend fuse does not work';
  if (state === 'denied') {
    return lacking(name, 'may not be opened', meaning, 'run as root, or give this user access');
  }
  const fix = `modprobe ${module}; in a container: pass the device in (--device ${path})`;
  return lacking(name, 'does not exist', meaning, fix);
}

export function checkConfigfs(system: SystemView, isNeeded: boolean): Finding {
  const name = 'configfs';
  const mounts = system.readText('/proc/mounts') ?? '';
  const isMounted = mounts.split('\n').some((line) => {
    const [, target, type] = line.split(' ');
    return target === CONFIGFS && type === 'configfs';
  });
  const lacking = isNeeded ? problem : warning;
  const meaning = '--frontend tcmu does not work, nor do devices of the snapshotter';
  if (!isMounted) {
    return lacking(
      name,
      `not mounted at ${CONFIGFS}`,
      meaning,
      `modprobe configfs; mount -t configfs none ${CONFIGFS}`,
    );
  }
  if (system.access(CONFIGFS, 'use') === 'ok') return ok(name, `mounted at ${CONFIGFS}`);
  return lacking(name, `${CONFIGFS} may not be written`, meaning, 'run as root');
}

export function checkCapability(
  system: SystemView,
  capability: string,
  bit: bigint,
  serves: string,
  isNeeded: boolean,
): Finding {
  const name = `permission.${capability}`;
  const status = system.readText('/proc/self/status') ?? '';
  const effective = /^CapEff:\s*([0-9a-f]+)$/m.exec(status)?.[1];
  if (effective !== undefined && ((BigInt(`0x${effective}`) >> bit) & 1n) === 1n) {
    return ok(name, system.effectiveUid === 0 ? 'held, by root' : 'held');
  }
  const lacking = isNeeded ? problem : warning;
  const fix =
    'run as root; in a container: --cap-add SYS_ADMIN --cap-add NET_ADMIN, or --privileged';
  return lacking(name, `not held by user ${system.effectiveUid}`, `${serves} does not work`, fix);
}

/** The program that serves the same devices of the kernel in overlaybd. */
export const ORIGINAL_DAEMON = 'overlaybd-tcmu';

/** The original answers for the same devices of the kernel. */
export function checkOriginalDaemon(system: SystemView): Finding {
  const name = ORIGINAL_DAEMON;
  if (!system.processNames().has(name)) return ok(name, 'does not run');
  return warning(
    name,
    'runs',
    '`replaybd daemon` does not serve the TCMU devices of the snapshotter while it does',
    'systemctl disable --now overlaybd-tcmu; its devices are taken over then',
  );
}
