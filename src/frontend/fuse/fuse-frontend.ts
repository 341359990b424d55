import { rmSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { join } from 'node:path';
import { systemClock, type Clock } from '../../base/clock.ts';
import { codeOf, messageOf, ReplaybdError } from '../../base/errors.ts';
import { fuseLimits, SECTOR_BYTES } from '../../base/limits.ts';
import { silentLogger, type Logger } from '../../base/log.ts';
import type { BlockDevice } from '../../device/block-device.ts';
import { BlockingThread } from '../../../native/blocking-thread.ts';
import { detachLoop, listLoops, type LoopDevice } from '../../../native/loop.ts';
import { unmount, unmountFlags } from '../../../native/mount.ts';
import type { Frontend } from '../frontend.ts';
import { mountFilesystem } from './attach-mount.ts';
import { readMountTable } from './mount-table.ts';
import { defaultRuntimeDirectory, DEVICE_FILE, makeDeviceDirectory } from './runtime-directory.ts';
import { FuseServer, type ReaderModule } from './server.ts';
import { FuseThreads } from './threads.ts';

const WORKERS_DEFAULT = 2;
const READ_AHEAD_KIB_DEFAULT = 128;
const CLOSE_GRACE_MS_DEFAULT = 5000;
const BUSY_PAUSE_MS = 20;

export interface FuseOptions {
  /** The runtime directory, in which the device gets one of its own. */
  directory?: string;
  /** Threads that answer hits. */
  workers?: number;
  /** Threads started ahead; from now on the front end's, also when it fails. */
  threads?: FuseThreads;
  /** Attach a loop device, which is what most file systems can be mounted from. */
  loop?: boolean;
  /** Mount the device's file system on this directory. */
  mount?: string;
  /** Logical block size of the loop device: 512 or 4096. */
  blockBytes?: number;
  /** How far the loop device reads ahead of a sequential reader. */
  readAheadKiB?: number;
  /** How long close() waits for guests to let go before it cuts them off. */
  closeGraceMs?: number;
  /** What workers read hits with; the device's shared data and CachedReader by default. */
  reader?: ReaderModule;
  /** Told when the server cannot go on; guests then see errors. */
  onFailed?: (error: unknown) => void;
  clock?: Clock;
  log?: Logger;
}

/** A device as a file, with a loop device and a mounted file system where they were asked for. */
export interface FuseFrontend extends Frontend {
  readonly kind: 'fuse';
  /** The file that is the device. */
  readonly filePath: string;
  /** /dev/loopN */
  readonly loopDevice: string | null;
  readonly mountPoint: string | null;
}

/**
 * Serves a device through FUSE. Needs what `fusePermitted` checks. Whatever fails, nothing is left
 * behind. Errors: ERR_FUSE_*, ERR_LOOP_*, ERR_FILESYSTEM_UNKNOWN, or an errno.
 */
export async function startFuse(
  device: BlockDevice,
  options: FuseOptions = {},
): Promise<FuseFrontend> {
  const attachment = new FuseAttachment(device, options);
  try {
    await attachment.start();
    return attachment;
  } catch (error) {
    await attachment.close();
    throw error;
  }
}

/** Every step of the start records itself, and close() undoes what is recorded. */
class FuseAttachment implements FuseFrontend {
  readonly kind = 'fuse';
  readonly #device: BlockDevice;
  readonly #options: FuseOptions;
  readonly #clock: Clock;
  readonly #log: Logger;
  readonly #threads: FuseThreads;
  readonly #graceMs: number;
  #directory: string | null = null;
  #server: FuseServer | null = null;
  #loop: LoopDevice | null = null;
  #mountPoint: string | null = null;
  #closing: Promise<void> | null = null;

  constructor(device: BlockDevice, options: FuseOptions) {
    this.#device = device;
    this.#options = options;
    this.#clock = options.clock ?? systemClock;
    this.#log = options.log ?? silentLogger;
    this.#threads = options.threads ?? new FuseThreads(0);
    this.#graceMs = options.closeGraceMs ?? CLOSE_GRACE_MS_DEFAULT;
  }

  get path(): string {
    return this.loopDevice ?? this.filePath;
  }

  get filePath(): string {
    return join(this.#directory ?? '', DEVICE_FILE);
  }

  get loopDevice(): string | null {
    return this.#loop?.device ?? null;
  }

  get mountPoint(): string | null {
    return this.#mountPoint;
  }

  async start(): Promise<void> {
    const { loop = true, mount, directory = defaultRuntimeDirectory() } = this.#options;
    const { reader, onFailed } = this.#options;
    const workers = workerCount(this.#device, this.#options);
    openAttachments.add(this);
    this.#directory = makeDeviceDirectory(directory, this.#device.id);
    this.#server = new FuseServer({
      device: this.#device,
      path: this.filePath,
      workers,
      threads: this.#threads,
      clock: this.#clock,
      log: this.#log,
      ...(reader === undefined ? {} : { reader }),
      ...(onFailed === undefined ? {} : { onFailed }),
    });
    await this.#server.ready;
    if (loop) await this.#attachLoop();
    if (mount !== undefined) {
      const readOnly = this.#device.writer === undefined;
      await mountFilesystem(this.path, mount, { readOnly, thread: this.#threads.blocking });
      this.#mountPoint = mount;
    }
    this.#threads.close();
  }

  async #attachLoop(): Promise<void> {
    const { blockBytes = SECTOR_BYTES, readAheadKiB = READ_AHEAD_KIB_DEFAULT } = this.#options;
    this.#loop = await this.#threads.blocking.call('attachLoop', {
      file: this.filePath,
      sizeBytes: this.#device.virtualSizeBytes,
      readOnly: this.#device.writer === undefined,
      blockBytes,
      readAheadKiB,
    });
    if (!this.#loop.directIo) {
      const { device } = this.#loop;
      this.#log.warn({ loop: device }, `${device}: no direct I/O; data is cached twice`);
    }
  }

  async resize(grow: () => Promise<void>): Promise<void> {
    await grow();
    this.#server?.sizeChanged();
    if (this.#loop === null) return;
    const { fd, number } = this.#loop;
    const request = { file: this.filePath, sizeBytes: this.#device.virtualSizeBytes };
    const thread = new BlockingThread();
    try {
      await thread.call('resizeLoop', fd, number, request);
    } finally {
      thread.close();
    }
  }

  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  async #close(): Promise<void> {
    await this.#settledInTime(this.#settleWrites(), fuseLimits.settleMsMax);
    const controller = new AbortController();
    const letGo = this.#letGo(controller.signal);
    const failure = await this.#settledInTime(letGo);
    if (failure !== null) {
      this.#log.warn({ device: this.#device.id }, `fuse: cutting guests off: ${failure}`);
      controller.abort();
      this.#server?.abort();
      // With the connection gone the call that hung returns, with an error.
      await this.#settledInTime(letGo);
      this.#cutOff();
    }
    await this.#releaseServer();
    this.#threads.close();
    if (this.#server !== null) return;
    openAttachments.delete(this);
    this.#removeDirectory();
  }

  /**
   * Has the kernel write what guests have written, however long that takes: it must not be lost
   * because somebody keeps the mount busy longer than letting go may take.
   */
  async #settleWrites(): Promise<void> {
    if (this.#loop === null || this.#device.writer === undefined) return;
    const { blocking } = this.#threads;
    const { fd, device } = this.#loop;
    const deviceNumber = listLoops().find((loop) => loop.device === device)?.deviceNumber;
    for (const mount of readMountTable()) {
      if (mount.deviceNumber === deviceNumber) await blocking.call('syncFilesystem', mount.target);
    }
    await blocking.call('fsync', fd);
  }

  /** The polite way: each step waits for those who use what it takes away. */
  async #letGo(signal: AbortSignal): Promise<void> {
    if (this.#mountPoint !== null) {
      await this.#unmountWhenFree(this.#mountPoint, signal);
      this.#mountPoint = null;
    }
    if (this.#loop !== null) {
      const { fd } = this.#loop;
      this.#loop = null;
      await this.#threads.blocking.call('detachLoop', fd);
    }
    if (this.#server !== null) {
      await this.#unmountWhenFree(this.#server.path, signal);
      this.#server.unmounted();
    }
  }

  async #unmountWhenFree(target: string, signal: AbortSignal): Promise<void> {
    for (let attempt = 0; attempt < fuseLimits.unmountAttemptsMax; attempt += 1) {
      signal.throwIfAborted();
      try {
        return await this.#threads.blocking.call('unmount', target);
      } catch (error) {
        // Not a mount point (any more): somebody else unmounted it.
        if (['ERR_EINVAL', 'ERR_ENOENT'].includes(codeOf(error))) return;
        if (codeOf(error) !== 'ERR_EBUSY') throw error;
        await this.#clock.sleep(BUSY_PAUSE_MS, signal);
      }
    }
    throw new ReplaybdError('ERR_FUSE_UNMOUNT', `${target}: still in use`, { errno: 'EBUSY' });
  }

  /** What letting go did not get to. The connection is aborted, so nothing here waits for it. */
  #cutOff(): void {
    const { path } = this;
    try {
      if (this.#mountPoint !== null) unmount(this.#mountPoint, unmountFlags.detach);
      this.#mountPoint = null;
      if (this.#loop !== null) detachLoop(this.#loop.fd);
      this.#loop = null;
      this.#server?.detach();
      this.#removeDirectory();
    } catch (error) {
      this.#log.error({ err: error }, `${path}: ${messageOf(error)}`);
    }
  }

  /** At once, for a process that exits. Guests see errors. */
  abandon(): void {
    this.#server?.abort();
    this.#cutOff();
  }

  #removeDirectory(): void {
    if (this.#directory !== null) rmSync(this.#directory, { recursive: true, force: true });
  }

  async #releaseServer(): Promise<void> {
    const server = this.#server;
    if (server === null) return;
    let failure = await this.#settledInTime(server.ended);
    if (failure !== null) {
      // Another namespace may have a copy of the mount; or a worker is still starting.
      this.#log.warn({ path: server.path }, `fuse: cutting the connection: workers ${failure}`);
      server.abort();
      failure = await this.#settledInTime(server.ended, fuseLimits.workersEndMsMax);
    }
    if (failure === null) {
      server.close();
      this.#server = null;
    } else {
      this.#log.error({ path: server.path }, 'fuse: workers do not end; their connection stays');
    }
  }

  /** Null when `work` succeeds in time, else what went wrong. */
  async #settledInTime(work: Promise<void>, ms = this.#graceMs): Promise<string | null> {
    const timer = new AbortController();
    const late = this.#clock.sleep(ms, timer.signal).then(
      () => `not done after ${ms} ms`,
      () => null,
    );
    const done = work.then(() => null, messageOf);
    const failure = await Promise.race([done, late]);
    timer.abort();
    return failure;
  }
}

/**
 * A process that exits joins its threads first, and a worker that waits for the kernel never ends.
 * So what a process did not close is taken down when it exits, before threads are waited for.
 */
const openAttachments = new Set<FuseAttachment>();
process.prependListener('exit', () => {
  for (const attachment of openAttachments) attachment.abandon();
});

/** As many as make sense: cores, and rings of the tap beside the main thread's. */
function workerCount(device: BlockDevice, options: FuseOptions): number {
  const wanted = options.workers ?? Math.min(WORKERS_DEFAULT, availableParallelism());
  const ringsMax =
    options.reader === undefined ? device.shared.tap.rings.length - 1 : fuseLimits.workersMax;
  const count = Math.min(wanted, ringsMax, fuseLimits.workersMax);
  if (count >= 1) return count;
  throw new ReplaybdError(
    'ERR_FUSE_WORKERS',
    `device ${device.id}: expected room for a worker thread, found ${ringsMax} tap rings and ` +
      `${wanted} workers wanted. Open the device with more tap rings.`,
    { errno: 'EINVAL' },
  );
}
