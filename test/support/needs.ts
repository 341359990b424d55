import { accessSync, constants } from 'node:fs';
import { join } from 'node:path';
import { fusePermitted } from '../../src/frontend/fuse/permitted.ts';

/** A test's `skip`: false, or what this machine lacks. 'root' also covers FUSE and loop devices. */
export function needs(...what: string[]): string | false {
  const lacking = what.filter((name) => (name === 'root' ? !isPrivileged() : !isInstalled(name)));
  return lacking.length === 0 ? false : `needs ${lacking.join(' and ')}`;
}

function isPrivileged(): boolean {
  return process.getuid?.() === 0 && fusePermitted().ok;
}

function isInstalled(program: string): boolean {
  return (process.env.PATH ?? '').split(':').some((folder) => {
    try {
      accessSync(join(folder, program), constants.X_OK);
      return true;
    } catch {
      return false;
    }
  });
}
