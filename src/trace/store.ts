import { createHash } from 'node:crypto';
import { open, readdir, stat, unlink } from 'node:fs/promises';
import { homedir } from 'node:os';
import { join } from 'node:path';
import { writeFileAtomic } from '../base/atomic-file.ts';
import { codeOf, messageOf, ReplaybdError } from '../base/errors.ts';
import { traceLimits } from '../base/limits.ts';
import { tooLarge } from './trace-errors.ts';
import type { TraceImage } from './trace.ts';

const IMAGE_KEY = /^[0-9a-f]{64}$/;
const FILE_NAME = /^([0-9a-f]{64})\.trace$/;

export interface StoredTrace {
  /** The image's part of the path: `imageKey` of it. */
  readonly image: string;
  readonly workload: string;
  readonly path: string;
  readonly sizeBytes: number;
  readonly modifiedAtMs: number;
}

/**
 * Names an image in the store: the hex digits of the SHA-256 of its layer digests, bottom first, each
 * followed by a line feed. So the same layers have the same traces, whether a reference or a
 * configuration file names them.
 */
export function imageKey(image: Pick<TraceImage, 'layers'>): string {
  const hash = createHash('sha256');
  for (const layer of image.layers) hash.update(`${layer.digest}\n`);
  return hash.digest('hex');
}

/** Where traces live unless told otherwise: the system's folder for root, the user's state else. */
export function defaultTraceFolder(env: NodeJS.ProcessEnv = process.env): string {
  const stateHome = env.XDG_STATE_HOME;
  if (stateHome !== undefined && stateHome.startsWith('/'))
    return join(stateHome, 'replaybd/traces');
  if (process.getuid?.() === 0) return '/var/lib/replaybd/traces';
  return join(env.HOME ?? homedir(), '.local/state/replaybd/traces');
}

/** Traces as files, `<folder>/<image>/<workload>.trace`. */
export class TraceStore {
  readonly folder: string;
  #turn: Promise<unknown> = Promise.resolve();

  constructor(folder: string = defaultTraceFolder()) {
    this.folder = folder;
  }

  /** `image`: as `imageKey` gives it. Throws ERR_TRACE_STORE_KEY for what cannot be a name. */
  path(image: string, workload: string): string {
    for (const key of [image, workload]) {
      if (!IMAGE_KEY.test(key)) {
        throw new ReplaybdError(
          'ERR_TRACE_STORE_KEY',
          `trace store: expected 64 hex digits, found '${key.slice(0, 80)}'`,
        );
      }
    }
    return join(this.folder, image, `${workload}.trace`);
  }

  /** Runs `work` once what was handed in before is over. */
  async inTurn<T>(work: () => Promise<T>): Promise<T> {
    const turn = this.#turn.then(work);
    this.#turn = turn.catch(() => undefined);
    return await turn;
  }

  async put(image: string, workload: string, bytes: Uint8Array): Promise<string> {
    const path = this.path(image, workload);
    await writeFileAtomic(path, bytes);
    return path;
  }

  /** The file's bytes, null when there is none. */
  async get(image: string, workload: string): Promise<Uint8Array | null> {
    return await nullIfAbsent(readTraceFile(this.path(image, workload)));
  }

  /** Removes a trace and what is kept beside it. False when there was none. */
  async remove(image: string, workload: string): Promise<boolean> {
    const removed = (await nullIfAbsent(unlink(this.path(image, workload)))) !== null;
    for (const beside of [this.factsPath(image, workload), this.pinPath(image, workload)]) {
      await nullIfAbsent(unlink(beside));
    }
    return removed;
  }

  /** Where facts that the trace does not hold are kept: `readFacts` reads them. */
  factsPath(image: string, workload: string): string {
    return this.path(image, workload).replace(/\.trace$/, '.json');
  }

  /**
   * A file that is there when the trace is pinned. A file of its own: neither damage of the facts nor
   * somebody who rewrites them at that moment loses it.
   */
  pinPath(image: string, workload: string): string {
    return this.path(image, workload).replace(/\.trace$/, '.pin');
  }

