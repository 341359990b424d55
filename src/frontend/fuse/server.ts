import assert from 'node:assert/strict';
import { closeSync, openSync } from 'node:fs';
import { dirname } from 'node:path';
import type { Clock } from '../../base/clock.ts';
import { codeOf, messageOf, ReplaybdError } from '../../base/errors.ts';
import { fuseLimits } from '../../base/limits.ts';
import type { Logger } from '../../base/log.ts';
import type { BlockDevice } from '../../device/block-device.ts';
import { mount, mountFlags, unmount, unmountFlags } from '../../../native/mount.ts';
import { FuseAnswers } from './answers.ts';
import { FuseConnection } from './connection.ts';
import type { FuseWorkerData, WorkerMessage } from './fuse-worker.ts';
import type { FuseFile } from './protocol.ts';
import { RemapAnnouncer, type RemapLine } from './remap.ts';
import { ownerTag } from './owner.ts';
import type { FuseThreads } from './threads.ts';

/** Beside a device's file, for the moment in which its connection is aborted. */
const CONTROL_DIRECTORY = 'control';

/** What worker threads read hits with, instead of the device's own shared data. */
export interface ReaderModule {
  /** Exports `CachedReader`: see WorkerReader in fuse-worker.ts. */
  url: URL;
  /** The first argument of its constructor: anything postMessage can carry. */
  data: unknown;
  /** A writable device: its readers see every write at once, and may make some themselves. */
  sharesWrites?: boolean;
}

export interface FuseServerOptions {
  device: BlockDevice;
  /** An empty file that becomes the device. */
  path: string;
  workers: number;
  threads: FuseThreads;
  reader?: ReaderModule;
  /** Told when a worker is lost, and with it the connection. */
  onFailed?: (error: unknown) => void;
  clock: Clock;
  log: Logger;
}

/**
 * Serves a device as the file `path`: the root of this FUSE mount is a regular file, so there are no
 * names to look up. Worker threads block on /dev/fuse and answer hits; this thread answers the rest.
 */
export class FuseServer {
  readonly path: string;
  /** Resolves when every worker has ended, which they do when the connection has. */
  readonly ended: Promise<void>;
  /** Resolves when the kernel has agreed on the protocol; rejects when the server fails first. */
  readonly ready: Promise<void>;
  readonly #fd: number;
  readonly #connection: FuseConnection;
  readonly #answers: FuseAnswers;
  readonly #remap: RemapAnnouncer;
  readonly #stopRemapping: () => void;
  readonly #log: Logger;
  readonly #onFailed: (error: unknown) => void;
  #isMounted = false;

