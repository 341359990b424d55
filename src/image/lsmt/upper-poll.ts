import { AsyncLocalStorage, AsyncResource } from 'node:async_hooks';

/** How often writable layers are looked at. */
const POLL_MS = 250;

interface Polled {
  readonly isDue: () => boolean;
  readonly begin: () => void;
}

/** Where this file was loaded: what the timer does is no single device's. */
const onNobodysBehalf = AsyncLocalStorage.snapshot();
const polled = new Set<Polled>();
let timer: NodeJS.Timeout | null = null;

/**
 * Calls `work` in the context of the caller soon after `isDue`, which must be cheap and is asked every
 * 250 ms, has said so, until the returned function is called. One timer serves all layers: most of
 * those of many devices have nothing to do. It does not keep the process.
 */
export function pollUpper(isDue: () => boolean, work: () => void): () => void {
  const begin = AsyncResource.bind(() => void setImmediate(work));
  const entry = { isDue, begin };
  polled.add(entry);
  timer ??= onNobodysBehalf(() => setInterval(pollAll, POLL_MS).unref());
  return () => {
    polled.delete(entry);
    if (polled.size > 0 || timer === null) return;
    clearInterval(timer);
    timer = null;
  };
}

function pollAll(): void {
  for (const { isDue, begin } of polled) if (isDue()) begin();
}
