import type { Socket } from 'node:net';
import { buildConnector } from 'undici';

/** How long a connection waits for its first request before it is given up. */
const IDLE_MS_MAX = 10_000;

type Connected = Parameters<buildConnector.Callback>;

/**
 * A pool's connector that can open connections before there is a request for them, so that a cold
 * start's first requests find the handshakes done. Connections beyond those are opened as usual.
 */
export class Preconnector {
  readonly #connect: buildConnector.connector;
  readonly #prepared: Promise<Connected>[] = [];
  readonly #idle = new Set<Socket>();
  #isClosed = false;

  constructor(options: buildConnector.BuildOptions) {
    this.#connect = buildConnector({ ...options, allowH2: false });
  }

  /** Begins to open `count` connections to an origin. Failures show when a request needs one. */
  prepare(origin: URL, count: number): void {
    const target = {
      hostname: origin.hostname,
      host: origin.host,
      protocol: origin.protocol,
      port: origin.port || (origin.protocol === 'https:' ? '443' : '80'),
    };
    for (let i = 0; i < count; i += 1) {
      const opening = new Promise<Connected>((resolve) => {
        this.#connect(target, (...result) => resolve(result));
      });
      void opening.then(([error, socket]) => {
        // A failed attempt calls back with the error alone.
        if (error === null && socket !== null) this.#keepIdle(socket);
      });
      this.#prepared.push(opening);
    }
  }

  /** The `connect` option of an undici pool. */
  readonly connect: buildConnector.connector = (options, callback) => {
    const opening = this.#prepared.shift();
    if (opening === undefined) {
      this.#connect(options, callback);
      return;
    }
    void opening.then(([error, socket]) => {
      if (error !== null || !this.#idle.delete(socket) || socket.destroyed) {
        this.connect(options, callback);
        return;
      }
      socket.setTimeout(0);
      socket.removeAllListeners('timeout').removeAllListeners('error').ref();
      callback(null, socket);
    });
  };

  /** Ends the connections that nobody took. */
  close(): void {
    this.#isClosed = true;
    this.#prepared.length = 0;
    for (const socket of this.#idle) socket.destroy();
    this.#idle.clear();
  }

  #keepIdle(socket: Socket): void {
    this.#idle.add(socket);
    socket.unref();
    socket.on('error', () => socket.destroy());
    socket.setTimeout(IDLE_MS_MAX, () => socket.destroy());
    if (this.#isClosed) socket.destroy();
  }
}
