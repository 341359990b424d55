import { codeOf, type ErrnoName, messageOf, ReplaybdError } from '../../base/errors.ts';
import { nbdLimits } from '../../base/limits.ts';
import type { Logger } from '../../base/log.ts';
import type { DeviceWriter } from '../../device/block-device.ts';
import type { ByteQueue } from './byte-queue.ts';
import { readExtents, statusExtents } from './extents.ts';
import type { Negotiated } from './handshake.ts';
import { command, commandFlag, nbdError, REQUEST_BYTES } from './protocol.ts';
import { blockStatusReply, errorReply, layoutRead, type ReadPiece, simpleReply } from './reply.ts';
import { parseRequest, payloadBytes, refusalOf, type Request } from './request.ts';

/** 'more': bytes are missing. 'full': a reply has to leave first. 'disconnect': the client goes. */
export type TransmissionStep = 'again' | 'more' | 'full' | 'disconnect';

export interface TransmissionOptions {
  /** Calls `sent` once the bytes have left, or never will. */
  send: (bytes: Buffer, sent: () => void) => void;
  /** A reply has left: 'full' may be over, `idle` may have come true. */
  onSent: () => void;
  /** Aborts reads that wait for data. */
  signal: AbortSignal;
  log: Logger;
}

/** A request whose answer is being worked out. */
interface Admitted {
  request: Request;
  /** Payload bytes held, see `payloadBytes`. */
  held: number;
}

/**
 * The transmission phase: bytes in, replies out, in the order they are ready. A request counts
 * against the connection's limits from here until its reply has left, whoever is slow.
 */
export class Transmission {
  readonly #negotiated: Negotiated;
  readonly #options: TransmissionOptions;
  #waiting: Request | null = null;
  /** A write whose data is still arriving, and how much of it has. */
  #write: { admitted: Admitted; data: Buffer; filled: number } | null = null;
  /** Data of a refused write, to be dropped. */
  #unwanted = 0;
  #outstandingRequests = 0;
  #outstandingBytes = 0;

  constructor(negotiated: Negotiated, options: TransmissionOptions) {
    this.#negotiated = negotiated;
    this.#options = options;
  }

  /** No request is being worked on and no reply is on its way. */
  get idle(): boolean {
    return this.#outstandingRequests === (this.#write === null ? 0 : 1);
  }

  /** Throws ERR_NBD_PROTOCOL when the connection has to be dropped. */
  step(queue: ByteQueue): TransmissionStep {
    if (this.#unwanted > 0) {
      this.#unwanted -= queue.skip(this.#unwanted);
      if (this.#unwanted > 0) return 'more';
    }
    if (this.#write !== null) return this.#takeWriteData(queue);
    if (this.#waiting === null) {
      const bytes = queue.take(REQUEST_BYTES);
      if (bytes === null) return 'more';
      this.#waiting = parseRequest(bytes);
    }
    const request = this.#waiting;
    if (request.type === command.disconnect) return 'disconnect';
    const refusal = refusalOf(request, this.#negotiated);
    const held = refusal === 0 ? payloadBytes(request) : 0;
    if (!this.#hasRoom(held)) return 'full';
    this.#waiting = null;
    this.#outstandingRequests += 1;
    this.#outstandingBytes += held;
    const admitted = { request, held };
    if (refusal !== 0) this.#refuse(admitted, refusal);
    else this.#attempt(admitted);
    return 'again';
  }

  #attempt(admitted: Admitted): void {
    try {
      this.#start(admitted);
    } catch (error) {
      this.#fail(admitted, error);
    }
  }

  #hasRoom(bytes: number): boolean {
    if (this.#outstandingRequests === 0) return true;
    return (
      this.#outstandingRequests < nbdLimits.outstandingRequestsMax &&
      this.#outstandingBytes + bytes <= nbdLimits.outstandingBytesMax
    );
  }

  #refuse(admitted: Admitted, error: number): void {
    const { request } = admitted;
    if (request.type === command.write) {
      if (request.length > nbdLimits.requestBytesMax) {
        throw new ReplaybdError(
          'ERR_NBD_PROTOCOL',
          `NBD client: sent a write of ${request.length} bytes; connection dropped`,
        );
      }
      this.#unwanted = request.length;
    }
    this.#sendError(admitted, error, 'the request is not valid for this export');
  }

  #start(admitted: Admitted): void | Promise<void> {
    const { request } = admitted;
    switch (request.type) {
      case command.read:
        return this.#read(admitted);
      case command.write: {
        this.#write = { admitted, data: Buffer.allocUnsafe(request.length), filled: 0 };
        return undefined;
      }
      case command.blockStatus: {
        const one = (request.flags & commandFlag.reqOne) !== 0;
        const countMax = one ? 1 : nbdLimits.descriptorsMax;
        const extents = statusExtents(this.#negotiated.device, request, countMax);
        return this.#send(admitted, blockStatusReply(request, extents));
      }
      case command.cache:
        return this.#finishLater(admitted, this.#cache(request));
      default:
        return this.#finishLater(admitted, this.#modify(request));
    }
  }

  /** Hits leave at once, without a promise; misses leave when the device has them. */
  #read(admitted: Admitted): void | Promise<void> {
    const { device, structured } = this.#negotiated;
    const { request } = admitted;
    const whole = !structured || (request.flags & commandFlag.df) !== 0;
    const extents = whole
      ? [{ offset: request.offset, length: request.length, zero: false }]
      : readExtents(device, request);
    const reply = layoutRead(request, extents, structured);
    const misses = reply.pieces.filter(({ offset, into }) => !device.readCached(offset, into));
    if (misses.length === 0) return this.#send(admitted, reply.bytes);
    return this.#readMisses(misses).then(
      () => this.#send(admitted, reply.bytes),
      (error: unknown) => this.#fail(admitted, error),
    );
  }

