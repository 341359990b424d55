import { pino, type Logger } from 'pino';

export type { Logger };

/** From the most that is told to nothing. */
export const LOG_LEVELS = ['debug', 'info', 'warn', 'error', 'fatal', 'silent'] as const;

export type LogLevel = (typeof LOG_LEVELS)[number];

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

/** A logger that drops everything; the default of library code. */
export const silentLogger: Logger = pino({ enabled: false });
