import { parentPort, workerData } from 'node:worker_threads';
import { applyTar, type AppliedLayer, type ApplyProgress } from '../../image/apply/apply-layer.ts';
import { checked } from '../../image/tar/checksum.ts';
import { decompressed } from '../../image/tar/decompress.ts';
import { inputBytes } from '../../image/tar/input.ts';
import {
  BlockingDisk,
  diskFailureOf,
  type DiskFailure,
  type DiskLine,
  type DiskRequest,
} from './blocking-disk.ts';

// The thread on which a layer is applied to a device: libext2fs cannot wait for promises.

export interface ApplyWorkerData extends DiskLine {
  /** Of the device, for messages. */
  name: string;
  /** A path, or `-`. */
  input: string;
  /** Of the uncompressed bytes; null: not checked. */
  checksum: string | null;
}

export type ApplyMessage =
  | DiskRequest
  | ({ kind: 'progress' } & ApplyProgress)
  | ({ kind: 'done' } & AppliedLayer)
  | ({ kind: 'failed' } & DiskFailure);

const PROGRESS_MS = 100;

async function run(): Promise<void> {
  if (parentPort === null) throw new Error('apply: not on a thread of its own');
  const port = parentPort;
  const { name, input, checksum, ...line } = workerData as ApplyWorkerData;
  const controller = new AbortController();
  // The only message there is.
  port.once('message', () => controller.abort());
  const post = (message: ApplyMessage) => port.postMessage(message);
  let toldMs = 0;
  try {
    const tar = decompressed(inputBytes(input, controller.signal));
    const applied = await applyTar(new BlockingDisk(line, port), {
      name,
      tar: checksum === null ? tar : checked(tar, checksum),
      onProgress: (progress) => {
        if (performance.now() - toldMs < PROGRESS_MS) return;
        toldMs = performance.now();
        post({ kind: 'progress', ...progress });
      },
      signal: controller.signal,
    });
    post({ kind: 'done', ...applied });
  } catch (error) {
    post({ kind: 'failed', ...diskFailureOf(error) });
  } finally {
    port.close();
  }
}

await run();
