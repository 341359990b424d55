import { readFileSync } from 'node:fs';

export interface MountEntry {
  /** 'major:minor' of the file system's device. */
  deviceNumber: string;
  target: string;
  type: string;
  source: string;
}

/**
 * The mounts this process sees, in the order they were made (proc_pid_mountinfo(5)):
 * `id parent major:minor root target options [fields ...] - type source options`.
 */
export function readMountTable(): MountEntry[] {
  return parseMountTable(readFileSync('/proc/self/mountinfo', 'utf8'));
}

export function parseMountTable(text: string): MountEntry[] {
  return text
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => {
      const fields = line.split(' ');
      const separator = fields.indexOf('-', 6);
      return {
        deviceNumber: fields[2],
        target: unescapeOctal(fields[4]),
        type: fields[separator + 1],
        source: unescapeOctal(fields[separator + 2]),
      };
    });
}

/** Blanks, tabs, newlines and backslashes are written as a backslash and three octal digits. */
function unescapeOctal(text: string): string {
  return text.replace(/\\([0-7]{3})/g, (_, digits: string) =>
    String.fromCharCode(Number.parseInt(digits, 8)),
  );
}