  /** Settles when the device is done with every piece, so that nothing outlives its request. */
  async #readMisses(misses: readonly ReadPiece[]): Promise<void> {
    const { device } = this.#negotiated;
    const reads = misses.map(async ({ offset, into }) => {
      await device.read(offset, into, this.#options.signal);
    });
    const failed = (await Promise.allSettled(reads)).find(({ status }) => status === 'rejected');
    if (failed?.status === 'rejected') throw failed.reason;
  }

  #takeWriteData(queue: ByteQueue): TransmissionStep {
    const write = this.#write;
    if (write === null) return 'again';
    write.filled += queue.copyInto(write.data.subarray(write.filled));
    if (write.filled < write.data.length) return 'more';
    this.#write = null;
    this.#finishLater(write.admitted, this.#modify(write.admitted.request, write.data));
    return 'again';
  }

  /** FLUSH of a read-only device has nothing to do; everything else was refused without writer. */
  async #modify(request: Request, data: Buffer = Buffer.alloc(0)): Promise<void> {
    const { writer } = this.#negotiated.device;
    if (writer === undefined) return;
    const fua = (request.flags & commandFlag.fua) !== 0;
    if (request.type === command.write) return await writer.write(request.offset, data, fua);
    await modifyWithoutData(writer, request);
    if (fua && request.type !== command.flush) await writer.flush();
  }

  /** Reads what holds data, step by step, and forgets it: advice, so failures stay unseen. */
  async #cache({ offset, length }: Request): Promise<void> {
    const { device } = this.#negotiated;
    const scratch = Buffer.allocUnsafe(Math.min(length, nbdLimits.cacheStepBytes));
    const end = offset + length;
    let position = offset;
    while (position < end && !this.#options.signal.aborted) {
      const [extent] = statusExtents(device, { offset: position, length: end - position }, 1);
      const extentBytes = extent?.length ?? end - position;
      const step = extent?.zero === true ? extentBytes : Math.min(extentBytes, scratch.length);
      const into = scratch.subarray(0, step);
      if (extent?.zero !== true && !device.readCached(position, into)) {
        await device.read(position, into, this.#options.signal);
      }
      position += step;
    }
  }

  #finishLater(admitted: Admitted, work: Promise<void>): void {
    const { request } = admitted;
    work.then(
      () => this.#send(admitted, simpleReply(request, nbdError.none)),
      (error: unknown) => {
        if (request.type !== command.cache) return this.#fail(admitted, error);
        this.#options.log.debug({ err: error }, 'NBD cache advice failed');
        return this.#send(admitted, simpleReply(request, nbdError.none));
      },
    );
  }

  #fail(admitted: Admitted, error: unknown): void {
    const { device } = this.#negotiated;
    const { offset, length, type } = admitted.request;
    const details = { device: device.id, type, offset, length, code: codeOf(error) };
    const aborted = this.#options.signal.aborted;
    if (!aborted) this.#options.log.warn(details, `NBD request failed: ${messageOf(error)}`);
    this.#sendError(admitted, aborted ? nbdError.shutdown : errorValue(error), messageOf(error));
  }

  #sendError(admitted: Admitted, error: number, text: string): void {
    const { structured } = this.#negotiated;
    this.#send(admitted, errorReply(admitted.request, error, text, structured));
  }

  #send({ held }: Admitted, bytes: Buffer): void {
    this.#options.send(bytes, () => {
      this.#outstandingRequests -= 1;
      this.#outstandingBytes -= held;
      this.#options.onSent();
    });
  }
}

async function modifyWithoutData(writer: DeviceWriter, request: Request): Promise<void> {
  const { type, offset, length } = request;
  if (type === command.flush) return await writer.flush();
  if (type === command.trim) return await writer.discard(offset, length);
  return await writer.writeZeroes(offset, length);
}

/** The protocol knows few error values; what it lacks is EIO. */
function errorValue(error: unknown): number {
  const errno: ErrnoName = error instanceof ReplaybdError ? error.errno : 'EIO';
  switch (errno) {
    case 'EROFS':
    case 'EACCES':
      return nbdError.permission;
    case 'EINVAL':
      return nbdError.invalid;
    case 'ENOSPC':
      return nbdError.noSpace;
    default:
      return nbdError.io;
  }
}
