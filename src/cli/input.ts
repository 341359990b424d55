import type { Runtime } from '../daemon/runtime.ts';
import { openInput, type OpenedInput, type RemoteOpener } from '../image/input.ts';
import { parseRepositoryAddress } from '../registry/reference.ts';
import { openRuntime, type RuntimeFlags } from './runtime-options.ts';

/**
 * Opens what a command was given, for as long as `work` takes. The cache and the registry client
 * are opened only when a lower turns out to be remote: local layers are read without either.
 */
export async function withInput<T>(
  paths: readonly string[],
  flags: RuntimeFlags,
  work: (input: OpenedInput) => Promise<T>,
): Promise<T> {
  const runtimes: Promise<Runtime>[] = [];
  const openRemote: RemoteOpener = async ({ url, digest, size }) => {
    if (runtimes.length === 0) runtimes.push(openRuntime(flags));
    const { client, cache, fetcher } = await runtimes[0];
    const address = parseRepositoryAddress(url.slice(0, url.lastIndexOf('/')));
    const source = client.blobSource(address, digest, size);
    return fetcher.remoteBlob(await cache.blob(digest, size ?? (await source.size())), source);
  };
  try {
    const input = await openInput(paths, openRemote);
    try {
      return await work(input);
    } finally {
      await input.close();
    }
  } finally {
    for (const runtime of await Promise.allSettled(runtimes)) {
      if (runtime.status === 'fulfilled') await runtime.value.close();
    }
  }
}
