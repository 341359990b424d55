import { readFileSync } from 'node:fs';
import { codeOf } from '../../base/errors.ts';

/** Fields 3 and 22 of /proc/PID/stat; the second is a name that may hold anything. */
const STATE_AFTER_NAME = 0;
const START_TIME_AFTER_NAME = 19;

/** True when no process has this number, or only a zombie. */
export function isProcessGone(pid: number): boolean {
  return startTimeOf(pid) === null;
}

/** When a process started (clock ticks since boot), or null when there is no such process. */
function startTimeOf(pid: number): string | null {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
    const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
    // A zombie serves nothing; its parent has only not asked yet how it ended.
    return fields[STATE_AFTER_NAME] === 'Z' ? null : fields[START_TIME_AFTER_NAME];
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
