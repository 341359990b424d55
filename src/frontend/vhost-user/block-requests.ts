import { codeOf, messageOf } from '../../base/errors.ts';
import { SECTOR_BYTES } from '../../base/limits.ts';
import { vhostUserLimits } from './limits.ts';
import type { Logger } from '../../base/log.ts';
import type { DeviceWriter } from '../../device/block-device.ts';
import type { ServedDevice } from './block-config.ts';
import type { DescriptorChain } from './chain.ts';
import {
  BLOCK_HEADER_BYTES,
  BLOCK_ID_BYTES,
  blockStatus,
  blockType,
  DISCARD_FLAG_UNMAP,
  DISCARD_SEGMENT_BYTES,
} from './protocol.ts';
import type { Segments } from './segments.ts';
import { ringError } from './vhost-error.ts';

const WORD = 2 ** 32;
/** Reads into the guest's own memory where it is one piece of at least this; smaller ones are copied. */
const DIRECT_BYTES_MIN = 64 * 1024;
/** Reads up to this use a buffer that is there already. */
const BOUNCE_BYTES = 1024 * 1024;

/** An answer that comes later; `bytes` is what it holds until then. */
export interface LaterAnswer {
  /** Never rejects; resolves to the length of the answer. */
  length: Promise<number>;
  bytes: number;
}

export interface BlockRequestsOptions {
  device: ServedDevice;
  log: Logger;
  /** Whether a write may be answered before it is durable: the guest flushes. */
  isWriteback: () => boolean;
  /** The guest flushes. */
  onFlush: () => void;
  /** Aborts reads that wait for data. */
  signal: AbortSignal;
}

/**
 * Virtio's block requests (virtio 1.2, 5.2.6) against a device. How the guest cuts a request into
 * descriptors does not matter: its header is the first bytes it gives, its status the last one it takes.
 */
export class BlockRequests {
  readonly #options: BlockRequestsOptions;
  readonly #header = Buffer.alloc(BLOCK_HEADER_BYTES);
  readonly #headerView = new DataView(this.#header.buffer, this.#header.byteOffset);
  readonly #bounce = Buffer.alloc(BOUNCE_BYTES);
  /** Starts of `#bounce`, by sectors: a length's view is made once. */
  readonly #bounceOf: (Buffer | undefined)[] = [];

  constructor(options: BlockRequestsOptions) {
    this.#options = options;
  }