  async isPinned(image: string, workload: string): Promise<boolean> {
    return (await nullIfAbsent(stat(this.pinPath(image, workload)))) !== null;
  }

  /** A pinned trace is neither collected nor replaced by itself. Throws ERR_TRACE_NOT_FOUND. */
  async pin(image: string, workload: string): Promise<void> {
    const path = this.path(image, workload);
    const isThere = async (): Promise<boolean> => (await nullIfAbsent(stat(path))) !== null;
    if (!(await isThere())) throw notFound(path);
    await writeFileAtomic(this.pinPath(image, workload), new Uint8Array(0));
    // Whoever removes the trace puts it aside before looking for a pin: one of the two sees the other.
    if (await isThere()) return;
    await this.unpin(image, workload);
    throw notFound(path);
  }

  /** False when it was not pinned. */
  async unpin(image: string, workload: string): Promise<boolean> {
    return (await nullIfAbsent(unlink(this.pinPath(image, workload)))) !== null;
  }

  /** What the store holds, of one image or of all, in order of path. */
  async list(image?: string): Promise<StoredTrace[]> {
    const images = image === undefined ? await namesIn(this.folder) : [image];
    const found: StoredTrace[] = [];
    for (const folder of images.filter((name) => IMAGE_KEY.test(name))) {
      for (const name of await namesIn(join(this.folder, folder))) {
        const workload = FILE_NAME.exec(name)?.[1];
        if (workload === undefined) continue;
        const path = join(this.folder, folder, name);
        const facts = await nullIfAbsent(stat(path));
        if (facts === null) continue;
        const { size: sizeBytes, mtimeMs: modifiedAtMs } = facts;
        found.push({ image: folder, workload, path, sizeBytes, modifiedAtMs });
        if (found.length >= traceLimits.storeEntriesMax) return found;
      }
    }
    return found;
  }
}

/**
 * Reads a file that may be a trace; never more than the largest trace, or `bytesMax`. Throws
 * ERR_TRACE_NOT_FOUND, ERR_TRACE_READ or ERR_TRACE_LIMIT.
 */
export async function readTraceFile(
  path: string,
  bytesMax: number = traceLimits.fileBytesMax,
): Promise<Uint8Array> {
  try {
    return await readBounded(path, bytesMax);
  } catch (error) {
    if (error instanceof ReplaybdError) throw error;
    if (codeOf(error) === 'ENOENT') {
      throw notFound(path, error);
    }
    throw new ReplaybdError('ERR_TRACE_READ', `${path}: cannot be read: ${messageOf(error)}`, {
      cause: error,
    });
  }
}

function notFound(path: string, cause?: unknown): ReplaybdError {
  return new ReplaybdError(
    'ERR_TRACE_NOT_FOUND',
    `${path}: expected a trace file, found none. \`replaybd trace ls\` lists the local store's.`,
    { cause, errno: 'ENOENT' },
  );
}

async function readBounded(path: string, max: number): Promise<Uint8Array> {
  const file = await open(path, 'r');
  try {
    const { size } = await file.stat();
    if (size > max) throw tooLarge(`${path}: file bytes`, max, size);
    const bytes = new Uint8Array(size);
    let filled = 0;
    while (filled < size) {
      const { bytesRead } = await file.read(bytes, filled, size - filled, filled);
      if (bytesRead === 0) break;
      filled += bytesRead;
    }
    return bytes.subarray(0, filled);
  } finally {
    await file.close();
  }
}

/** In order; none where there is no such folder. */
export async function namesIn(folder: string): Promise<string[]> {
  return ((await nullIfAbsent(readdir(folder))) ?? []).sort();
}

/** Null where a file is not there. */
export async function nullIfAbsent<T>(work: Promise<T>): Promise<T | null> {
  try {
    return await work;
  } catch (error) {
    if (codeOf(error) === 'ENOENT' || codeOf(error) === 'ERR_TRACE_NOT_FOUND') return null;
    throw error;
  }
}
