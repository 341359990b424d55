import type { Logger } from '../base/log.ts';
import type { Devices } from './devices.ts';
import type { Runtime } from './runtime.ts';
import type { ServiceConfig } from './service-config.ts';

/** What a part of the daemon works with. */
export interface DaemonContext {
  readonly devices: Devices;
  readonly runtime: Runtime;
  /** The runtime directory. */
  readonly directory: string;
  /** overlaybd's configuration; null without one. */
  readonly service: ServiceConfig | null;
  readonly log: Logger;
}

/** Something that the daemon does beside serving its control socket. */
export interface DaemonPart {
  /** Called before any device is closed, last started first. */
  close(): void | Promise<void>;
}

/** What the module of a part exports. */
export interface DaemonPartModule {
  /** Called once the control socket answers; null when there is nothing to do here. */
  start(context: DaemonContext): DaemonPart | null | Promise<DaemonPart | null>;
}

/** Every part there is, a line each, in the order they are started. */
export const DAEMON_PARTS: readonly (() => Promise<DaemonPartModule>)[] = [
  () => import('./upstream-listeners.ts'),
  () => import('./tcmu-part.ts'),
];
