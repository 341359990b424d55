import type { IncomingMessage, ServerResponse } from 'node:http';
import { closeSync, openSync, readSync } from 'node:fs';
import type { Fault } from './faults.ts';
import type { Flow, Link } from './link.ts';

/** Where a body comes from: memory, or a file's ranges with bytes around them. */
export type BodySource =
  | { kind: 'bytes'; bytes: Uint8Array }
  | { kind: 'file'; path: string; pieces: readonly FilePiece[] };

export type FilePiece = Uint8Array | { start: number; end: number };

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
  if (body.kind === 'bytes') return body.bytes.length;
  return body.pieces.reduce((sum, piece) => sum + pieceLength(piece), 0);
}

function pieceLength(piece: FilePiece): number {
  return piece instanceof Uint8Array ? piece.length : piece.end - piece.start;
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
  readonly #pieces: readonly FilePiece[];
  readonly #length: number;
  readonly #link: Link;
  readonly #fault: Fault | undefined;
  readonly #onEnd: (written: number) => void;
  readonly #fd: number | null;
  #position = 0;
  #pieceIndex = 0;
  #piecePosition = 0;
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
    this.#pieces = body.kind === 'bytes' ? [body.bytes] : body.pieces;
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
    // Not pooled: the socket holds it until it is written. The page cache answers quickly enough.
    const slice = Buffer.allocUnsafeSlow(bytes);
    let filled = 0;
    while (filled < bytes && this.#pieceIndex < this.#pieces.length) {
      const piece = this.#pieces[this.#pieceIndex];
      const left = pieceLength(piece) - this.#piecePosition;
      const target = slice.subarray(filled, filled + left);
      if (!this.#readPiece(piece, target)) break;
      filled += target.length;
      this.#piecePosition += target.length;
      if (target.length < left) break;
      this.#pieceIndex += 1;
      this.#piecePosition = 0;
    }
    slice.fill(0, filled);
    return slice;
  }

  /** Fills `target` from a piece at the current position; false when the file is too short. */
  #readPiece(piece: FilePiece, target: Buffer): boolean {
    const from = this.#piecePosition;
    if (piece instanceof Uint8Array) {
      target.set(piece.subarray(from, from + target.length));
      return true;
    }
    if (this.#fd === null) return false;
    return readSync(this.#fd, target, 0, target.length, piece.start + from) === target.length;
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
