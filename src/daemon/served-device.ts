import { messageOf, ReplaybdError } from '../base/errors.ts';
import { daemonLimits } from '../base/limits.ts';
import type { BlockDevice } from '../device/block-device.ts';
import type { Frontend, FrontendRequest, PreparedFrontend } from '../frontend/frontend.ts';
import { prepareFrontend } from '../frontend/frontends.ts';
import type { LatencyBucket } from '../prefetch/histogram.ts';
import { attachmentOptions, type AttachParameters } from './attach-parameters.ts';
import { Attachment, type AttachmentOptions, type AttachmentReport } from './attachment.ts';
import { runFor, type FaultContext } from './faults.ts';
import type { Runtime } from './runtime.ts';

/**
 *   opening --> ready --> closing --> gone
 *      |          |          ^
 *      '--> failed <'--------'
 */
export type DeviceState = 'opening' | 'ready' | 'closing' | 'failed';

/** A device for people and programs, whatever its state. */
export interface DeviceSummary {
  readonly device: string;
  readonly state: DeviceState;
  /** Why it failed; null otherwise. */
  readonly failure: string | null;
  readonly image: string;
  readonly frontend: string;
  /** What a guest opens; null while there is no front end. */
  readonly path: string | null;
  readonly mount: string | null;
  /** 'auto' until it is known what came of it. */
  readonly mode: string;
  /** Null until the device is open. */
  readonly virtualSizeBytes: number | null;
  readonly readyMs: number | null;
}

/** What a resize did. */
export interface ResizeFacts {
  readonly device: string;
  readonly previousBytes: number;
  readonly virtualSizeBytes: number;
}

/** What an attach may bring with it beside its parameters. */
export interface ServeOptions {
  /** Ends an opening; a device that is ready is detached instead. */
  readonly signal?: AbortSignal;
  /** Serves the device instead of a front end of the table; its kind is that of the parameters. */
  readonly prepare?: (request: FrontendRequest) => PreparedFrontend | Promise<PreparedFrontend>;
  /** See AttachmentOptions. */
  readonly writesResult?: boolean;
  /** For pictures of a run. */
  readonly onTouch?: AttachmentOptions['onTouch'];
}

/**
 * How a device ends. 'detach': for good, with what a former process has left of it. 'replace': another
 * one takes its place, and what was left is for that one. 'leave': the process ends and the device
 * shall not: guests wait, where they can.
 */
export type DeviceEnd = 'detach' | 'replace' | 'leave';

/** A device of this process, from the moment it is asked for until it is gone. */
export class ServedDevice {
  readonly parameters: AttachParameters;
  /** Resolves when the device can be used; rejects when it cannot be opened. */
  readonly ready: Promise<void>;
  /** Resolves when somebody has begun to end the device. */
  readonly ended: Promise<void>;
  readonly #end = Promise.withResolvers<void>();
  readonly #runtime: Runtime;
  readonly #directory: string;
  readonly #context: FaultContext = { onFault: (error) => this.fail(error) };
  readonly #interrupt = new AbortController();
  #state: DeviceState = 'opening';
  #failure: string | null = null;
  #attachment: Attachment | null = null;
  #prepared: PreparedFrontend | null = null;
  #frontend: Frontend | null = null;
  #closing: Promise<AttachmentReport | null> | null = null;

