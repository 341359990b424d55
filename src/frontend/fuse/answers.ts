import assert from 'node:assert/strict';
import { constants } from 'node:os';
import PQueue from 'p-queue';
import { messageOf, ReplaybdError } from '../../base/errors.ts';
import { fuseLimits, SECTOR_BYTES } from '../../base/limits.ts';
import type { Logger } from '../../base/log.ts';
import type { BlockDevice, DeviceWriter } from '../../device/block-device.ts';
import { send } from './channel.ts';
import type { FuseTask } from './fuse-worker.ts';
import { EIO, ENXIO, FuseReply } from './protocol.ts';

const SEEK_DATA = 3;

/** How much of the device one look at its extents covers. */
const SEEK_STEP_BYTES = 64 * 1024 * 1024;

/** The main thread's half of a FUSE server: does what workers hand over and replies itself. */
export class FuseAnswers {
  readonly #fd: number;
  readonly #device: BlockDevice;
  readonly #log: Logger;
  /** Reads wait for the network, and nothing else may wait behind them. */
  readonly #reads = new PQueue({ concurrency: fuseLimits.answersMax });
  readonly #others = new PQueue({ concurrency: fuseLimits.answersMax });
  readonly #ending = new AbortController();

  constructor(fd: number, device: BlockDevice, log: Logger) {
    this.#fd = fd;
    this.#device = device;
    this.#log = log;
  }

  /** Replies sooner or later, unless the connection ends first. */
  take(task: FuseTask): void {
    const queue = task.kind === 'read' ? this.#reads : this.#others;
    if (queue.size >= fuseLimits.queuedMax) {
      this.#log.error({ device: this.#device.id }, 'fuse: too many requests wait for the device');
      return this.#reply(new FuseReply(0), task.unique, 0, EIO);
    }
    void queue.add(() => this.#answer(task, this.#ending.signal));
  }

  /** Has the kernel ask for the file's size again. Throws what the kernel answers. */
  attributesChanged(): void {
    const notice = new FuseReply(SECTOR_BYTES);
    send(this.#fd, notice, notice.attributesChanged());
  }

  /** The connection is gone: nobody waits for anything any more, and nothing more is replied. */
  abort(): void {
    this.#ending.abort();
    this.#reads.clear();
    this.#others.clear();
  }

  async #answer(task: FuseTask, signal: AbortSignal): Promise<void> {
    const reply = new FuseReply(task.kind === 'read' ? task.size : SECTOR_BYTES);
    let result: number;
    try {
      signal.throwIfAborted();
      result = await this.#perform(task, reply, signal);
    } catch (error) {
      if (signal.aborted) return;
      result = -this.#report(task, error);
    }
    this.#reply(reply, task.unique, Math.max(0, result), Math.max(0, -result));
  }

  #report(task: FuseTask, error: unknown): number {
    this.#log.error({ device: this.#device.id, kind: task.kind, err: error }, messageOf(error));
    return error instanceof ReplaybdError ? constants.errno[error.errno] : EIO;
  }

  /** Fills in the reply's payload and returns its size, or a negative errno. */
  async #perform(task: FuseTask, reply: FuseReply, signal: AbortSignal): Promise<number> {
    switch (task.kind) {
      case 'read':
        return this.#read(task, reply, signal);
      case 'write':
        await this.#writer.write(task.offset, task.data, false);
        return reply.written(task.data.length);
      case 'flush':
        await this.#writer.flush();
        return 0;
      case 'discard':
        await this.#writer.discard(task.offset, task.length);
        return 0;
      case 'writeZeroes':
        await this.#writer.writeZeroes(task.offset, task.length);
        return 0;
      case 'seek': {
        const position = seek(this.#device, task.offset, task.whence === SEEK_DATA);
        return position === null ? -ENXIO : reply.position(position);
      }
    }
  }

  async #read(
    { offset, size, tried }: FuseTask & { kind: 'read' },
    reply: FuseReply,
    signal: AbortSignal,
  ): Promise<number> {
    const skipped = offset % SECTOR_BYTES;
    const into = reply.payload(Math.ceil((skipped + size) / SECTOR_BYTES));
    const start = offset - skipped;
    const isHit = !tried && this.#device.readCached(start, into);
    if (!isHit) await this.#device.read(start, into, signal);
    if (skipped > 0) reply.shift(skipped, size);
    return size;
  }

  get #writer(): DeviceWriter {
    assert.ok(this.#device.writer !== undefined, 'workers refuse writes to a read-only device');
    return this.#device.writer;
  }

  #reply(reply: FuseReply, unique: number, payloadBytes: number, error: number): void {
    // By now the descriptor may be closed, and its number somebody else's.
    if (this.#ending.signal.aborted) return;
    try {
      send(this.#fd, reply, reply.finish(unique, payloadBytes, error));
    } catch (cause) {
      this.#log.error({ device: this.#device.id, err: cause }, 'fuse: the kernel refused a reply');
    }
  }
}

/**
 * The first byte at or after `offset` that is data, or that is a hole, of which the end of the file
 * is one. Null when there is none.
 */
function seek(device: BlockDevice, offset: number, wantsData: boolean): number | null {
  const end = device.virtualSizeBytes;
  if (offset >= end) return null;
  let position = offset - (offset % SECTOR_BYTES);
  while (position < end) {
    const length = Math.min(end - position, SEEK_STEP_BYTES);
    const extents = device.extents?.(position, length) ?? [];
    assert.ok(extents.length > 0, 'extents cover the range that was asked for from its start');
    for (const extent of extents) {
      if (extent.zero !== wantsData) return Math.max(offset, extent.offset);
      position = extent.offset + extent.length;
    }
  }
  return wantsData ? null : end;
}
