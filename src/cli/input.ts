import type { Runtime } from '../daemon/runtime.ts';
import type { WritableImage } from '../daemon/writable-image.ts';
import type { OpenedInput, RemoteOpener } from '../image/input.ts';
import { closeOnAbort } from './registry-options.ts';
import { createLog, openRuntime, type RuntimeFlags } from './runtime-options.ts';

/** Opens what a command was given, for as long as `work` takes. */
export async function withInput<T>(
  paths: readonly string[],
  flags: RuntimeFlags,
  work: (input: OpenedInput) => Promise<T>,
  signal?: AbortSignal,
): Promise<T> {
  const withOpened = async (openRemote: RemoteOpener): Promise<T> => {
    const { openInput } = await import('../image/input.ts');
    const input = await openInput(paths, openRemote);
    try {
      return await work(input);
    } finally {
      await input.close();
    }
  };
  return await withRemoteOpener(flags, withOpened, signal);
}

/** Opens an image with its writable layer, to write to it, for as long as `work` takes. */
export async function withWritableImage<T>(
  configPath: string,
  flags: RuntimeFlags,
  work: (image: WritableImage) => Promise<T>,
  signal?: AbortSignal,
): Promise<T> {
  const withOpened = async (openRemote: RemoteOpener): Promise<T> => {
    const { openWritableImage } = await import('../daemon/writable-image.ts');
    const log = await createLog(flags);
    const image = await openWritableImage(configPath, { openRemote, log });
    try {
      return await work(image);
    } finally {
      await image.close();
    }
  };
  return await withRemoteOpener(flags, withOpened, signal);
}

/**
 * What opens remote lowers, for as long as `work` takes. The cache and the registry client are
 * opened only when a lower turns out to be remote: local layers are read without either. What waits for
 * a registry ends when the signal is aborted.
 */
export async function withRemoteOpener<T>(
  flags: RuntimeFlags,
  work: (openRemote: RemoteOpener) => Promise<T>,
  signal?: AbortSignal,
): Promise<T> {
  const runtimes: Promise<Runtime>[] = [];
  const open = async (): Promise<Runtime> => {
    const runtime = await openRuntime(flags);
    closeOnAbort(runtime.client, signal);
    return runtime;
  };
  const openRemote: RemoteOpener = async (lower) => {
    if (runtimes.length === 0) runtimes.push(open());
    return (await runtimes[0]).openRemoteBlob(lower);
  };
  try {
    return await work(openRemote);
  } finally {
    for (const runtime of await Promise.allSettled(runtimes)) {
      if (runtime.status === 'fulfilled') await runtime.value.close();
    }
  }
}
