import { readFileSync } from 'node:fs';
import { codeOf } from '../../base/errors.ts';

/** Field 22 of /proc/PID/stat, counted from 1; the second is a name that may hold anything. */
const START_TIME_AFTER_NAME = 19;

/** When a process started (clock ticks since boot), or null when there is no such process. */
function startTimeOf(pid: number): string | null {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
    return stat.slice(stat.lastIndexOf(')') + 2).split(' ')[START_TIME_AFTER_NAME] ?? null;
  } catch (error) {
    if (codeOf(error) === 'ENOENT' || codeOf(error) === 'ESRCH') return null;
    throw error;
  }
}

/** The source of a mount: says who serves it, even when the number of a process comes again. */
export function ownerTag(deviceId: string): string {
  return `replaybd:${process.pid}.${startTimeOf(process.pid) ?? ''}:${deviceId}`;
}

/** True when the process that a mount's source names is no longer there. */
export function isOwnerGone(tag: string): boolean {
  const match = /^replaybd:(\d+)\.(\d+):/.exec(tag);
  if (match === null) return false;
  return startTimeOf(Number(match[1])) !== match[2];
}
