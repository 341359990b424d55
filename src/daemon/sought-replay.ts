import { messageOf } from '../base/errors.ts';
import { traceStoreLimits } from '../base/limits.ts';
import type { Blob } from '../blob/blob.ts';
import type { Stack } from '../image/stack.ts';
import type { Replay } from '../prefetch/replay.ts';
import { imageKey } from '../trace/store.ts';
import { updateFacts } from '../trace/store-catalog.ts';
import type { Trace } from '../trace/trace.ts';
import type { AttachmentOptions } from './attachment.ts';
import type { ImageDescription } from './image-description.ts';
import { LaterReplay } from './later-replay.ts';
import { olderTraces } from './older-traces.ts';
import { replayTrace } from './open-image.ts';
import { packedChoice } from './packed-replay.ts';
import { traceImageOf } from './foreign-trace.ts';
import { rebaseForImage } from './rebase-image.ts';
import type { Runtime } from './runtime.ts';
import { repositoryOf, traceFromRegistry } from './trace-search.ts';

/** A trace that was found while the device served reads. */
export interface FoundTrace {
  readonly trace: Trace;
  /** The registry had it for this image; or it is an older image's, carried forward. */
  readonly source: 'registry' | 'older';
}

/**
 * The replay of a trace that has to be looked for: in the registry, and in mode auto among older images of
 * the repository. The device serves reads meanwhile, and nothing waits for it.
 */
export class SoughtReplay {
  readonly replay: Replay;
  /** Undefined while it is looked for, null when there is none. */
  found: FoundTrace | null | undefined = undefined;
  readonly #runtime: Runtime;
  readonly #image: ImageDescription;
  readonly #options: AttachmentOptions;
  readonly #blobs: readonly Blob[];
  /** Null when the image could not be opened. */
  readonly #opening: Promise<Stack | null>;

  /** Begins to look. */
  constructor(
    runtime: Runtime,
    image: ImageDescription,
    options: AttachmentOptions,
    opened: { blobs: readonly Blob[]; opening: Promise<Stack> },
  ) {
    this.#runtime = runtime;
    this.#image = image;
    this.#options = options;
    this.#blobs = opened.blobs;
    this.#opening = opened.opening.catch(() => null);
    this.replay = new LaterReplay(
      (signal) => this.#make(signal),
      (trace) => {
        const packed = packedChoice(options.packed, null, image, 0);
        return replayTrace(runtime, trace, this.#blobs, options, packed);
      },
      runtime.log,
    );
  }

  async #make(cancelled: AbortSignal): Promise<Trace | null> {
    const { log } = this.#runtime;
    const timeout = AbortSignal.timeout(traceStoreLimits.searchMsMax);
    const signal = AbortSignal.any([cancelled, timeout]);
    let found: FoundTrace | null = null;
    try {
      found = (await this.#fromRegistry(signal)) ?? (await this.#fromOlder(signal));
    } catch (error) {
      if (!cancelled.aborted)
        log.warn({ image: this.#image.name }, `no replay: ${messageOf(error)}`);
    }
    this.found = found;
    if (found === null) {
      const level = this.#options.mode === 'replay' ? 'warn' : 'info';
      log[level]({ image: this.#image.name }, 'no trace of this workload is known');
      return null;
    }
    const { source, trace } = found;
    log.info({ image: this.#image.name, source, records: trace.records.count }, 'trace found');
    return trace;
  }

  async #fromRegistry(signal: AbortSignal): Promise<FoundTrace | null> {
    if (this.#runtime.traceFrom === 'store') return null;
    const { workload } = this.#options;
    const pulled = await traceFromRegistry(this.#runtime, this.#image, workload, signal);
    if (pulled === null) return null;
    // The next start need not ask; this one does not wait for the disk.
    void this.#keep(pulled.trace, pulled.bytes);
    return { trace: pulled.trace, source: 'registry' };
  }

  async #fromOlder(signal: AbortSignal): Promise<FoundTrace | null> {
    if (this.#options.mode !== 'auto') return null;
    const { workload } = this.#options;
    for await (const older of olderTraces(this.#runtime, this.#image, workload, signal)) {
      const stack = await this.#opening;
      if (stack === null) return null;
      const { name } = this.#image;
      const target = { name, image: traceImageOf(this.#image, this.#blobs, stack), stack };
      const { trace, reference } = older;
      const rebased = await rebaseForImage(this.#runtime, target, trace, reference, signal);
      if (rebased !== null) return { trace: rebased.trace, source: 'older' };
    }
    return null;
  }

  async #keep(trace: Trace, bytes: Uint8Array): Promise<void> {
    const { traces, log } = this.#runtime;
    const key = imageKey(this.#image.identity);
    const workload = trace.workload.key;
    try {
      if (key !== imageKey(trace.image) || (await traces.isPinned(key, workload))) return;
      await traces.put(key, workload, bytes);
      await updateFacts(traces, key, workload, (facts) => ({
        ...facts,
        image: this.#image.name,
        repository: repositoryOf(this.#image),
        origin: 'pulled',
      }));
    } catch (error) {
      log.warn({ trace: traces.path(key, workload) }, `not kept: ${messageOf(error)}`);
    }
  }
}
