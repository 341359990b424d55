import { ReplaybdError } from '../base/errors.ts';
import { printable } from '../base/printable.ts';

const SIGNALS = ['SIGINT', 'SIGTERM'] as const;
const PROGRESS_INTERVAL_MS = 100;

/**
 * Runs `work` with a signal that Ctrl-C aborts with ERR_INTERRUPTED, so that it can clean up; a second
 * Ctrl-C ends the process at once. Whatever `work` then fails with, it was interrupted.
 */
export async function interruptible<T>(work: (signal: AbortSignal) => Promise<T>): Promise<T> {
  const controller = new AbortController();
  const stopListening = () => {
    for (const name of SIGNALS) process.off(name, interrupt);
  };
  const interrupt = () => {
    stopListening();
    controller.abort(new ReplaybdError('ERR_INTERRUPTED', 'interrupted'));
  };
  for (const name of SIGNALS) process.on(name, interrupt);
  try {
    return await work(controller.signal);
  } catch (error) {
    controller.signal.throwIfAborted();
    throw error;
  } finally {
    stopListening();
  }
}

/** One line on standard error that is written over; nothing when that is no terminal. */
export class ProgressLine {
  #shownAtMs = -Infinity;

  show(text: string): void {
    const nowMs = performance.now();
    if (!process.stderr.isTTY || nowMs - this.#shownAtMs < PROGRESS_INTERVAL_MS) return;
    this.#shownAtMs = nowMs;
    process.stderr.write(`\r\x1b[K${text}`);
  }

  clear(): void {
    if (this.#shownAtMs >= 0) process.stderr.write('\r\x1b[K');
  }
}

/** A line on standard error that may hold names of an untrusted image or file. */
export function complain(text: string): void {
  process.stderr.write(`${printable(text)}\n`);
}

const UNITS = ['B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB'];

/** A size for people: three digits or so, and a binary unit. */
export function formatBytes(bytes: number): string {
  let value = bytes;
  let unit = 0;
  while (value >= 1024 && unit < UNITS.length - 1) {
    value /= 1024;
    unit += 1;
  }
  const digits = unit === 0 || Number.isInteger(value) ? 0 : 1;
  return `${value.toFixed(digits)} ${UNITS[unit]}`;
}

/** Rows of as many columns each, aligned, a line a row. */
export function formatTable(rows: readonly (readonly string[])[]): string {
  const widths = rows[0].map((_, column) => Math.max(...rows.map((row) => row[column].length)));
  const line = (row: readonly string[]): string =>
    row.map((text, column) => text.padEnd(widths[column] + 2)).join('');
  return rows.map((row) => `${line(row).trimEnd()}\n`).join('');
}

/** Resolves when the signal is aborted. */
export async function untilAborted(signal: AbortSignal): Promise<void> {
  if (signal.aborted) return;
  await new Promise<void>((resolve) => {
    signal.addEventListener('abort', () => resolve(), { once: true });
  });
}
