import { closeSync } from 'node:fs';
import { messageOf } from '../../base/errors.ts';
import { vhostUserLimits } from './limits.ts';
import type { Logger } from '../../base/log.ts';
import { PassingMessage } from '../../../native/unix-socket.ts';
import { encodeReply, encodeU64, parseHeader, type Message } from './message.ts';
import { HEADER_BYTES } from './protocol.ts';
import { nextReadable } from './readable.ts';
import { closeFds, type Reply, type Session } from './session.ts';
import { protocolError } from './vhost-error.ts';

const DONE = 0;
const REFUSED = 1;

export interface ConnectionOptions {
  fd: number;
  session: Session;
  /** Ends the connection. */
  signal: AbortSignal;
  log: Logger;
}

/** One front end's stream of messages: each is answered before the next is read. */
export class Connection {
  readonly #options: ConnectionOptions;
  readonly #passing = new PassingMessage();
  readonly #bytes = Buffer.alloc(HEADER_BYTES + vhostUserLimits.messageBytesMax);
  #fds: number[] = [];

  constructor(options: ConnectionOptions) {
    this.#options = options;
  }

  /** Resolves when the front end is gone, has sent what it must not, or the signal aborts. */
  async serve(): Promise<void> {
    try {
      for (;;) {
        const message = await this.#next();
        if (message === null) return;
        await this.#answer(message);
      }
    } catch (error) {
      this.#options.log.warn(`vhost-user connection dropped: ${messageOf(error)}`);
    } finally {
      closeFds({ fds: this.#fds });
    }
  }

  async #next(): Promise<Message | null> {
    if (!(await this.#fill(0, HEADER_BYTES))) return null;
    const { request, needsReply, payloadBytes } = parseHeader(this.#bytes);
    const end = HEADER_BYTES + payloadBytes;
    if (!(await this.#fill(HEADER_BYTES, end))) return null;
    const payload = Buffer.from(this.#bytes.subarray(HEADER_BYTES, end));
    return { request, needsReply, payload, fds: this.#fds.splice(0) };
  }

  /** Reads bytes [start, end) of a message; false at the end of the stream. */
  async #fill(start: number, end: number): Promise<boolean> {
    const { fd, signal } = this.#options;
    for (let at = start; at < end;) {
      if (signal.aborted) return false;
      const received = this.#passing.receive(fd, this.#bytes.subarray(at, end));
      if (received === 0) return false;
      if (received === null) {
        await nextReadable(fd, signal);
        continue;
      }
      at += received;
      this.#fds.push(...this.#passing.fds);
      const isTooMany = this.#fds.length > vhostUserLimits.memoryRegionsMax;
      if (isTooMany || this.#passing.isCut) {
        const expected = `at most ${vhostUserLimits.memoryRegionsMax} descriptors`;
        throw protocolError('message', expected, 'more');
      }
    }
    return true;
  }

  /** What cannot be carried out is refused where the front end hears of it, else the connection ends. */
  async #answer(message: Message): Promise<void> {
    const { session, log } = this.#options;
    const isAcknowledged = session.acknowledges(message);
    try {
      const reply = await session.handle(message);
      if (reply !== null) this.#send(message, reply);
      else if (isAcknowledged) this.#send(message, { payload: encodeU64(DONE) });
    } catch (error) {
      if (!isAcknowledged) throw error;
      log.warn({ request: message.request }, `vhost-user message refused: ${messageOf(error)}`);
      this.#send(message, { payload: encodeU64(REFUSED) });
    } finally {
      closeFds(message);
    }
  }

  #send({ request }: Message, { payload, fd }: Reply): void {
    const bytes = encodeReply(request, payload);
    const fds = fd === undefined ? [] : [fd];
    try {
      const sent = this.#passing.send(this.#options.fd, bytes, fds);
      // There is room for a reply unless the front end does not read any.
      if (sent === bytes.length) return;
      throw protocolError('replies', 'a front end that reads them', `${sent ?? 0} bytes sent`);
    } finally {
      for (const one of fds) closeSync(one);
    }
  }
}
