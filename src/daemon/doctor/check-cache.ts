import { dirname, resolve } from 'node:path';
import { ok, problem, warning, type Finding } from './finding.ts';
import type { SystemView } from './system-view.ts';

const GIB = 2 ** 30;

/** The cache folder, or, while there is none yet, the folder it would be made in. */
export function checkCache(system: SystemView, folder: string, quotaBytes: number): Finding[] {
  const name = 'cache.folder';
  const existing = nearestFolder(system, folder);
  const state = system.access(existing, 'use');
  const isThere = existing === resolve(folder);
  if (state === 'denied') {
    const found = `${existing} may not be written`;
    const fix = `run as its owner, or choose another folder: --cache, replaybd.cacheDir`;
    return [problem(name, found, 'blobs cannot be kept: no device can be opened', fix)];
  }
  const found = isThere ? folder : `${folder}, to be made in ${existing}`;
  return [
    ok(name, found),
    checkSpace(system, existing, quotaBytes),
    ...checkFileSystem(system, existing),
  ];
}

function nearestFolder(system: SystemView, folder: string): string {
  let path = resolve(folder);
  while (system.access(path, 'read') === 'missing' && path !== '/') path = dirname(path);
  return path;
}

export function checkSpace(system: SystemView, folder: string, quotaBytes: number): Finding {
  const name = 'cache.space';
  const free = system.freeBytes(folder);
  if (free === null) return warning(name, 'unknown', 'it may be full', `df ${folder}`);
  const found = `${inGiB(free)} free, ${inGiB(quotaBytes)} may be used`;
  if (free >= quotaBytes) return ok(name, found);
  const fix = 'free some, lower the quota (--quota, replaybd.quotaGB), or choose another folder';
  const meaning = 'unless the cache already holds the rest, the disk fills before the quota does';
  if (free >= GIB) return warning(name, found, meaning, fix);
  return problem(name, found, 'what does not fit is kept in memory, or fetched again', fix);
}

export function checkFileSystem(system: SystemView, folder: string): Finding[] {
  const { sparse, mapping } = system.probeFileSystem(folder);
  const fix = 'choose a folder on ext4, xfs or btrfs: --cache, replaybd.cacheDir';
  return [
    sparse === null
      ? ok('cache.holes', 'the file system punches holes')
      : problem('cache.holes', sparse, 'evicted data would keep its room', fix),
    mapping === null
      ? ok('cache.mapping', 'files can be mapped')
      : problem('cache.mapping', mapping, 'reads cannot be served from the cache', fix),
  ];
}

function inGiB(bytes: number): string {
  return `${(bytes / GIB).toFixed(1)} GiB`;
}
