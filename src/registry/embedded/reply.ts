import type { IncomingMessage, ServerResponse } from 'node:http';
import { closeSync, openSync, readSync } from 'node:fs';
import type { Fault } from './faults.ts';
import type { Flow, Link } from './link.ts';

/** Where a body comes from: memory, or part of a file. */
export type BodySource =
  { kind: 'bytes'; bytes: Uint8Array } | { kind: 'file'; path: string; start: number; end: number };

export interface Reply {
  status: number;
  headers?: Record<string, string>;
  body?: BodySource;
}

/** A reply of JSON. */
export function jsonReply(
  status: number,
  value: unknown,
  headers: Record<string, string> = {},
): Reply {
  const bytes = Buffer.from(JSON.stringify(value));
  const all = { 'content-type': 'application/json', ...headers };
  return { status, headers: all, body: { kind: 'bytes', bytes } };
}

/** An error as the distribution specification writes it. */
export function errorReply(status: number, code: string, headers?: Record<string, string>): Reply {
  return jsonReply(status, { errors: [{ code, message: code.toLowerCase() }] }, headers);
}

export function sourceLength(body: BodySource | undefined): number {
  if (body === undefined) return 0;
  return body.kind === 'bytes' ? body.bytes.length : body.end - body.start;
}

/** Writes a reply over the link, with its fault. Resolves to the body bytes that were written. */
export function sendReply(
  request: IncomingMessage,
  response: ServerResponse,
  reply: Reply,
  link: Link,
  fault: Fault | undefined,
): Promise<number> {
  const rightLength = sourceLength(reply.body);
  const isHead = request.method === 'HEAD';
  let length = rightLength;
  let isChunked = false;
  if (fault?.kind === 'body-length' && reply.status < 300) {
    length = Math.max(0, rightLength + fault.delta);
    isChunked = fault.framing === 'chunked';
  }
  const headers: Record<string, string> = { ...reply.headers };
  if (!isChunked && reply.status !== 204) headers['content-length'] ??= String(length);
  if (fault?.kind === 'headers') Object.assign(headers, fault.headers);
  response.writeHead(reply.status, headers);
  if (isHead || length === 0) {
    response.end();
    return Promise.resolve(0);
  }
  const { promise, resolve } = Promise.withResolvers<number>();
  const body = reply.body ?? { kind: 'bytes', bytes: new Uint8Array() };
  const flow = new BodyFlow(response, body, length, link, fault, resolve);
  link.begin(flow);
  return promise;
}

/** Writes one body slice by slice. Bytes past the source's end (an over-long body) are zeros. */
class BodyFlow implements Flow {
  readonly #response: ServerResponse;
  readonly #body: BodySource;
  readonly #length: number;
  readonly #link: Link;
  readonly #fault: Fault | undefined;
  readonly #onEnd: (written: number) => void;
  readonly #fd: number | null;
  #position = 0;
  #isOver = false;

  constructor(
    response: ServerResponse,
    body: BodySource,
    length: number,
    link: Link,
    fault: Fault | undefined,
    onEnd: (written: number) => void,
  ) {
    this.#response = response;
    this.#body = body;
    this.#length = length;
    this.#link = link;
    this.#fault = fault;
    this.#onEnd = onEnd;
    this.#fd = body.kind === 'file' ? openSync(body.path, 'r') : null;
    response.once('close', () => this.#finish());
  }

  writeSlice(bytes: number): { written: number; state: 'more' | 'blocked' } {
    const { stopAt } = this;
    const slice = this.#read(Math.min(bytes, stopAt - this.#position));
    this.#corrupt(slice);
    this.#position += slice.length;
    const accepts = slice.length === 0 || this.#response.write(slice);
    const written = slice.length;
    if (this.#position === stopAt) {
      this.#stop();
      return { written, state: 'blocked' };
    }
    if (accepts) return { written, state: 'more' };
    this.#response.once('drain', () => this.#link.resume(this));
    return { written, state: 'blocked' };
  }

  /** How far the body gets. */
  get stopAt(): number {
    const breaksOff = this.#fault?.kind === 'cut' || this.#fault?.kind === 'stall';
    return breaksOff ? Math.min(this.#fault.afterBytes, this.#length) : this.#length;
  }

  #stop(): void {
    if (this.#fault?.kind === 'stall') {
      this.#link.end(this);
    } else if (this.#fault?.kind === 'cut') {
      // Destroyed only once the bytes have left, so that the client sees exactly so many.
      this.#response.write('', () => this.#response.destroy());
      this.#link.end(this);
    } else {
      this.#response.end();
      this.#finish();
    }
  }

  #read(bytes: number): Buffer {
    if (this.#body.kind === 'bytes') {
      const slice = Buffer.alloc(bytes);
      slice.set(this.#body.bytes.subarray(this.#position, this.#position + bytes));
      return slice;
    }
    // Not pooled: the socket holds it until it is written. The page cache answers quickly enough.
    const slice = Buffer.allocUnsafeSlow(bytes);
    const available = Math.max(0, this.#body.end - this.#body.start - this.#position);
    const wanted = Math.min(bytes, available);
    const start = this.#body.start + this.#position;
    const read =
      this.#fd === null || wanted === 0 ? 0 : readSync(this.#fd, slice, 0, wanted, start);
    slice.fill(0, read);
    return slice;
  }

  #corrupt(slice: Buffer): void {
    if (this.#fault?.kind !== 'corrupt') return;
    const index = this.#fault.atByte - this.#position;
    const byte = slice[index];
    if (byte !== undefined) slice[index] = byte ^ 0xff;
  }

  #finish(): void {
    if (this.#isOver) return;
    this.#isOver = true;
    this.#link.end(this);
    if (this.#fd !== null) closeSync(this.#fd);
    this.#onEnd(this.#position);
  }
}
