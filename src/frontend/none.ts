import type { PreparedFrontend } from './frontend.ts';

/** A device without a guest. */
export function prepare(): PreparedFrontend {
  return {
    readerThreads: 0,
    start: async () =>
      await Promise.resolve({
        kind: 'none',
        path: '',
        close: () => Promise.resolve(),
        resize: (grow) => grow(),
      }),
    discard: () => undefined,
  };
}
