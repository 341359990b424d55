const controller = new AbortController();
let isListening = false;

/**
 * A signal that aborts at the first SIGINT or SIGTERM, so that a command can undo what it did. The
 * second one ends the process at once.
 */
export function interruptSignal(): AbortSignal {
  if (!isListening) {
    isListening = true;
    for (const name of ['SIGINT', 'SIGTERM'] as const) {
      process.on(name, () => {
        if (controller.signal.aborted) process.exit(EXIT_CODES[name]);
        process.exitCode = EXIT_CODES[name];
        controller.abort(new DOMException(`interrupted by ${name}`, 'AbortError'));
      });
    }
  }
  return controller.signal;
}

/** 128 + the signal's number, as shells report it. */
const EXIT_CODES = { SIGINT: 130, SIGTERM: 143 } as const;

/** Resolves when the signal is aborted. */
export async function untilAborted(signal: AbortSignal): Promise<void> {
  if (signal.aborted) return;
  await new Promise<void>((resolve) => {
    signal.addEventListener('abort', () => resolve(), { once: true });
  });
}
