import { mkdir, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { packageRoot } from '../base/package-root.ts';
import type { Logger } from '../base/log.ts';
import { Runtime } from '../daemon/runtime.ts';
import { fusePermitted } from '../frontend/fuse/permitted.ts';
import { defaultRuntimeDirectory } from '../frontend/fuse/runtime-directory.ts';
import { recoverStale } from '../frontend/fuse/stale.ts';
import { buildImage } from '../image/build/image.ts';
import { pushImage } from '../image/build/push-image.ts';
import { coldStartBoundMs } from '../prefetch/bound.ts';
import { createRegistryClient } from '../registry/client.ts';
import { startEmbeddedRegistry } from '../registry/embedded/server.ts';
import { decodeTrace } from '../trace/decode.ts';
import { readTraceFile } from '../trace/store.ts';
import { makeDemoRootfs } from './rootfs.ts';
import { runOnce, type DemoRun, type Guest } from './run.ts';

export interface DemoOptions {
  /** Of the link between this machine and the registry; there and back again. */
  latencyMs: number;
  bytesPerSecond: number;
  signal: AbortSignal;
  log: Logger;
  onProgress: (text: string) => void;
  /** Play reads over NBD even where mounting is permitted. */
  forceNbd?: boolean;
}

export interface DemoResult {
  link: { latencyMs: number; bytesPerSecond: number };
  image: { reference: string; blobBytes: number; virtualSizeBytes: number };
  guest: { kind: Guest['kind']; output: string; why: string | null };
  tracePath: string;
  lazy: DemoRun;
  replay: DemoRun;
  warm: DemoRun;
  /** The time no prefetcher can beat on this link. */
  boundMs: number;
}

const QUOTA_BYTES = 2 ** 31;
/** The reads that an unprivileged run plays: a recording of the same program. */
const RECORDED_READS = join(packageRoot, 'traces', 'node-service.trace');
const TRACE_PATH = join(packageRoot, 'dist', 'demo', 'node-service.trace');

/**
 * The project's main job, end to end, on real input: builds an image of real files, pushes it to a
 * registry behind a slow link, and starts a real program from it three times - cold and lazy while
 * recording, cold with the recording replayed, and warm. Leaves nothing behind but the trace.
 */
export async function runDemo(options: DemoOptions): Promise<DemoResult> {
  const folder = await mkdtemp(join(tmpdir(), 'replaybd-demo-'));
  try {
    return await runIn(folder, options);
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

async function runIn(folder: string, options: DemoOptions): Promise<DemoResult> {
  const { latencyMs, bytesPerSecond, signal, onProgress } = options;
  onProgress('collecting files of this machine: Node, its libraries, node_modules');
  const rootfs = join(folder, 'rootfs');
  await mkdir(rootfs);
  const { command } = await makeDemoRootfs(rootfs, signal);
  const registry = await startEmbeddedRegistry({ root: join(folder, 'registry') });
  try {
    const reference = `${registry.url}/demo/node-service:v1`;
    onProgress('building an overlaybd image of them');
    const image = await buildImage({ rootfs: [rootfs], workFolder: folder, signal });
    onProgress('pushing it to the embedded registry');
    const client = createRegistryClient();
    try {
      await pushImage(client, reference, image, signal);
    } finally {
      await client.close();
    }
    await rm(rootfs, { recursive: true });
    registry.setLink({ latencyMs, bytesPerSecond });
    const { guest, why } = await chooseGuest(command, options);
    const base = { image: reference, guest, folder, options };
    onProgress('1/3 cold start, lazy, recording');
    const lazy = await coldRun({ ...base, cache: 'lazy', mode: 'record', tracePath: TRACE_PATH });
    onProgress('2/3 cold start, replaying');
    const replay = await coldRun({
      ...base,
      cache: 'replay',
      mode: 'replay',
      tracePath: TRACE_PATH,
    });
    onProgress('3/3 warm start');
    const warmTrace = join(folder, 'warm.trace');
    const warm = await coldRun({ ...base, cache: 'replay', mode: 'record', tracePath: warmTrace });
    const { plan } = decodeTrace(await readTraceFile(warmTrace), warmTrace);
    // The manifest is the one round trip before the first blob request.
    const link = { setupMs: latencyMs, firstByteMs: latencyMs, bytesPerSecond };
    const blobBytes = image.layers.reduce((sum, layer) => sum + layer.sizeBytes, 0);
    const { virtualSizeBytes } = lazy.report;
    return {
      link: { latencyMs, bytesPerSecond },
      image: { reference, blobBytes, virtualSizeBytes },
      guest: { kind: guest.kind, output: lazy.output, why },
      tracePath: TRACE_PATH,
      lazy,
      replay,
      warm,
      boundMs: coldStartBoundMs(warm.totalMs, plan, link),
    };
  } finally {
    await registry.close();
  }
}

interface ColdRun {
  image: string;
  guest: Guest;
  folder: string;
  options: DemoOptions;
  /** Name of the cache folder: a new name is a cold cache. */
  cache: string;
  mode: 'record' | 'replay';
  tracePath: string;
}

async function coldRun(run: ColdRun): Promise<DemoRun> {
  const { image, guest, folder, options, mode, tracePath } = run;
  const runtime = await Runtime.open({
    cacheFolder: join(folder, 'cache', run.cache),
    quotaBytes: QUOTA_BYTES,
    log: options.log,
  });
  try {
    const { signal } = options;
    return await runOnce({ runtime, image, mode, tracePath, guest, workFolder: folder, signal });
  } finally {
    await runtime.close();
  }
}

async function chooseGuest(
  command: readonly string[],
  options: DemoOptions,
): Promise<{ guest: Guest; why: string | null }> {
  const permission = fusePermitted();
  if (permission.ok && options.forceNbd !== true) {
    await recoverStale(defaultRuntimeDirectory());
    return { guest: { kind: 'mount', command }, why: null };
  }
  const why = permission.ok ? 'asked for' : permission.reason;
  const trace = decodeTrace(await readTraceFile(RECORDED_READS), RECORDED_READS);
  return { guest: { kind: 'nbd', reads: trace.records }, why };
}
