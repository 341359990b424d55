import { readFileSync } from 'node:fs';

/** What the kernel gives itself at each start of the machine: a UUID, as text. */
export function readBootId(): string {
  return readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim();
}
