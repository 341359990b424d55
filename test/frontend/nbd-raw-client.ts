import { once } from 'node:events';
import { createConnection, type Socket } from 'node:net';
import { ByteQueue } from '../../src/frontend/nbd/byte-queue.ts';

export const FIXED_NEWSTYLE = 1;
export const NO_ZEROES = 2;

export interface OptionReply {
  option: number;
  type: number;
  payload: Buffer;
}

export interface Chunk {
  flags: number;
  type: number;
  cookie: bigint;
  payload: Buffer;
}

/** Speaks the protocol byte by byte, so that a test can also speak it wrongly. */
export class RawClient {
  readonly socket: Socket;
  readonly closed: Promise<void>;
  readonly #queue = new ByteQueue();
  #wake: () => void = () => undefined;

  constructor(socket: Socket) {
    this.socket = socket;
    socket.on('error', () => undefined);
    socket.on('data', (chunk: Buffer) => {
      this.#queue.push(chunk);
      this.#wake();
    });
    this.closed = new Promise<void>((resolve) => socket.once('close', () => resolve()));
    void this.closed.then(() => this.#wake());
  }

  static async connect(socketPath: string): Promise<RawClient> {
    const socket = createConnection(socketPath);
    await once(socket, 'connect');
    return new RawClient(socket);
  }

  /** Connects, greets and enters transmission of the default export. */
  static async transmit(socketPath: string, structured: boolean): Promise<RawClient> {
    const client = await RawClient.connect(socketPath);
    await client.greet(FIXED_NEWSTYLE | NO_ZEROES);
    if (structured) {
      client.sendOption(8, Buffer.alloc(0));
      await client.optionReply();
      client.sendOption(10, metaContextData('', ['base:allocation']));
      await client.optionReply();
      await client.optionReply();
    }
    client.sendOption(1, Buffer.alloc(0));
    await client.take(10);
    return client;
  }

  async greet(flags: number): Promise<Buffer> {
    const greeting = await this.take(18);
    const reply = Buffer.alloc(4);
    reply.writeUInt32BE(flags);
    this.socket.write(reply);
    return greeting;
  }

  sendOption(option: number, data: Buffer, length = data.length): void {
    const header = Buffer.alloc(16);
    header.write('IHAVEOPT');
    header.writeUInt32BE(option, 8);
    header.writeUInt32BE(length, 12);
    this.socket.write(Buffer.concat([header, data]));
  }

  async optionReply(): Promise<OptionReply> {
    const header = await this.take(20);
    const payload = await this.take(header.readUInt32BE(16));
    return { option: header.readUInt32BE(8), type: header.readUInt32BE(12), payload };
  }

  send(
    type: number,
    offset: number | bigint,
    length: number,
    more: Partial<RequestExtras> = {},
  ): void {
    this.socket.write(requestBytes(type, offset, length, more));
  }

  async simpleReply(): Promise<{ error: number; cookie: bigint }> {
    const bytes = await this.take(16);
    if (bytes.readUInt32BE(0) !== 0x67446698) throw new Error('not a simple reply');
    return { error: bytes.readUInt32BE(4), cookie: bytes.readBigUInt64BE(8) };
  }

  async chunk(): Promise<Chunk> {
    const header = await this.take(20);
    if (header.readUInt32BE(0) !== 0x668e33ef) throw new Error('not a chunk');
    return {
      flags: header.readUInt16BE(4),
      type: header.readUInt16BE(6),
      cookie: header.readBigUInt64BE(8),
      payload: await this.take(header.readUInt32BE(16)),
    };
  }

  /** Rejects when the server hangs up first. */
  async take(count: number): Promise<Buffer> {
    for (;;) {
      const bytes = this.#queue.take(count);
      if (bytes !== null) return bytes;
      if (this.socket.destroyed) throw new Error('the server hung up');
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
    }
  }
}

export interface RequestExtras {
  flags: number;
  cookie: bigint;
  magic: number;
  data: Buffer;
}

export function requestBytes(
  type: number,
  offset: number | bigint,
  length: number,
  more: Partial<RequestExtras> = {},
): Buffer {
  const header = Buffer.alloc(28);
  header.writeUInt32BE(more.magic ?? 0x25609513, 0);
  header.writeUInt16BE(more.flags ?? 0, 4);
  header.writeUInt16BE(type, 6);
  header.writeBigUInt64BE(more.cookie ?? 1n, 8);
  header.writeBigUInt64BE(BigInt(offset), 16);
  header.writeUInt32BE(length, 24);
  return Buffer.concat([header, more.data ?? Buffer.alloc(0)]);
}

export function infoData(name: string, types: readonly number[]): Buffer {
  const numbers = Buffer.alloc(2 + 2 * types.length);
  numbers.writeUInt16BE(types.length);
  types.forEach((type, index) => numbers.writeUInt16BE(type, 2 + 2 * index));
  return Buffer.concat([lengthAndText(name), numbers]);
}

export function metaContextData(name: string, queries: readonly string[]): Buffer {
  const count = Buffer.alloc(4);
  count.writeUInt32BE(queries.length);
  return Buffer.concat([lengthAndText(name), count, ...queries.map(lengthAndText)]);
}

function lengthAndText(text: string): Buffer {
  const length = Buffer.alloc(4);
  length.writeUInt32BE(Buffer.byteLength(text));
  return Buffer.concat([length, Buffer.from(text)]);
}
