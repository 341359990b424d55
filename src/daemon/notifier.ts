import { DatagramSender } from '../../native/notify-socket.ts';
import { messageOf } from '../base/errors.ts';
import { silentLogger, type Logger } from '../base/log.ts';

/** Tells the service manager how the process is doing: sd_notify(3). Never throws, never waits. */
export interface Notifier {
  /** Somebody listens. */
  readonly isActive: boolean;
  /** Microseconds the manager waits for a sign of life; 0 when it does not. */
  readonly watchdogUs: number;
  /** Serving; from now on there are signs of life, while `isAlive` says so. */
  ready(status?: string, isAlive?: () => boolean): void;
  status(text: string): void;
  /** Not ready yet, and within `msMax` from now either that or heard of again. */
  starting(status: string, msMax: number): void;
  /** Configuration is being read again; `ready` ends that. */
  reloading(): void;
  stopping(): void;
  /** Ends the signs of life. */
  close(): void;
}

/** A message that did not fit into the manager's queue is sent again so often, so many times. */
const RETRY_MS = 50;
const RETRIES_MAX = 100;
/** Signs of life within the time the manager waits. */
const SIGNS = 3;

/**
 * The notifier for the socket of $NOTIFY_SOCKET (a path, or @ and a name in the abstract name space)
 * and the watchdog of $WATCHDOG_USEC; one that does nothing when the process is no such service.
 */
export function createNotifier(
  env: NodeJS.ProcessEnv = process.env,
  log: Logger = silentLogger,
): Notifier {
  const name = env.NOTIFY_SOCKET ?? '';
  const isOurs = (env.WATCHDOG_PID ?? String(process.pid)) === String(process.pid);
  const watchdogUs = isOurs ? Number(env.WATCHDOG_USEC ?? 0) : 0;
  if (!/^[/@]./.test(name)) {
    if (name !== '') log.warn({ socket: name }, 'NOTIFY_SOCKET: not a unix socket, ignored');
    return new SystemdNotifier(null, 0, log);
  }
  try {
    const isTime = Number.isSafeInteger(watchdogUs) && watchdogUs > 0;
    return new SystemdNotifier(new DatagramSender(name), isTime ? watchdogUs : 0, log);
  } catch (error) {
    log.warn({ socket: name }, `NOTIFY_SOCKET: ${messageOf(error)}`);
    return new SystemdNotifier(null, 0, log);
  }
}

class SystemdNotifier implements Notifier {
  readonly watchdogUs: number;
  readonly #sender: DatagramSender | null;
  readonly #log: Logger;
  #watchdog: NodeJS.Timeout | null = null;
  /** States that did not fit yet; they must arrive, and in order. */
  #unsent: string[] = [];
  #retry: NodeJS.Timeout | null = null;
  #retries = 0;
  #isClosed = false;
  #hasFailed = false;

  constructor(sender: DatagramSender | null, watchdogUs: number, log: Logger) {
    this.#sender = sender;
    this.watchdogUs = watchdogUs;
    this.#log = log;
  }

  get isActive(): boolean {
    return this.#sender !== null;
  }

  ready(status = '', isAlive: () => boolean = () => true): void {
    this.#tell(`READY=1${status === '' ? '' : `\nSTATUS=${oneLine(status)}`}`);
    if (this.watchdogUs === 0 || this.#watchdog !== null || this.#isClosed) return;
    const periodMs = this.watchdogUs / 1000 / SIGNS;
    this.#watchdog = setInterval(() => {
      // One that finds the queue full is not sent again: the next is as good.
      if (isAlive()) this.#send('WATCHDOG=1');
    }, periodMs).unref();
  }

  status(text: string): void {
    this.#tell(`STATUS=${oneLine(text)}`);
  }

  starting(status: string, msMax: number): void {
    this.#tell(`EXTEND_TIMEOUT_USEC=${msMax * 1000}\nSTATUS=${oneLine(status)}`);
  }

  reloading(): void {
    // The time lets the manager tell this reload's READY=1 from an earlier one.
    this.#tell(`RELOADING=1\nMONOTONIC_USEC=${process.hrtime.bigint() / 1000n}`);
  }

  stopping(): void {
    this.#tell('STOPPING=1');
  }

  close(): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    if (this.#watchdog !== null) clearInterval(this.#watchdog);
    if (this.#retry !== null) clearTimeout(this.#retry);
    this.#sender?.close();
  }

  #tell(message: string): void {
    if (this.#unsent.length >= RETRIES_MAX) this.#unsent.shift();
    this.#unsent.push(message);
    this.#flush();
  }

  #flush(): void {
    if (this.#isClosed || this.#retry !== null) return;
    while (this.#unsent.length > 0 && this.#send(this.#unsent[0])) {
      this.#unsent.shift();
      this.#retries = 0;
    }
    if (this.#unsent.length === 0) return;
    this.#retries += 1;
    if (this.#retries > RETRIES_MAX) {
      this.#fail('its queue stays full');
      this.#unsent = [];
      return;
    }
    this.#retry = setTimeout(() => {
      this.#retry = null;
      this.#flush();
    }, RETRY_MS);
  }

  /** False when there was no room. A socket that fails is told of once, and tried again next time. */
  #send(message: string): boolean {
    if (this.#sender === null || this.#isClosed) return true;
    try {
      return this.#sender.send(message);
    } catch (error) {
      this.#fail(messageOf(error));
      return true;
    }
  }

  #fail(reason: string): void {
    if (!this.#hasFailed) this.#log.warn(`service manager cannot be told: ${reason}`);
    this.#hasFailed = true;
  }
}

function oneLine(text: string): string {
  return text.replaceAll(/\s+/g, ' ').trim();
}
