import { readFileSync, writeFileSync } from 'node:fs';
import { open } from 'node:fs/promises';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { createLogger } from '../../src/base/log.ts';
import type { AttachMode } from '../../src/daemon/attachment.ts';
import { Runtime } from '../../src/daemon/runtime.ts';
import { packForImage } from '../../src/daemon/pack-image.ts';
import { runOnce } from '../../src/demo/run.ts';
import { decodeTrace } from '../../src/trace/decode.ts';
import { encodeTrace } from '../../src/trace/encode.ts';
import { pushTrace } from '../../src/trace/referrer.ts';

// One run of bench/cold-start.ts, in a process of its own inside the client's network namespace.
// With `--mode pack`, the trace is packed instead: its hot blob is pushed, and the trace then names it.
// Prints one line of JSON: {totalMs, report, cpuMs}; cpuMs is the processor time of this process.

const { values, positionals } = parseArgs({
  options: {
    image: { type: 'string', default: '' },
    mode: { type: 'string', default: 'off' },
    trace: { type: 'string', default: '' },
    packed: { type: 'boolean', default: false },
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
  const before = process.cpuUsage();
  try {
    const { totalMs, report } = await runOnce({
      runtime,
      image: values.image,
      mode,
      tracePath,
      packed: values.packed ? 'on' : 'off',
      guest: { kind: 'mount', command: positionals },
      workFolder: values.work,
      signal: new AbortController().signal,
    });
    const { user, system } = process.cpuUsage(before);
    const cpuMs = (user + system) / 1000;
    return { totalMs, report, fetcher: runtime.fetchers.stats, cpuMs };
  } finally {
    await runtime.close();
  }
}

/** Packs the trace in its place. */
async function pack(cacheFolder: string): Promise<void> {
  const runtime = await Runtime.open({
    ...{ cacheFolder, quotaBytes: 2 ** 32, registry: { plainHttpHosts: [host] } },
    log: createLogger({ level: 'error' }),
  });
  const hotBlobPath = join(values.work, 'hot');
  const file = await open(hotBlobPath, 'w');
  try {
    const trace = decodeTrace(readFileSync(values.trace), values.trace);
    const packed = encodeTrace(
      await packForImage(runtime, values.image, trace, {
        ...{ file, onProgress: () => undefined, signal: new AbortController().signal },
      }),
    );
    await pushTrace(runtime.client, values.image, packed, { hotBlobPath });
    writeFileSync(values.trace, packed);
  } finally {
    await file.close();
    await runtime.close();
  }
}

if (values.mode === 'pack') {
  await pack(values.primed);
  process.stdout.write('{}\n');
  process.exit();
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