  /** Begins to open the device. `directory` is the runtime directory. */
  constructor(
    runtime: Runtime,
    directory: string,
    parameters: AttachParameters,
    options: ServeOptions = {},
  ) {
    this.#runtime = runtime;
    this.#directory = directory;
    this.parameters = parameters;
    this.ended = this.#end.promise;
    const signals = [this.#interrupt.signal, options.signal].filter((one) => one !== undefined);
    const signal = AbortSignal.any(signals);
    this.ready = runFor(this.#context, () => this.#open(options, signal)).catch(
      (error: unknown) => {
        this.fail(error);
        throw error;
      },
    );
    this.ready.catch(() => undefined);
  }

  get id(): string {
    return this.parameters.id;
  }

  get state(): DeviceState {
    return this.#state;
  }

  get frontend(): Frontend | null {
    return this.#frontend;
  }

  /** The open device. Throws ERR_DEVICE_STATE while there is none. */
  get attachment(): Attachment {
    const attachment = this.#attachment;
    if (attachment !== null && this.#state === 'ready') return attachment;
    const why = this.#failure === null ? '' : `: ${this.#failure}`;
    throw new ReplaybdError('ERR_DEVICE_STATE', `device ${this.id} is ${this.#state}${why}.`, {
      errno: 'EBUSY',
    });
  }

  /** Of an open device, also one that has failed since; null otherwise. */
  get report(): AttachmentReport | null {
    return this.#attachment?.report() ?? null;
  }

  /** Of an open device; empty otherwise. */
  get missLatencyBuckets(): LatencyBucket[] {
    return this.#attachment?.quality.latencyBuckets() ?? [];
  }

  get summary(): DeviceSummary {
    const { image, frontend, mode, frontendParameters } = this.parameters;
    const attachment = this.#attachment;
    return {
      ...{ device: this.id, state: this.#state, failure: this.#failure },
      ...{ image, frontend, path: this.#frontend?.path ?? null },
      mount: frontendParameters.mount ?? null,
      mode: attachment?.mode ?? mode,
      virtualSizeBytes: attachment?.device.virtualSizeBytes ?? null,
      readyMs: attachment?.readyMs ?? null,
    };
  }

  /**
   * Makes a writable device larger while guests use it. To the present size: tells them again. Errors:
   * ERR_DEVICE_STATE; ERR_RESIZE_FRONTEND when guests of this front end cannot be told, and nothing has
   * changed; those of Attachment.grow; those of telling the guests, with the device grown.
   */
  async resize(virtualSizeBytes: number): Promise<ResizeFacts> {
    const { attachment } = this;
    const previousBytes = attachment.device.virtualSizeBytes;
    const frontend = this.#frontend;
    if (frontend?.resize === undefined) {
      throw new ReplaybdError(
        'ERR_RESIZE_FRONTEND',
        `device ${this.id}: guests of front end ${this.parameters.frontend} cannot be told of a new ` +
          'size. Detach the device, and run replaybd resize --config.',
        { errno: 'EINVAL' },
      );
    }
    await frontend.resize(() => attachment.grow(virtualSizeBytes));
    return { device: this.id, previousBytes, virtualSizeBytes };
  }

  /**
   * Something that only this device depends on is broken: its guests get EIO from now on, until
   * somebody detaches it. Those of a device that was never opened here have nobody to answer them.
   */
  fail(cause: unknown): void {
    if (this.#state === 'closing' || this.#failure !== null) return;
    this.#failure = messageOf(cause);
    if (!this.#interrupt.signal.aborted) {
      this.#runtime.log.error({ err: cause, device: this.id }, `device ${this.id} has failed`);
    }
    this.#state = 'failed';
    this.#attachment?.device.fail(cause);
  }

  /** Ends the device, whatever it is doing; what came of it, or null if it never was ready. */
  close(how: DeviceEnd = 'detach'): Promise<AttachmentReport | null> {
    if (this.#closing === null) {
      this.#state = 'closing';
      this.#closing = runFor(this.#context, () => this.#close(how));
    }
    return this.#closing;
  }

  async #open(options: ServeOptions, signal: AbortSignal): Promise<void> {
    const { id, frontend, frontendParameters } = this.parameters;
    const prepare =
      options.prepare ?? ((request: FrontendRequest) => prepareFrontend(frontend, request));
    const prepared = await prepare({
      ...{ id, parameters: frontendParameters, directory: this.#directory },
      ...{ clock: this.#runtime.clock, log: this.#runtime.log },
      onFailed: (error) => this.fail(error),
    });
    this.#prepared = prepared;
    const attachment = await this.#openImage(options, prepared, signal);
    try {
      signal.throwIfAborted();
      const served = await prepared.start(attachment.device satisfies BlockDevice);
      this.#frontend = served;
      signal.throwIfAborted();
    } catch (error) {
      await this.#frontend?.close();
      this.#frontend = null;
      await attachment.close();
      throw error;
    }
    this.#attachment = attachment;
    if (this.#state === 'opening') this.#state = 'ready';
    // A fault while it was opened was told already.
    else if (this.#failure !== null) attachment.device.fail(this.#failure);
  }

  async #openImage(
    { onTouch, writesResult }: ServeOptions,
    prepared: PreparedFrontend,
    signal: AbortSignal,
  ): Promise<Attachment> {
    try {
      signal.throwIfAborted();
      return await Attachment.open(this.#runtime, {
        ...attachmentOptions(this.parameters),
        readerThreads: prepared.readerThreads,
        onFault: (error) => this.fail(error),
        signal,
        ...(onTouch === undefined ? {} : { onTouch }),
        ...(writesResult === undefined ? {} : { writesResult }),
      });
    } catch (error) {
      prepared.discard();
      throw error;
    }
  }

  async #endFrontend(how: DeviceEnd): Promise<void> {
    const frontend = this.#frontend;
    if (frontend === null) {
      if (how === 'detach') await this.#prepared?.takeDown?.();
    } else if (how === 'leave' && frontend.release !== undefined) await frontend.release();
    else await frontend.close();
  }

  async #close(how: DeviceEnd): Promise<AttachmentReport | null> {
    this.#end.resolve();
    this.#interrupt.abort(new DOMException('the device is detached', 'AbortError'));
    await this.ready.catch(() => undefined);
    // A front end waits for its guest's reads, and those for a registry that may not answer.
    const hurry = setTimeout(() => this.#attachment?.abandonReads(), daemonLimits.closingReadsMs);
    try {
      await this.#endFrontend(how);
    } finally {
      clearTimeout(hurry);
      this.#frontend = null;
      try {
        await this.#attachment?.close();
      } finally {
        this.#context.onFault = null;
      }
    }
    return (await this.#attachment?.close()) ?? null;
  }
}