  /** Mounts, and starts the workers. Throws the errno of open or mount. */
  constructor(options: FuseServerOptions) {
    const { device, path, log } = options;
    this.path = path;
    this.#log = log;
    this.#onFailed = options.onFailed ?? (() => undefined);
    this.#fd = openSync('/dev/fuse', 'r+');
    this.#answers = new FuseAnswers(this.#fd, device, log);
    try {
      // This one may run here: the kernel does not wait for the server's answer to INIT.
      mount({
        source: ownerTag(device.id),
        target: path,
        type: 'fuse.replaybd',
        flags: mountFlags.noSetuid | mountFlags.noDevices | mountFlags.noAccessTime,
        data:
          `fd=${this.#fd},rootmode=100444,user_id=0,group_id=0,allow_other,default_permissions,` +
          `max_read=${fuseLimits.readBytesMax}`,
      });
      this.#isMounted = true;
      this.#connection = new FuseConnection(this.#fd, path);
    } catch (error) {
      this.detach();
      closeSync(this.#fd);
      throw error;
    }
    const ready = Promise.withResolvers<void>();
    this.ready = ready.promise;
    this.#remap = new RemapAnnouncer(options.workers, options.clock);
    this.ended = this.#startWorkers(options, ready);
    this.#stopRemapping =
      device.onRemap?.((shared) => this.#remap.announce(shared)) ?? (() => undefined);
  }

  /** The device has another size: whoever asks for it next is told. */
  sizeChanged(): void {
    this.#answers.attributesChanged();
  }

  /**
   * Cuts the connection: every request, waiting or to come, fails, and workers end. Does not block,
   * and leaves the file mounted while somebody uses it.
   */
  abort(): void {
    this.#answers.abort();
    if (this.#isMounted) this.#unmountByForce();
    try {
      // It lives on where somebody else took the mount away, or has a copy of it.
      this.#connection.abort(`${dirname(this.path)}/${CONTROL_DIRECTORY}`);
    } catch (error) {
      this.#log.error(
        { err: error },
        `${this.path}: cannot end the connection: ${messageOf(error)}`,
      );
    }
  }

  #unmountByForce(): void {
    try {
      unmount(this.path, unmountFlags.force);
      this.#isMounted = false;
    } catch (error) {
      // EBUSY: aborted, and still mounted. EINVAL: somebody else has unmounted it.
      if (codeOf(error) !== 'ERR_EBUSY') this.#isMounted = false;
    }
  }

  /** After abort(), or before there are workers: takes the file away from those who still use it. */
  detach(): void {
    if (this.#isMounted) unmount(this.path, unmountFlags.detach);
    this.#isMounted = false;
  }

  /** To be told once somebody else has unmounted the file. */
  unmounted(): void {
    this.#isMounted = false;
    this.#answers.abort();
  }

  /** Releases the connection; only after `ended`, because workers read from it. */
  close(): void {
    assert.ok(!this.#isMounted, 'unmount before close');
    this.#stopRemapping();
    this.#remap.close();
    closeSync(this.#fd);
  }

  async #startWorkers(
    options: FuseServerOptions,
    ready: PromiseWithResolvers<void>,
  ): Promise<void> {
    const exits = Array.from({ length: options.workers }, (_, index) => {
      const worker = options.threads.takeWorker();
      const remap = this.#remap.line();
      worker.on('message', (message: WorkerMessage) => this.#take(message, ready));
      worker.on('error', (error) => this.#fail(error, ready));
      const ended = new Promise<void>((resolve) => {
        worker.once('exit', () => {
          this.#remap.ended(remap);
          resolve();
        });
      });
      worker.postMessage(workerDataFor(options, this.#fd, index, remap), [remap.port]);
      return ended;
    });
    await Promise.all(exits);
    ready.reject(new ReplaybdError('ERR_FUSE_ENDED', `${this.path}: unmounted while it started`));
  }

  #take(message: WorkerMessage, ready: PromiseWithResolvers<void>): void {
    switch (message.kind) {
      case 'ready':
        if (message.refusal === null) return ready.resolve();
        return this.#fail(new Error(message.refusal), ready);
      case 'fault':
        this.#log.error(
          { path: this.path },
          `fuse: a worker could not use the device's maps: ${message.message}`,
        );
        return;
      default:
        return this.#answers.take(message);
    }
  }

  /** One worker less could mean requests that nobody answers: better an error for everybody. */
  #fail(cause: unknown, ready: PromiseWithResolvers<void>): void {
    const message = `${this.path}: the FUSE server failed: ${messageOf(cause)}`;
    this.#log.error({ err: cause }, message);
    const error = new ReplaybdError('ERR_FUSE_SERVER', message, { cause });
    ready.reject(error);
    this.abort();
    this.#onFailed(error);
  }
}

function workerDataFor(
  options: FuseServerOptions,
  fd: number,
  index: number,
  remap: RemapLine,
): FuseWorkerData {
  const { device, reader } = options;
  const sharesWrites =
    reader === undefined ? device.shared.upper !== undefined : reader.sharesWrites === true;
  const file: FuseFile = {
    sizeBytes: device.virtualSizeBytes,
    readOnly: device.writer === undefined,
  };
  return {
    fd,
    file,
    reader:
      reader === undefined
        ? { module: null, device: device.shared }
        : { module: reader.url.href, data: reader.data },
    // Ring 0 is this thread's.
    ringIndex: index + 1,
    triesFirst: file.readOnly || sharesWrites,
    seeksHoles: device.extents !== undefined,
    remap,
  };
}
