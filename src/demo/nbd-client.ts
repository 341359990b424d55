import { once } from 'node:events';
import { createConnection, type Socket } from 'node:net';
import { ReplaybdError } from '../base/errors.ts';

const INIT_MAGIC = 0x4e42444d41474943n;
const OPTION_MAGIC = 0x49484156454f5054n;
const OPTION_EXPORT_NAME = 1;
const CLIENT_FLAGS = 3;
const REQUEST_MAGIC = 0x25609513;
const SIMPLE_REPLY_MAGIC = 0x67446698;
const COMMAND_READ = 0;
const COMMAND_DISCONNECT = 2;

interface PendingRead {
  length: number;
  settle: PromiseWithResolvers<Uint8Array>;
}

/**
 * The least of an NBD client: reads of one export over a unix socket, several at a time. For the
 * demonstration on machines that may not mount; NBD protocol, "fixed newstyle".
 */
export class NbdReader {
  readonly #socket: Socket;
  readonly #pending = new Map<bigint, PendingRead>();
  #received: Buffer;
  #nextCookie = 1n;

  private constructor(socket: Socket, rest: Buffer) {
    this.#socket = socket;
    this.#received = rest;
    socket.on('data', (chunk: Buffer) => this.#onData(chunk));
    socket.on('close', () => this.#failAll());
    socket.on('error', () => this.#failAll());
  }

  /** Connects to the default export. */
  static async connect(socketPath: string): Promise<NbdReader> {
    const socket = createConnection(socketPath);
    await once(socket, 'connect');
    let received: Buffer = await readAtLeast(socket, Buffer.alloc(0), 18);
    if (received.readBigUInt64BE(0) !== INIT_MAGIC) throw protocolError('no NBD server');
    received = received.subarray(18);
    const hello = Buffer.alloc(4 + 16);
    hello.writeUInt32BE(CLIENT_FLAGS, 0);
    hello.writeBigUInt64BE(OPTION_MAGIC, 4);
    hello.writeUInt32BE(OPTION_EXPORT_NAME, 12);
    socket.write(hello);
    received = await readAtLeast(socket, received, 10);
    return new NbdReader(socket, received.subarray(10));
  }

  async read(offset: number, length: number): Promise<Uint8Array> {
    const cookie = this.#nextCookie++;
    const settle = Promise.withResolvers<Uint8Array>();
    this.#pending.set(cookie, { length, settle });
    this.#socket.write(request(COMMAND_READ, cookie, offset, length));
    return await settle.promise;
  }

  async close(): Promise<void> {
    this.#socket.end(request(COMMAND_DISCONNECT, 0n, 0, 0));
    if (!this.#socket.closed) await once(this.#socket, 'close');
  }

  #onData(chunk: Buffer): void {
    this.#received = this.#received.length === 0 ? chunk : Buffer.concat([this.#received, chunk]);
    while (this.#received.length >= 16) {
      const cookie = this.#received.readBigUInt64BE(8);
      const error = this.#received.readUInt32BE(4);
      const pending = this.#pending.get(cookie);
      if (this.#received.readUInt32BE(0) !== SIMPLE_REPLY_MAGIC || pending === undefined) {
        this.#socket.destroy();
        return;
      }
      const length = error === 0 ? pending.length : 0;
      if (this.#received.length < 16 + length) return;
      this.#pending.delete(cookie);
      const data = this.#received.subarray(16, 16 + length);
      this.#received = this.#received.subarray(16 + length);
      if (error === 0) pending.settle.resolve(data);
      else pending.settle.reject(protocolError(`the server answered error ${error}`));
    }
  }

  #failAll(): void {
    for (const { settle } of this.#pending.values()) {
      settle.reject(protocolError('the server closed the connection'));
    }
    this.#pending.clear();
  }
}

function request(command: number, cookie: bigint, offset: number, length: number): Buffer {
  const bytes = Buffer.alloc(28);
  bytes.writeUInt32BE(REQUEST_MAGIC, 0);
  bytes.writeUInt16BE(command, 6);
  bytes.writeBigUInt64BE(cookie, 8);
  bytes.writeBigUInt64BE(BigInt(offset), 16);
  bytes.writeUInt32BE(length, 24);
  return bytes;
}

async function readAtLeast(socket: Socket, rest: Buffer, length: number): Promise<Buffer> {
  let received = rest;
  while (received.length < length) {
    const [chunk]: unknown[] = await once(socket, 'data');
    if (!Buffer.isBuffer(chunk)) throw protocolError('unexpected data');
    received = Buffer.concat([received, chunk]);
  }
  socket.pause();
  setImmediate(() => socket.resume());
  return received;
}

function protocolError(reason: string): ReplaybdError {
  return new ReplaybdError('ERR_NBD_CLIENT', `NBD: ${reason}`);
}
