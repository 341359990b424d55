import assert from 'node:assert/strict';
import { closeSync, rmSync } from 'node:fs';
import { resolve } from 'node:path';
import { messageOf, ReplaybdError } from '../../base/errors.ts';
import { systemClock, type Clock } from '../../base/clock.ts';
import { vhostUserLimits } from './limits.ts';
import { silentLogger, type Logger } from '../../base/log.ts';
import { prepareSocketPath, withPrivateMode } from '../../base/unix-socket.ts';
import { acceptUnix, listenUnix } from '../../../native/unix-socket.ts';
import type { Frontend } from '../frontend.ts';
import type { ServedDevice } from './block-config.ts';
import { Connection } from './connection.ts';
import { nextReadable } from './readable.ts';
import { Session } from './session.ts';

const QUEUES_DEFAULT = 4;

export interface VhostUserOptions {
  /** Listen on this unix socket, mode 0600. */
  socketPath: string;
  /** Queues that a front end may use, 1 to `vhostUserLimits.queuesMax`; 4 when absent. */
  queues?: number;
  log?: Logger;
  clock?: Clock;
}

export interface VhostUserFrontend extends Frontend {
  readonly kind: 'vhost-user';
}

/**
 * Serves a device to a virtual machine monitor over vhost-user-blk, one front end at a time; when it
 * goes, the next may come. `path` is the socket's. For the main thread only. Throws ERR_SOCKET_PATH,
 * ERR_SOCKET_IN_USE.
 */
export async function startVhostUser(
  device: ServedDevice,
  options: VhostUserOptions,
): Promise<VhostUserFrontend> {
  const { queues = QUEUES_DEFAULT, log = silentLogger, clock = systemClock } = options;
  assert(queues >= 1 && queues <= vhostUserLimits.queuesMax);
  const path = resolve(options.socketPath);
  await prepareSocketPath(path);
  const fd = withPrivateMode(() => listenUnix(path, vhostUserLimits.backlog));
  const server = new VhostUserServer({ device, queues, log, clock, fd });
  let closing: Promise<void> | null = null;
  const close = async (): Promise<void> => {
    await server.close();
    closeSync(fd);
    rmSync(path, { force: true });
  };
  return {
    kind: 'vhost-user',
    path,
    close: async () => await (closing ??= close()),
    resize: (grow) => server.resize(grow),
  };
}

interface ServerParts {
  device: ServedDevice;
  queues: number;
  log: Logger;
  clock: Clock;
  /** Of the listening socket. */
  fd: number;
}

/** Takes one connection after the other. */
class VhostUserServer {
  readonly #parts: ServerParts;
  readonly #closing = new AbortController();
  readonly #ended: Promise<void>;
  #session: Session | null = null;

  constructor(parts: ServerParts) {
    this.#parts = parts;
    this.#ended = this.#serve().catch((error: unknown) => {
      parts.log.fatal(`vhost-user: serves nobody any more: ${messageOf(error)}`);
    });
  }

  /** ERR_RESIZE_FRONTEND for a front end that cannot be told; one that comes later need not be. */
  async resize(grow: () => Promise<void>): Promise<void> {
    const { device } = this.#parts;
    if (this.#session?.canTell === false) {
      throw new ReplaybdError(
        'ERR_RESIZE_FRONTEND',
        `device ${device.id}: the virtual machine monitor that uses it cannot be told of a new size ` +
          '(vhost-user back-end channel). End the machine, or detach the device, and try again.',
        { errno: 'EINVAL' },
      );
    }
    await grow();
    try {
      this.#session?.configChanged();
    } catch (cause) {
      throw new ReplaybdError(
        'ERR_RESIZE_FRONTEND',
        `device ${device.id}: it has grown, and the virtual machine monitor that uses it did not ` +
          `take the news: ${messageOf(cause)}. Ask for the same size again, or restart the machine.`,
        { cause },
      );
    }
  }

  /** Answers what was begun, within a limit, and lets the front end go. */
  async close(): Promise<void> {
    const { clock } = this.#parts;
    const timer = new AbortController();
    const late = clock.sleep(vhostUserLimits.closeMsMax, timer.signal).catch(() => undefined);
    await Promise.race([this.#session?.drain(), late]);
    timer.abort();
    this.#closing.abort();
    await this.#session?.close();
    await this.#ended;
  }

  async #serve(): Promise<void> {
    const { signal } = this.#closing;
    while (!signal.aborted) {
      await nextReadable(this.#parts.fd, signal);
      if (signal.aborted) return;
      const fd = this.#accept();
      if (fd !== null) await this.#serveOne(fd);
      // Out of descriptors, for one: not again and again without a pause.
      else await this.#parts.clock.sleep(1, signal).catch(() => undefined);
    }
  }

  #accept(): number | null {
    try {
      return acceptUnix(this.#parts.fd);
    } catch (error) {
      this.#parts.log.error(`vhost-user: cannot accept a front end: ${messageOf(error)}`);
      return null;
    }
  }

  async #serveOne(fd: number): Promise<void> {
    const { device, queues, log } = this.#parts;
    const session = new Session({ device, queues, log });
    this.#session = session;
    log.info({ device: device.id }, 'vhost-user front end connected');
    try {
      await new Connection({ fd, session, signal: this.#closing.signal, log }).serve();
      await session.close();
    } finally {
      this.#session = null;
      closeSync(fd);
      log.info({ device: device.id }, 'vhost-user front end gone');
    }
  }
}
