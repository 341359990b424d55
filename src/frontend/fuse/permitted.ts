import { accessSync, constants, readFileSync } from 'node:fs';
import { endianness } from 'node:os';

const CAP_SYS_ADMIN = 21n;

export type Permission = { ok: true } | { ok: false; reason: string };

/**
 * Whether this process can serve a device by FUSE, and by a loop device on top when `loop` is
 * wanted; the reason, when not, is a sentence for the user.
 */
export function fusePermitted(loop = true): Permission {
  if (process.platform !== 'linux') return refuse(`FUSE needs Linux, this is ${process.platform}`);
  if (endianness() !== 'LE') return refuse('the FUSE front end needs a little-endian machine');
  if (!hasSysAdmin()) return refuse('mounting needs root or CAP_SYS_ADMIN');
  const devices = loop ? ['/dev/fuse', '/dev/loop-control'] : ['/dev/fuse'];
  for (const device of devices) {
    try {
      accessSync(device, constants.R_OK | constants.W_OK);
    } catch {
      return refuse(`${device} is missing or may not be opened`);
    }
  }
  return { ok: true };
}

function refuse(reason: string): Permission {
  return { ok: false, reason };
}

function hasSysAdmin(): boolean {
  const effective = /^CapEff:\s*([0-9a-f]+)$/m.exec(readFileSync('/proc/self/status', 'utf8'))?.[1];
  return effective !== undefined && ((BigInt(`0x${effective}`) >> CAP_SYS_ADMIN) & 1n) === 1n;
}
