import { pino, type Logger } from 'pino';
import { LineFile } from './line-file.ts';

export type { Logger };

export interface LogOptions {
  level?: string;
  /** A file path; standard error when absent. */
  path?: string;
}

/** A structured logger (one JSON object a line). Standard output stays free for results. */
export function createLogger(options: LogOptions = {}): Logger {
  const destination = pino.destination({ dest: options.path ?? 2, sync: true });
  return pino({ level: options.level ?? 'warn', base: null }, destination);
}

/** A service's log, whose file the system's log rotation may rename. */
export interface ServiceLog {
  readonly log: Logger;
  /** Opens the path again: the answer to SIGHUP. Nothing to do for standard error. */
  reopen(): void;
  /** Writes what waits; at most a few seconds. */
  close(): Promise<void>;
}

/**
 * A log that no line of waits for the disk. A file that cannot be written is told on standard error,
 * and tried again; lines that do not fit in the queue meanwhile are dropped, and counted in the log.
 */
export function openServiceLog({ level = 'info', path }: LogOptions = {}): ServiceLog {
  if (path === undefined) {
    return { log: createLogger({ level }), reopen: () => undefined, close: async () => undefined };
  }
  const file = new LineFile(path, {
    onTrouble: (message) => void process.stderr.write(`replaybd: ${message}\n`),
    droppedLine: (dropped) =>
      `${JSON.stringify({ level: 40, time: Date.now(), dropped, msg: 'log lines were dropped' })}\n`,
  });
  return {
    log: pino({ level, base: null }, file),
    reopen: () => file.reopen(),
    close: () => file.close(),
  };
}

/** A logger that drops everything; the default of library code. */
export const silentLogger: Logger = pino({ enabled: false });
