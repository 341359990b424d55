import type { Socket } from 'node:net';
import { messageOf } from '../../base/errors.ts';
import { nbdLimits } from '../../base/limits.ts';
import type { Logger } from '../../base/log.ts';
import { ByteQueue } from './byte-queue.ts';
import type { NbdExports } from './export.ts';
import { Handshake } from './handshake.ts';
import { Transmission } from './transmission.ts';

/**
 * One client's socket: feeds what arrives to the handshake, then to the transmission phase, and
 * stops reading while the client does not take its replies.
 */
export class NbdConnection {
  /** Resolves when the socket is gone. */
  readonly closed: Promise<void>;
  readonly #socket: Socket;
  readonly #log: Logger;
  readonly #queue = new ByteQueue();
  readonly #abort = new AbortController();
  readonly #handshake: Handshake;
  readonly #handshakeTimer: NodeJS.Timeout;
  #transmission: Transmission | null = null;
  #advancing = false;
  /** The client has sent all it will. */
  #ended = false;
  /** No request is taken any more; the socket ends with the last reply. */
  #leaving = false;

  constructor(socket: Socket, exports: NbdExports, log: Logger) {
    this.#socket = socket;
    this.#log = log;
    this.#handshake = new Handshake(exports, (bytes) => void socket.write(bytes));
    this.#handshakeTimer = setTimeout(() => {
      log.info('NBD client took too long to negotiate; connection dropped');
      socket.destroy();
    }, nbdLimits.handshakeMsMax);
    this.closed = new Promise((resolve) => {
      socket.once('close', () => {
        clearTimeout(this.#handshakeTimer);
        this.#abort.abort();
        resolve();
      });
    });
    socket.on('error', (error) => log.debug({ err: error }, 'NBD connection failed'));
    socket.on('data', (chunk: Buffer) => {
      this.#queue.push(chunk);
      this.#advance();
    });
    socket.on('drain', () => this.#advance());
    socket.on('end', () => {
      this.#ended = true;
      this.#advance();
    });
    this.#handshake.greet();
  }

  /** Takes no more requests, gives up reads that wait, lets the rest finish within a limit. */
  async shutDown(): Promise<void> {
    const timer = setTimeout(() => this.#socket.destroy(), nbdLimits.closeMsMax);
    this.#leave();
    this.#abort.abort();
    await this.closed;
    clearTimeout(timer);
  }

  #advance(): void {
    if (this.#advancing || this.#leaving || this.#socket.destroyed) return;
    this.#advancing = true;
    // One system call for all replies of this round.
    this.#socket.cork();
    try {
      this.#run();
    } catch (error) {
      this.#log.info({ err: error }, messageOf(error));
      this.#socket.destroy();
    } finally {
      this.#socket.uncork();
      this.#advancing = false;
    }
  }

  #run(): void {
    for (;;) {
      const step = this.#step();
      if (step === 'again') continue;
      if (step === 'leave' || (step === 'more' && this.#ended)) this.#leave();
      else if (step === 'full') this.#socket.pause();
      else if (this.#socket.isPaused()) this.#socket.resume();
      return;
    }
  }

  #step(): 'again' | 'more' | 'full' | 'leave' {
    if (this.#transmission !== null) {
      const step = this.#transmission.step(this.#queue);
      return step === 'disconnect' ? 'leave' : step;
    }
    if (this.#socket.writableNeedDrain) return 'full';
    const step = this.#handshake.step(this.#queue);
    if (typeof step === 'string') return step === 'abort' ? 'leave' : step;
    clearTimeout(this.#handshakeTimer);
    this.#log.info({ device: step.device.id }, 'NBD client connected');
    this.#transmission = new Transmission(step, {
      send: (bytes, sent) => void this.#socket.write(bytes, sent),
      onSent: () => this.#onSent(),
      signal: this.#abort.signal,
      log: this.#log,
    });
    return 'again';
  }

  #onSent(): void {
    if (this.#leaving) this.#endWhenIdle();
    else if (this.#socket.isPaused()) this.#advance();
  }

  #leave(): void {
    this.#leaving = true;
    this.#socket.pause();
    this.#endWhenIdle();
  }

  #endWhenIdle(): void {
    if (this.#transmission === null || this.#transmission.idle) this.#socket.destroySoon();
  }
}
