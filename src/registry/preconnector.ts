import { Socket } from 'node:net';
import { buildConnector } from 'undici';

/** How long a connection waits for its first request before it is given up. */
const IDLE_MS_MAX = 10_000;

type Connected = Parameters<buildConnector.Callback>;

/**
 * A pool's connector that can open connections before there is a request for them, so that a cold
 * start's first requests find the handshakes done. Connections beyond those are opened as usual.
 * Closing ends those that are still being opened: a pool forgets them, and they would keep the
 * process until the peer answers or their time is over.
 */
export class Preconnector {
  readonly #connect: buildConnector.connector;
  readonly #prepared: Promise<Connected>[] = [];
  readonly #idle = new Set<Socket>();
  readonly #opening = new Set<Socket>();
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
        this.#open(target, (...result) => resolve(result));
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
      this.#open(options, callback);
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

  /** Ends the connections that nobody took, and those under way. None is opened from now on. */
  close(): void {
    this.#isClosed = true;
    this.#prepared.length = 0;
    for (const socket of this.#opening) socket.destroy(closedError());
    for (const socket of this.#idle) socket.destroy();
    this.#idle.clear();
  }

  #open(options: buildConnector.Options, callback: buildConnector.Callback): void {
    if (this.#isClosed) {
      queueMicrotask(() => callback(closedError(), null));
      return;
    }
    // Its type says nothing of the socket that it gives.
    const socket: unknown = this.#connect(options, (...result) => {
      if (socket instanceof Socket) this.#opening.delete(socket);
      callback(...result);
    });
    if (socket instanceof Socket) this.#opening.add(socket);
  }

  #keepIdle(socket: Socket): void {
    this.#idle.add(socket);
    socket.unref();
    socket.on('error', () => socket.destroy());
    socket.setTimeout(IDLE_MS_MAX, () => socket.destroy());
    if (this.#isClosed) socket.destroy();
  }
}

function closedError(): Error {
  return Object.assign(new Error('the client is closed'), { code: 'UND_ERR_DESTROYED' });
}
