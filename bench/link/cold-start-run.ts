import { parseArgs } from 'node:util';
import { createLogger } from '../../src/base/log.ts';
import type { AttachMode } from '../../src/daemon/attachment.ts';
import { Runtime } from '../../src/daemon/runtime.ts';
import { runOnce } from '../../src/demo/run.ts';

// One run of bench/cold-start.ts, in a process of its own inside the client's network namespace.
// Prints one line of JSON: {totalMs, report}.

const { values, positionals } = parseArgs({
  options: {
    image: { type: 'string', default: '' },
    mode: { type: 'string', default: 'off' },
    trace: { type: 'string', default: '' },
    cache: { type: 'string', default: '' },
    work: { type: 'string', default: '' },
    /** A cache that holds the image already. */
    primed: { type: 'string', default: '' },
  },
  allowPositionals: true,
});

const host = new URL(values.image).host;

interface Start {
  mode: AttachMode;
  cacheFolder: string | null;
  tracePath: string;
}

async function start({ mode, cacheFolder, tracePath }: Start): Promise<object> {
  const runtime = await Runtime.open({
    cacheFolder,
    quotaBytes: 2 ** 32,
    registry: { plainHttpHosts: [host] },
    log: createLogger({ level: 'error' }),
  });
  try {
    const { totalMs, report } = await runOnce({
      runtime,
      image: values.image,
      mode,
      tracePath,
      guest: { kind: 'mount', command: positionals },
      workFolder: values.work,
      signal: new AbortController().signal,
    });
    return { totalMs, report, fetcher: runtime.fetchers.stats };
  } finally {
    await runtime.close();
  }
}

// The process has served a device before, as a daemon has: its own code is loaded and compiled. It keeps
// nothing of that but the code: the caches, the connections and the threads are new.
if (values.primed !== '') {
  await start({ mode: 'off', cacheFolder: values.primed, tracePath: '' });
}
const result = await start({
  mode: values.mode as AttachMode,
  cacheFolder: values.cache,
  tracePath: values.trace,
});
process.stdout.write(`${JSON.stringify(result)}\n`);
