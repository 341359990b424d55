import { openServiceLog, type Logger, type ServiceLog } from '../base/log.ts';
import { AuditLog, type AuditValues } from './audit-log.ts';
import { createNotifier, type Notifier } from './notifier.ts';
import type { Runtime } from './runtime.ts';
import type { ServiceConfig } from './service-config.ts';

export interface ServiceOptions {
  /** Null without an overlaybd.json: then there is no audit log. */
  config: ServiceConfig | null;
  /** Before that of the configuration. */
  logLevel?: string;
  env?: NodeJS.ProcessEnv;
}

/**
 * What a daemon has around its devices, as overlaybd.json and the service manager ask for it: the log,
 * the audit log, signs of life. SIGHUP opens the logs again, which log rotation renamed.
 * None of it can stop a device from being served: what fails is told in the log.
 */
export class Service {
  readonly log: Logger;
  readonly notifier: Notifier;
  readonly #serviceLog: ServiceLog;
  readonly #audit: AuditLog | null;
  #stopListening: () => void = () => undefined;
  readonly #onHangup = (): void => this.reopenLogs();

  constructor({ config, logLevel, env = process.env }: ServiceOptions) {
    const { level = null, path = null } = config?.logConfig ?? {};
    this.#serviceLog = openServiceLog({
      level: logLevel ?? level ?? 'info',
      ...(path === null ? {} : { path }),
    });
    this.log = this.#serviceLog.log;
    this.notifier = createNotifier(env, this.log);
    const auditPath = config?.auditPath ?? null;
    this.#audit = auditPath === null ? null : new AuditLog(auditPath, { log: this.log });
    process.on('SIGHUP', this.#onHangup);
    if (config !== null && config.ignored.length > 0) {
      this.log.info({ keys: config.ignored }, 'overlaybd.json: keys without an effect are ignored');
    }
  }

  /** From now on requests to registries are audited. */
  watch(runtime: Pick<Runtime, 'onFetch'>): void {
    const audit = this.#audit;
    if (audit !== null) this.#stopListening = runtime.onFetch((event) => audit.recordFetch(event));
  }

  /** A line of the audit log, e.g. ('attach', { pathname: id, latency: microseconds }). */
  audit(scope: string, values: AuditValues): void {
    this.#audit?.record(scope, values);
  }

  reopenLogs(): void {
    this.#serviceLog.reopen();
    this.#audit?.reopen();
    this.log.info('log files were opened again');
  }

  /** Tells the service manager, and ends all of it; the log last. */
  async close(): Promise<void> {
    process.off('SIGHUP', this.#onHangup);
    this.#stopListening();
    this.notifier.close();
    await this.#audit?.close();
    await this.#serviceLog.close();
  }
}
