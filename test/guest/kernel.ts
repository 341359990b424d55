import { existsSync, readFileSync } from 'node:fs';
import { homedir } from 'node:os';
import { join } from 'node:path';

/** A kernel that guests boot, as test/guest/fetch-kernel.sh unpacked it. */
export interface GuestKernel {
  /** Holds boot/ and lib/modules/. */
  folder: string;
  /** As `uname -r` says it. */
  release: string;
  image: string;
}

/** Where the kernel is kept between runs. */
export const guestFolder: string =
  process.env.REPLAYBD_GUEST_DIR ??
  join(process.env.XDG_CACHE_HOME ?? join(homedir(), '.cache'), 'replaybd', 'guest');

/** The kernel that was fetched, or null. */
export function guestKernel(): GuestKernel | null {
  const marker = join(guestFolder, 'package');
  if (!existsSync(marker)) return null;
  const release = readFileSync(marker, 'utf8')
    .trim()
    .replace(/^linux-image-/, '');
  return { folder: guestFolder, release, image: join(guestFolder, 'boot', `vmlinuz-${release}`) };
}

/** Paths of modules and of what they need, in the order in which they are loaded. */
export function moduleFiles({ folder, release }: GuestKernel, names: readonly string[]): string[] {
  const base = join(folder, 'lib', 'modules', release);
  const needs = new Map<string, string[]>();
  for (const line of readFileSync(join(base, 'modules.dep'), 'utf8').split('\n')) {
    const [file = '', rest = ''] = line.split(':');
    needs.set(file, rest.trim().split(' ').filter(Boolean));
  }
  const ordered = new Set<string>();
  for (const name of names) {
    const file = [...needs.keys()].find((path) => path.endsWith(`/${name}.ko`));
    if (file === undefined) throw new Error(`${base}: no module ${name}`);
    // modules.dep lists what is needed directly first: the last has to be loaded first.
    for (const needed of [...(needs.get(file) ?? [])].reverse()) ordered.add(needed);
    ordered.add(file);
  }
  return [...ordered].map((file) => join(base, file));
}
