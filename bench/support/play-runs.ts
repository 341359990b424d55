import { mkdir, mkdtemp, open, readFile, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { alignToGranules, mergeRanges, rangeEnd, type ByteRange } from '../../src/base/range.ts';
import { SECTOR_BYTES } from '../../src/base/limits.ts';
import type { RangeSource } from '../../src/blob/blob.ts';
import { openLocalBlob } from '../../src/blob/local-blob.ts';
import { Attachment, type AttachMode } from '../../src/daemon/attachment.ts';
import { playReads } from '../../src/daemon/player.ts';
import type { ListedRead } from '../../src/daemon/read-list.ts';
import { Runtime } from '../../src/daemon/runtime.ts';
import { openStack, type Stack } from '../../src/image/stack.ts';
import type { PackedMode } from '../../src/prefetch/packed-rule.ts';
import type { QualitySnapshot } from '../../src/prefetch/quality.ts';
import { createRegistryClient } from '../../src/registry/client.ts';
import { DirectoryStore } from '../../src/registry/embedded/store.ts';
import { decodeTrace } from '../../src/trace/decode.ts';
import { encodeTrace } from '../../src/trace/encode.ts';
import { packTrace } from '../../src/trace/hot-blob.ts';
import { describeWorkload } from '../../src/trace/trace.ts';
import { bootReads, otherReads } from './boot-reads.ts';
import { benchImage, REPOSITORY, writeConfig, type BenchImage } from './image.ts';
import type { RegistryProcess } from './registry-process.ts';

/** One play, from attaching to the last byte. */
export interface Run {
  totalMs: number;
  /** From the call that attaches until the registry had the first request. */
  firstRequestMs: number;
  prefetchRequests: number;
  prefetchedBytes: number;
  quality: QualitySnapshot;
}

export interface Need {
  /** Compressed blocks and metadata that the reads touch, to the byte. */
  exactBytes: number;
  /** The same in the cache's granules. */
  granuleBytes: number;
}

export interface Bench {
  readonly registry: RegistryProcess;
  readonly reads: readonly ListedRead[];
  readonly need: Need;
  play(mode: AttachMode, options?: PlayOptions): Promise<Run>;
  /** Packs the recorded trace, and has the registry hold the hot blob. */
  pack(): Promise<void>;
  /** Milliseconds that the original's policy takes for the same reads, decoding left out. */
  refill(): Promise<number>;
  /** Latencies in ms of reads outside the trace, while a replay runs; `seed` varies them. */
  othersDuringReplay(seed: number): Promise<number[]>;
  /** Latencies of the first `count` of the same reads, without a replay. */
  othersAlone(seed: number, count: number): Promise<number[]>;
  close(): Promise<void>;
}

interface PlayOptions {
  concurrency?: number;
  packed?: PackedMode;
  /** A file of the work folder. Default 'trace'. */
  trace?: string;
}

interface Settings {
  totalBytes: number;
  seed: number;
}

const QUOTA_BYTES = 2 ** 34;
const REFILL_BYTES = 256 * 1024;
const OTHERS_MAX = 400;
const WORKLOAD = describeWorkload(['bench-play'], []);

/** Prepares image, registry and reads; `work` may hold them from an earlier time. */
export async function openBench(
  work: string,
  startRegistry: (root: string) => Promise<RegistryProcess>,
  settings: Settings,
): Promise<Bench> {
  await mkdir(work, { recursive: true });
  const image = await benchImage(work);
  const blobs = await Promise.all(image.layers.map(({ path }) => openLocalBlob(path)));
  const stack = await openStack(blobs);
  const registry = await startRegistry(image.registryRoot);
  const reads = bootReads(stack.map, settings.totalBytes, settings.seed);
  const configPath = join(work, 'config.v1.json');
  await writeConfig(image, registry.url, configPath);
  return new PlayBench(work, image, stack, registry, reads, async () => {
    await registry.close();
    await Promise.all(blobs.map((blob) => blob.close()));
  });
}

class PlayBench implements Bench {
  readonly registry: RegistryProcess;
  readonly reads: readonly ListedRead[];
  readonly need: Need;
  readonly close: () => Promise<void>;
  readonly #work: string;
  readonly #image: BenchImage;
  readonly #stack: Stack;

  constructor(
    work: string,
    image: BenchImage,
    stack: Stack,
    registry: RegistryProcess,
    reads: readonly ListedRead[],
    close: () => Promise<void>,
  ) {
    this.#work = work;
    this.#image = image;
    this.#stack = stack;
    this.registry = registry;
    this.reads = reads;
    this.close = close;
    this.need = this.#need();
  }

  async play(
    mode: AttachMode,
    { concurrency = 1, packed = 'off', trace = 'trace' }: PlayOptions = {},
  ): Promise<Run> {
    await this.registry.takeLog();
    const run = async (attachment: Attachment, startedMs: number): Promise<Run> => {
      await playReads({ device: attachment.device, reads: this.reads, concurrency });
      const totalMs = performance.now() - startedMs;
      await attachment.replay?.finished;
      const { quality } = attachment.report();
      const [first] = await this.registry.takeLog();
      return {
        totalMs,
        firstRequestMs: first.arrivedMs - performance.timeOrigin - startedMs,
        prefetchRequests: quality.lanes.prefetch.requests,
        prefetchedBytes: quality.lanes.prefetch.bytes,
        quality,
      };
    };
    return await this.#attached(mode, run, { packed, trace });
  }

  async pack(): Promise<void> {
    const path = join(this.#work, 'trace');
    const trace = decodeTrace(await readFile(path), path);
    const name = join(this.#work, 'config.v1.json');
    const image = { layers: trace.image.layers };
    const hotPath = join(this.#work, 'hot');
    const file = await open(hotPath, 'w+');
    try {
      const packed = await packTrace(trace, { name, image, stack: this.#stack, file });
      await writeFile(path, encodeTrace(packed));
    } finally {
      await file.close();
    }
    await new DirectoryStore(this.#image.registryRoot).importBlob(REPOSITORY, hotPath);
  }

  async refill(): Promise<number> {
    const client = createRegistryClient();
    const address = `${this.registry.url}/v2/${REPOSITORY}/blobs`;
    const sources = this.#image.layers.map(({ digest, sizeBytes }) =>
      client.blobSource(address, digest, sizeBytes),
    );
    const units = this.#image.layers.map(() => new Set<number>());
    const startedMs = performance.now();
    for (const [layer, ranges] of this.#metadata().entries()) {
      for (const range of ranges)
        await this.#refillRange(sources[layer], units[layer], layer, range);
    }
    for (const read of this.reads) {
      for (const [layer, range] of this.#rangesOf(read)) {
        await this.#refillRange(sources[layer], units[layer], layer, range);
      }
    }
    const totalMs = performance.now() - startedMs;
    await client.close();
    return totalMs;
  }

  async othersDuringReplay(seed: number): Promise<number[]> {
    return await this.#attached('replay', async (attachment) => {
      const latencies: number[] = [];
      for (const read of this.#others(seed)) {
        const latencyMs = await timedRead(attachment, read);
        if (attachment.replay === null || attachment.replay.end !== null) break;
        latencies.push(latencyMs);
      }
      return latencies;
    });
  }

  async othersAlone(seed: number, count: number): Promise<number[]> {
    return await this.#attached('off', async (attachment) => {
      const latencies: number[] = [];
      for (const read of this.#others(seed).slice(0, count)) {
        latencies.push(await timedRead(attachment, read));
      }
      return latencies;
    });
  }

  /** Attaches the image with a cold cache and connections yet to be made. */
  async #attached<T>(
    mode: AttachMode,
    use: (attachment: Attachment, startedMs: number) => Promise<T>,
    { packed = 'off', trace = 'trace' }: PlayOptions = {},
  ): Promise<T> {
    const cacheFolder = await mkdtemp(join(this.#work, 'cache-'));
    const runtime = await Runtime.open({ cacheFolder, quotaBytes: QUOTA_BYTES });
    try {
      const startedMs = performance.now();
      const attachment = await Attachment.open(runtime, {
        id: 'bench',
        target: join(this.#work, 'config.v1.json'),
        mode,
        packed,
        workload: WORKLOAD,
        tracePath: join(this.#work, trace),
      });
      try {
        return await use(attachment, startedMs);
      } finally {
        await attachment.close();
      }
    } finally {
      await runtime.close();
      await rm(cacheFolder, { recursive: true, force: true });
    }
  }

  async #refillRange(
    source: RangeSource,
    units: Set<number>,
    layer: number,
    range: ByteRange,
  ): Promise<void> {
    const { sizeBytes } = this.#image.layers[layer];
    const { signal } = new AbortController();
    const first = Math.floor(range.offset / REFILL_BYTES);
    for (let unit = first; unit * REFILL_BYTES < rangeEnd(range); unit += 1) {
      if (units.has(unit)) continue;
      units.add(unit);
      const offset = unit * REFILL_BYTES;
      const length = Math.min(REFILL_BYTES, sizeBytes - offset);
      await source.fetch(offset, length, { lane: 'demand', signal, onData: () => undefined });
    }
  }

  #need(): Need {
    const touched = this.#metadata();
    for (const read of this.reads) {
      for (const [layer, range] of this.#rangesOf(read)) touched[layer].push(range);
    }
    let exactBytes = 0;
    let granuleBytes = 0;
    for (const [layer, ranges] of touched.entries()) {
      const { sizeBytes } = this.#image.layers[layer];
      const granules = ranges.map((range) => alignToGranules(range, sizeBytes));
      for (const range of mergeRanges(ranges)) exactBytes += range.length;
      for (const range of mergeRanges(granules)) granuleBytes += range.length;
    }
    return { exactBytes, granuleBytes };
  }

  /** By layer: what opening it reads. */
  #metadata(): ByteRange[][] {
    return this.#stack.layers.map(({ metadataRanges }) => [...metadataRanges]);
  }

  #rangesOf({ offset, length }: ListedRead): [number, ByteRange][] {
    const pieces = this.#stack.locate(offset / SECTOR_BYTES, length / SECTOR_BYTES);
    return pieces.map((piece) => [piece.layer, this.#stack.blobRangeOf(piece)]);
  }

  #others(seed: number): ListedRead[] {
    return otherReads(this.#stack.map, this.reads, OTHERS_MAX, 1000 + seed);
  }
}

async function timedRead(attachment: Attachment, read: ListedRead): Promise<number> {
  await new Promise((resolve) => setTimeout(resolve, read.thinkUs / 1000));
  const into = Buffer.alloc(read.length);
  const startedMs = performance.now();
  await attachment.device.read(read.offset, into);
  return performance.now() - startedMs;
}
