import type { Clock } from '../base/clock.ts';
import type { Logger } from '../base/log.ts';
import type { BlockDevice } from '../device/block-device.ts';

/** How a guest reaches a device. Every front end is started by a function and ended by `close`. */
export interface Frontend {
  readonly kind: FrontendKind;
  /** What a guest opens: a path (file or block device) or a URL such as nbd+unix:///... */
  readonly path: string;
  /**
   * Stops serving and removes what the front end made. Requests in flight are answered first where
   * the protocol allows it. May be called again, and while an earlier call is still running.
   */
  close(): Promise<void>;
  /**
   * Instead of `close`, when the process ends and the device shall not: stops serving in such a way
   * that guests wait for the next process. Absent where they cannot.
   */
  release?(): Promise<void>;
  /**
   * Has the device grow by calling `grow`, once, and tells guests of its new size. Absent where guests
   * cannot be told while they use the device. May throw before `grow` is called, and then nothing has
   * changed; what it throws later comes of the telling alone.
   */
  resize?(grow: () => Promise<void>): Promise<void>;
}

/** `none`: a device that nobody reads; it records nothing, and replays into the cache. */
export type FrontendKind = 'none' | 'fuse' | 'nbd' | 'tcmu' | 'vhost-user';

/** What whoever attaches a device may ask of its front end; each kind takes some of it. */
export interface FrontendParameters {
  /** Mount the device's file system on this directory. */
  readonly mount?: string;
  /** False: no loop device. */
  readonly loop?: boolean;
  /** Listen on this unix socket; one in the runtime directory by default. */
  readonly socket?: string;
  /** Listen on this port of the loopback address instead; 0 is any that is free. */
  readonly port?: number;
}

/** For whom a front end is to be started, and how. */
export interface FrontendRequest {
  readonly id: string;
  readonly parameters: FrontendParameters;
  /** The runtime directory. */
  readonly directory: string;
  readonly clock: Clock;
  readonly log: Logger;
  /** To be told when the front end can serve no more, by itself. It is closed all the same. */
  readonly onFailed: (error: unknown) => void;
}

/** A front end before its device is open: what takes time to start has been started. */
export interface PreparedFrontend {
  /** Threads beside the main one that will read the device: rings of its tap. */
  readonly readerThreads: number;
  /** At most once. Whatever fails, nothing is left behind. */
  start(device: BlockDevice): Promise<Frontend>;
  /** Instead of `start`. */
  discard(): void;
  /**
   * For a device that is detached, and was never started here: ends what a former process has left of
   * it, so that guests get errors. Absent where nothing outlives a process.
   */
  takeDown?(): Promise<void>;
}

/** What the module of a front end exports; see frontends.ts. */
export interface FrontendModule {
  /** Throws when this kind cannot be used here. */
  check?(parameters: FrontendParameters): void | Promise<void>;
  /** Throws, before anything was started, what `check` throws. */
  prepare(request: FrontendRequest): PreparedFrontend | Promise<PreparedFrontend>;
}