  /**
   * Gives the length of the answer, when it is in the guest's memory, or the answer's promise.
   * Throws ERR_VIRTQUEUE for a chain that has no room for a header or a status.
   */
  serve({ readable, writable }: DescriptorChain): number | LaterAnswer {
    if (readable.totalBytes < BLOCK_HEADER_BYTES || writable.totalBytes < 1) {
      const found = `${readable.totalBytes} and ${writable.totalBytes} bytes`;
      throw ringError('block request', 'a header and room for a status', found);
    }
    readable.gather(this.#header);
    const type = this.#headerView.getUint32(0, true);
    // Precision is lost only far beyond any device's end.
    const offset =
      (this.#headerView.getUint32(8, true) + this.#headerView.getUint32(12, true) * WORD) *
      SECTOR_BYTES;
    switch (type) {
      case blockType.read:
        return this.#read(offset, writable);
      case blockType.write:
        return this.#write(offset, readable, writable);
      case blockType.flush:
        this.#options.onFlush();
        return this.#change(writable, 0, (writer) => writer.flush());
      case blockType.getId:
        return this.#getId(writable);
      case blockType.discard:
      case blockType.writeZeroes:
        return this.#clear(type, readable, writable);
      default:
        return finish(writable, 0, blockStatus.unsupported);
    }
  }

  #read(offset: number, writable: Segments): number | LaterAnswer {
    const { device, signal } = this.#options;
    const length = writable.totalBytes - 1;
    if (!this.#isInside(offset, length)) return finish(writable, 0, blockStatus.ioError);
    if (length === 0) return finish(writable, 0, blockStatus.ok);
    const direct = length >= DIRECT_BYTES_MIN ? writable.contiguous(length) : null;
    const into = direct ?? this.#bounceFor(length);
    if (device.readCached(offset, into)) {
      if (direct === null) writable.scatter(into);
      return finish(writable, length, blockStatus.ok);
    }
    const data = Buffer.allocUnsafe(length);
    const target = writable.copy();
    const read = device.read(offset, data, signal).then(() => {
      target.scatter(data);
      return finish(target, length, blockStatus.ok);
    });
    return { length: this.#caught(read, 'read', target), bytes: length };
  }

  #write(offset: number, readable: Segments, writable: Segments): number | LaterAnswer {
    const length = readable.totalBytes - BLOCK_HEADER_BYTES;
    if (!this.#isInside(offset, length) || this.#options.device.writer === undefined) {
      return finish(writable, 0, blockStatus.ioError);
    }
    if (length === 0) return finish(writable, 0, blockStatus.ok);
    // A copy, so that what is written is what was checked, whatever the guest does meanwhile.
    const data = Buffer.allocUnsafe(length);
    readable.gather(data, BLOCK_HEADER_BYTES);
    const isDurable = !this.#options.isWriteback();
    return this.#change(writable, length, (writer) => writer.write(offset, data, isDurable));
  }

  /** NUL-padded, and not terminated when it is as long as it may be. */
  #getId(writable: Segments): number {
    const room = writable.totalBytes - 1;
    if (room < BLOCK_ID_BYTES) return finish(writable, 0, blockStatus.ioError);
    const id = Buffer.alloc(BLOCK_ID_BYTES);
    id.write(this.#options.device.id, 'latin1');
    writable.scatter(id);
    return finish(writable, room, blockStatus.ok);
  }

  /** Discard and write-zeroes: a list of ranges, all checked before any is cleared. */
  #clear(type: number, readable: Segments, writable: Segments): number | LaterAnswer {
    const { device, isWriteback } = this.#options;
    if (device.writer === undefined) return finish(writable, 0, blockStatus.unsupported);
    const length = readable.totalBytes - BLOCK_HEADER_BYTES;
    const count = length / DISCARD_SEGMENT_BYTES;
    if (!Number.isInteger(count) || count < 1 || count > vhostUserLimits.discardSegmentsMax) {
      return finish(writable, 0, blockStatus.ioError);
    }
    const data = Buffer.alloc(length);
    readable.gather(data, BLOCK_HEADER_BYTES);
    const allowedFlags = type === blockType.discard ? 0 : DISCARD_FLAG_UNMAP;
    const ranges: { offset: number; length: number }[] = [];
    for (let at = 0; at < data.length; at += DISCARD_SEGMENT_BYTES) {
      if ((data.readUInt32LE(at + 12) & ~allowedFlags) !== 0) {
        return finish(writable, 0, blockStatus.unsupported);
      }
      const offset = Number(data.readBigUInt64LE(at)) * SECTOR_BYTES;
      const sectors = data.readUInt32LE(at + 8);
      const isTooLong = sectors > vhostUserLimits.discardSectorsMax;
      if (isTooLong || offset + sectors * SECTOR_BYTES > device.virtualSizeBytes) {
        return finish(writable, 0, blockStatus.ioError);
      }
      if (sectors > 0) ranges.push({ offset, length: sectors * SECTOR_BYTES });
    }
    const clear = type === blockType.discard ? 'discard' : 'writeZeroes';
    return this.#change(writable, length, async (writer) => {
      for (const range of ranges) await writer[clear](range.offset, range.length);
      if (!isWriteback()) await writer.flush();
    });
  }

  /** Without a writer there is nothing to flush; everything else was refused before. */
  #change(
    writable: Segments,
    bytes: number,
    work: (writer: DeviceWriter) => Promise<void>,
  ): number | LaterAnswer {
    const { writer } = this.#options.device;
    if (writer === undefined) return finish(writable, 0, blockStatus.ok);
    const target = writable.copy();
    const done = work(writer).then(() => finish(target, 0, blockStatus.ok));
    return { length: this.#caught(done, 'change', target), bytes };
  }

  async #caught(work: Promise<number>, what: string, target: Segments): Promise<number> {
    try {
      return await work;
    } catch (error) {
      const { device, signal, log } = this.#options;
      if (!signal.aborted) {
        const details = { device: device.id, code: codeOf(error) };
        log.warn(details, `vhost-user ${what} failed: ${messageOf(error)}`);
      }
      return finish(target, 0, blockStatus.ioError);
    }
  }

  #isInside(offset: number, length: number): boolean {
    return (
      length % SECTOR_BYTES === 0 &&
      length <= vhostUserLimits.requestBytesMax &&
      offset + length <= this.#options.device.virtualSizeBytes
    );
  }

  #bounceFor(length: number): Buffer {
    if (length > BOUNCE_BYTES) return Buffer.allocUnsafe(length);
    const sectors = length / SECTOR_BYTES;
    return (this.#bounceOf[sectors] ??= this.#bounce.subarray(0, length));
  }
}

/** Writes the status; gives the bytes of the answer, which end with it. */
function finish(writable: Segments, dataBytes: number, status: number): number {
  writable.setLastByte(status);
  return dataBytes + 1;
}
