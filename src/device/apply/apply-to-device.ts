import { Worker } from 'node:worker_threads';
import { ReplaybdError } from '../../base/errors.ts';
import { siblingModule } from '../../base/package-root.ts';
import type { AppliedLayer, ApplyProgress } from '../../image/apply/apply-layer.ts';
import type { WritableDevice } from '../writable-device.ts';
import type { ApplyMessage, ApplyWorkerData } from './apply-worker.ts';
import {
  DISK_LINE_BYTES,
  diskFailureOf,
  diskStates,
  type DiskLine,
  type DiskRequest,
} from './blocking-disk.ts';

export interface ApplyToDeviceOptions {
  /** A layer's tar - plain, gzip or zstd - in a file or FIFO; `-` is standard input. */
  input: string;
  /** `sha256:` of the uncompressed tar; undefined: not checked. */
  checksum?: string | undefined;
  onProgress?: ((progress: ApplyProgress) => void) | undefined;
  signal?: AbortSignal | undefined;
}

/**
 * Applies a layer's tar to the ext4 file system on a device; what changes is in its writable layer
 * then, and not flushed. Nobody else may use the device meanwhile. After an error the file system is
 * what it was. Errors: those of applyLayer, ERR_INPUT_READ, ERR_TAR_COMPRESSION, ERR_TAR_CHECKSUM,
 * and those of the device.
 */
export async function applyToDevice(
  device: WritableDevice,
  options: ApplyToDeviceOptions,
): Promise<AppliedLayer> {
  const { input, checksum = null, onProgress, signal } = options;
  signal?.throwIfAborted();
  const line: DiskLine = {
    shared: device.shared,
    sizeBytes: device.virtualSizeBytes,
    state: new SharedArrayBuffer(8),
    data: new SharedArrayBuffer(DISK_LINE_BYTES),
  };
  const workerData: ApplyWorkerData = { ...line, name: device.id, input, checksum };
  const worker = new Worker(siblingModule('apply-worker', import.meta.url), {
    name: 'replaybd-apply',
    workerData,
  });
  const abort = () => worker.postMessage('abort');
  signal?.addEventListener('abort', abort, { once: true });
  try {
    return await new Promise<AppliedLayer>((resolve, reject) => {
      worker.on('message', (message: ApplyMessage) => {
        if (message.kind === 'progress') onProgress?.(message);
        else if (message.kind === 'done') {
          const { entries, bytes, dirty } = message;
          resolve({ entries, bytes, dirty });
        } else if (message.kind === 'failed') {
          const { code, message: text, errno } = message;
          reject(new ReplaybdError(code, text, { errno }));
        } else void answer(device, line, message, signal);
      });
      worker.on('error', reject);
      worker.on('exit', () => reject(new Error('apply: the thread ended early')));
    });
  } catch (error) {
    signal?.throwIfAborted();
    throw error;
  } finally {
    signal?.removeEventListener('abort', abort);
    // It has told how it went, or is gone: it is in no native call, at most waits for its input.
    await worker.terminate();
  }
}

/** Does what the thread cannot do, and wakes it. */
async function answer(
  device: WritableDevice,
  line: DiskLine,
  { kind, offset, length }: DiskRequest,
  signal?: AbortSignal,
): Promise<void> {
  const state = new Int32Array(line.state);
  const data = Buffer.from(line.data);
  let outcome: number = diskStates.done;
  try {
    // Not in shared memory: what reads and writes there may not take it.
    const bytes = Buffer.alloc(length);
    if (kind === 'read') {
      await device.read(offset, bytes, signal);
      bytes.copy(data);
    } else {
      data.copy(bytes, 0, 0, length);
      await device.writer.write(offset, bytes, false);
    }
  } catch (error) {
    outcome = diskStates.failed;
    state[1] = data.write(JSON.stringify(diskFailureOf(error)));
  }
  Atomics.store(state, 0, outcome);
  Atomics.notify(state, 0);
}
