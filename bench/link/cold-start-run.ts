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
  },
  allowPositionals: true,
});

const host = new URL(values.image).host;
const runtime = await Runtime.open({
  cacheFolder: values.cache,
  quotaBytes: 2 ** 32,
  registry: { plainHttpHosts: [host] },
  log: createLogger({ level: 'error' }),
});
try {
  const { totalMs, report } = await runOnce({
    runtime,
    image: values.image,
    mode: values.mode as AttachMode,
    tracePath: values.trace,
    guest: { kind: 'mount', command: positionals },
    workFolder: values.work,
    signal: new AbortController().signal,
  });
  const fetcher = runtime.fetcher.stats;
  process.stdout.write(`${JSON.stringify({ totalMs, report, fetcher })}\n`);
} finally {
  await runtime.close();
}
