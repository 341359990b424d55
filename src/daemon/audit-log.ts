import { systemClock, type Clock } from '../base/clock.ts';
import { codeOf } from '../base/errors.ts';
import { LineFile } from '../base/line-file.ts';
import { silentLogger, type Logger } from '../base/log.ts';
import type { FetchEvent } from '../blob/fetch/fetch-stats.ts';

export interface AuditLogOptions {
  clock?: Clock;
  log?: Logger;
}

/** What a line says beside its scope, in this order. */
export type AuditValues = Readonly<Record<string, string | number>>;

/** Takes a line's parts: `scope` names what was done, latencies are microseconds. */
export type AuditSink = (scope: string, values: AuditValues) => void;

/** Characters that would end a value, or the line. */
const UNSAFE = /[\u0000-\u001f\u007f[\]]/g;

/**
 * The audit log, in the lines of overlaybd's:
 *
 *   2026/01/31 12:00:00.000000|AUDIT|th=<16 hex digits>|download[pathname=...][offset=0][size=4096]...
 *
 * Nothing waits for it: see LineFile. `th` is the process here; there are no threads to tell apart.
 */
export class AuditLog {
  readonly #file: LineFile;
  readonly #clock: Clock;

  constructor(path: string, { clock = systemClock, log = silentLogger }: AuditLogOptions = {}) {
    this.#clock = clock;
    this.#file = new LineFile(path, {
      clock,
      onTrouble: (message) => log.warn({ path }, `audit log: ${message}`),
      droppedLine: (dropped) => auditLine(clock.wallMs(), 'dropped', { lines: dropped }),
    });
  }

  /** `scope` names what was done, e.g. 'download'. */
  record(scope: string, values: AuditValues): void {
    this.#file.write(auditLine(this.#clock.wallMs(), scope, values));
  }

  /** A request to a registry that ended; one line for each of its ranges. */
  recordFetch(event: FetchEvent): void {
    const { digest, lane, error } = event;
    const latency = Math.round(event.durationMs * 1000);
    const hasFailed = error !== null && error !== undefined;
    const outcome: AuditValues = hasFailed ? { error: codeOf(error) || 'unknown' } : {};
    for (const { offset, length } of event.ranges) {
      const values = { pathname: digest, offset, size: length, latency, lane };
      this.record('download', { ...values, ...outcome });
    }
  }

  /** Opens the path again: the answer to SIGHUP. */
  reopen(): void {
    this.#file.reopen();
  }

  async close(): Promise<void> {
    await this.#file.close();
  }
}

/** One line of the log, newline included; times are local, as overlaybd's are. */
export function auditLine(wallMs: number, scope: string, values: AuditValues): string {
  const time = new Date(wallMs);
  const two = (value: number) => String(value).padStart(2, '0');
  const date = [time.getFullYear(), two(time.getMonth() + 1), two(time.getDate())].join('/');
  const clock = [time.getHours(), time.getMinutes(), time.getSeconds()].map(two).join(':');
  const micros = String(time.getMilliseconds()).padStart(3, '0').padEnd(6, '0');
  const thread = process.pid.toString(16).toUpperCase().padStart(16, '0');
  const members = Object.entries(values).map(([name, value]) => `[${name}=${escaped(value)}]`);
  return `${date} ${clock}.${micros}|AUDIT|th=${thread}|${escaped(scope)}${members.join('')}\n`;
}

function escaped(value: string | number): string {
  return String(value).replace(
    UNSAFE,
    (character) => `\\x${character.charCodeAt(0).toString(16).padStart(2, '0')}`,
  );
}
