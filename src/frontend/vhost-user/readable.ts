import { watchReadable } from '../../../native/fd-watch.ts';

/** Resolves when the descriptor can be read or has failed, or when `signal` aborts. */
export async function nextReadable(fd: number, signal: AbortSignal): Promise<void> {
  if (signal.aborted) return;
  await new Promise<void>((resolve) => {
    const stop = (): void => {
      watch.close();
      signal.removeEventListener('abort', stop);
      resolve();
    };
    const watch = watchReadable(fd, stop);
    signal.addEventListener('abort', stop);
  });
}
