import { spawn, spawnSync, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import {
  copyFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { isDeepStrictEqual, parseArgs } from 'node:util';
import { packageRoot } from '../src/base/package-root.ts';
import type { AttachmentReport } from '../src/daemon/attachment.ts';
import { makeDemoRootfs } from '../src/demo/rootfs.ts';
import { buildImage } from '../src/image/build/image.ts';
import { pushImage } from '../src/image/build/push-image.ts';
import { boundRatio, coldStartBoundMs, gapClosure } from '../src/prefetch/bound.ts';
import { HOST_COST } from '../src/prefetch/simulate/host-cost.ts';
import { simulateColdStart } from '../src/prefetch/simulate/simulate.ts';
import { createRegistryClient } from '../src/registry/client.ts';
import { decodeTrace } from '../src/trace/decode.ts';
import { openShapedLink, type LinkShape } from './link/shaped-link.ts';
import { workloadNamed } from './workloads/definitions.ts';
import { makeWorkloadRootfs, type WorkloadRootfs } from './workloads/rootfs.ts';

// The question: how close does a replayed cold start come to what the link allows?
// The demo image, or one of real software (`--workload nginx`, see bench/workloads), is served over real
// TCP on a shaped link (bench/link) and started lazily while recording, cold with the trace replayed, and
// warm. The registry runs on the same cores as what is measured, so
// by default it is the embedded one, which takes little; `--registry docker` takes Debian's
// docker-registry. Needs root, iproute2 and cc.
// `npm run bench cold-start -- --link 1000:20 --runs 10 --json`.

const ALL_LINKS = [25, 100, 1000].flatMap((megabits) =>
  [5, 20, 50].map((ms) => `${megabits}:${ms}`),
);
const PORT = 5000;
/** Of the shaped link's jumbo frames, less IP's and TCP's headers. */
const SEGMENT_BYTES = 8948;

interface Run {
  totalMs: number;
  report: AttachmentReport;
  /** Processor time: of the process that attaches, and of the registry and the delay line together. */
  cpuMs: number;
  farCpuMs: number;
}

interface Workspace {
  folder: string;
  command: readonly string[];
  /** Compressed, all layers. */
  imageBytes: number;
}

const { values } = parseArgs({
  options: {
    link: { type: 'string', multiple: true },
    runs: { type: 'string', default: '10' },
    'lazy-runs': { type: 'string', default: '3' },
    registry: { type: 'string', default: 'embedded' },
    workload: { type: 'string', default: '' },
    /** Where root file systems of workloads are kept. */
    workloads: { type: 'string', default: join(packageRoot, 'dist/workloads') },
    /** Packs the trace too, and measures starts that read the hot blob. */
    packed: { type: 'boolean', default: false },
    /** Puts a workload's medians into traces/measured.json, in the place of earlier ones. */
    keep: { type: 'boolean', default: false },
    json: { type: 'boolean', default: false },
  },
});
const folder = mkdtempSync(join(tmpdir(), 'replaybd-cold-start-'));
try {
  const workspace = await prepare(folder);
  const rows: Row[] = [];
  for (const link of values.link ?? ALL_LINKS) {
    const [megabitsPerSecond, roundTripMs] = link.split(':').map(Number);
    const row = await measureLink(workspace, { megabitsPerSecond, roundTripMs });
    rows.push(row);
    process.stdout.write(`${values.json ? JSON.stringify(row) : formatRow(row)}\n`);
  }
  if (values.keep) keepMedians(rows);
} finally {
  rmSync(folder, { recursive: true, force: true });
}

interface Medians extends Pick<Row, 'link' | 'lazyMs' | 'replayMs' | 'warmMs'> {
  workload: string;
}

function keepMedians(rows: readonly Row[]): void {
  const path = join(packageRoot, 'traces/measured.json');
  const { workload } = values;
  const measured = rows.map(({ link, ...times }) => {
    const [lazyMs, replayMs, warmMs] = [times.lazyMs, times.replayMs, times.warmMs].map(
      (ms) => Math.round(ms * 10) / 10,
    );
    return { workload, link, lazyMs, replayMs, warmMs };
  });
  const isSame = (one: Medians, other: Medians): boolean =>
    one.workload === other.workload && isDeepStrictEqual(one.link, other.link);
  const kept = (JSON.parse(readFileSync(path, 'utf8')) as Medians[]).filter(
    (old) => !measured.some((row) => isSame(row, old)),
  );
  writeFileSync(path, `${JSON.stringify([...kept, ...measured], null, 2)}\n`);
}

async function prepare(work: string): Promise<Workspace> {
  const { rootfs, command } =
    values.workload === ''
      ? await demoRootfs(join(work, 'rootfs'))
      : makeWorkloadRootfs(workloadNamed(values.workload), values.workloads);
  const image = await buildImage({ rootfs, workFolder: work });
  const registry = await startRegistry(work, '127.0.0.1', null);
  const client = createRegistryClient({ plainHttpHosts: [`127.0.0.1:${PORT}`] });
  const reference = `http://127.0.0.1:${PORT}/demo/node-service:v1`;
  await pushImage(client, reference, image, new AbortController().signal);
  await client.close();
  await stop(registry);
  const imageBytes = image.layers.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0);
  return { folder: work, command, imageBytes };
}

async function demoRootfs(folder: string): Promise<WorkloadRootfs> {
  mkdirSync(folder);
  const { command } = await makeDemoRootfs(folder);
  return { rootfs: [folder], command };
}

interface Row {
  link: LinkShape;
  warmMs: number;
  lazyMs: number;
  replayMs: number;
  /** With `--packed`. */
  packedMs: number | null;
  replayP95Ms: number;
  boundMs: number;
  ratio: number;
  ratioP95: number;
  gapClosure: number;
  /** Compressed bytes that a warm start touches / those of the image. */
  touchedShare: number;
  coverage: number | null;
  accuracy: number | null;
  timeliness: number | null;
  overFetch: number | null;
  requestsPerMiB: number;
  /** What `trace simulate` says of the warm run's trace on this link. */
  predictedReplayMs: number;
  predictedLazyMs: number;
  /** (predicted - measured median) / measured median. */
  replayError: number;
  lazyError: number;
  /** Processor time that a replayed start takes beside a warm one, here and at the other end. */
  hostCpu: { nearMs: number; farMs: number; mib: number; requests: number };
}

async function measureLink(workspace: Workspace, shape: LinkShape): Promise<Row> {
  const link = await openShapedLink(shape);
  const registry = await startRegistry(workspace.folder, link.serverAddress, link.serverNamespace);
  const image = `http://${link.serverAddress}:${PORT}/demo/node-service:v1`;
  const tracePath = join(workspace.folder, 'run.trace');
  const warmTracePath = join(workspace.folder, 'warm.trace');
  // As a daemon's, the process has served a device before: see cold-start-run.ts.
  const run = (mode: string, trace: string, cache: string): Run =>
    runInClient(workspace, link.clientNamespace, {
      image,
      mode,
      trace,
      cache,
      primed: existsSync(primed) ? primed : '',
      far: [registry.pid ?? 0, link.wirePid],
    });
  const cacheFolder = join(workspace.folder, 'cache');
  const primed = join(workspace.folder, 'primed');
  const cold = (mode: string, trace = tracePath): Run => {
    rmSync(cacheFolder, { recursive: true, force: true });
    dropCaches(workspace);
    return run(mode, trace, cacheFolder);
  };
  const packedPath = join(workspace.folder, 'packed.trace');
  try {
    rmSync(primed, { recursive: true, force: true });
    const lazy = repeat(Number(values['lazy-runs']), () => cold('record'));
    renameSync(cacheFolder, primed);
    if (values.packed) {
      copyFileSync(tracePath, packedPath);
      run('pack', packedPath, '');
    }
    const replays: Run[] = [];
    const packed: Run[] = [];
    const warms: Run[] = [];
    for (let i = 0; i < Number(values.runs); i += 1) {
      if (values.packed) packed.push(cold('packed', packedPath));
      replays.push(cold('replay'));
      warms.push(run('record', warmTracePath, cacheFolder));
    }
    return summarise(shape, { lazy, replays, packed, warms }, warmTracePath, workspace.imageBytes);
  } finally {
    await stop(registry);
    await link.close();
  }
}

function summarise(
  shape: LinkShape,
  runs: { lazy: Run[]; replays: Run[]; packed: Run[]; warms: Run[] },
  warmTracePath: string,
  imageBytes: number,
): Row {
  const { roundTripMs, megabitsPerSecond } = shape;
  const warmMs = median(runs.warms.map((run) => run.totalMs));
  const trace = decodeTrace(readFileSync(warmTracePath), warmTracePath);
  const { plan } = trace;
  const predicted = simulateColdStart(trace, {
    link: {
      bytesPerSecond: (megabitsPerSecond * 1e6) / 8,
      roundTripMs,
      segmentBytes: SEGMENT_BYTES,
    },
    warmMs,
    // The warm run fetched the manifest over this link too: its times count from before that.
    warmSetupRoundTrips: 2,
    host: HOST_COST,
  });
  const boundMs = coldStartBoundMs(warmMs, plan, {
    // A connection and the manifest; this registry asks for no token.
    setupMs: 2 * roundTripMs,
    firstByteMs: roundTripMs,
    bytesPerSecond: (megabitsPerSecond * 1e6) / 8,
  });
  const replayed = runs.replays.map((run) => run.totalMs);
  const lazyMs = median(runs.lazy.map((run) => run.totalMs));
  const times = { lazyMs, replayMs: median(replayed), warmMs, boundMs };
  const quality = (pick: (run: Run) => number | null): number =>
    median(runs.replays.map((run) => pick(run) ?? 0));
  return {
    link: shape,
    ...times,
    packedMs: runs.packed.length === 0 ? null : median(runs.packed.map((run) => run.totalMs)),
    replayP95Ms: percentile(replayed, 0.95),
    ratio: boundRatio(times),
    ratioP95: percentile(replayed, 0.95) / boundMs,
    gapClosure: gapClosure(times),
    touchedShare: plan.length.reduce((sum, length) => sum + length, 0) / imageBytes,
    coverage: quality((run) => run.report.quality.coverage),
    accuracy: quality((run) => run.report.quality.accuracy),
    timeliness: quality((run) => run.report.quality.timeliness),
    overFetch: quality((run) => run.report.quality.overFetch),
    requestsPerMiB: quality(({ report }) => {
      const { prefetch } = report.quality.lanes;
      return prefetch.requests / (prefetch.bytes / 2 ** 20);
    }),
    predictedReplayMs: predicted.predictedMs,
    predictedLazyMs: predicted.lazyMs,
    replayError: predicted.predictedMs / times.replayMs - 1,
    lazyError: predicted.lazyMs / lazyMs - 1,
    hostCpu: hostCpuOf(runs),
  };
}

function hostCpuOf({ replays, warms }: { replays: Run[]; warms: Run[] }): Row['hostCpu'] {
  const extra = (of: (run: Run) => number): number =>
    median(replays.map(of)) - median(warms.map(of));
  const lane = (run: Run): { bytes: number; requests: number } => run.report.quality.lanes.prefetch;
  return {
    nearMs: extra((run) => run.cpuMs),
    farMs: extra((run) => run.farCpuMs),
    mib: median(replays.map((run) => lane(run).bytes / 2 ** 20)),
    requests: median(replays.map((run) => lane(run).requests)),
  };
}

interface ClientRun {
  image: string;
  mode: string;
  trace: string;
  cache: string;
  primed: string;
  /** Processes at the other end. */
  far: readonly number[];
}

function runInClient(workspace: Workspace, namespace: string, client: ClientRun): Run {
  const { far, mode: asked, ...run } = client;
  const isPacked = asked === 'packed';
  const mode = isPacked ? 'replay' : asked;
  const script = join(packageRoot, 'dist/bench/link/cold-start-run.js');
  const flags = Object.entries({ ...run, mode, work: workspace.folder }).flatMap(
    ([name, value]) => [`--${name}`, value],
  );
  const node = [process.execPath, '--max-semi-space-size=1', script, ...flags];
  if (isPacked) node.push('--packed');
  const command = [...node, '--', ...workspace.command];
  const farBeforeMs = cpuMsOf(far);
  const result = spawnSync('ip', ['netns', 'exec', namespace, ...command], {
    encoding: 'utf8',
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  if (result.status !== 0) throw new Error(`a ${asked} run failed`);
  return { ...(JSON.parse(result.stdout) as Run), farCpuMs: cpuMsOf(far) - farBeforeMs };
}

/** User and system time so far; in ticks of 10 ms. */
function cpuMsOf(pids: readonly number[]): number {
  return pids.reduce((sum, pid) => {
    const [, after = ''] = readFileSync(`/proc/${pid}/stat`, 'utf8').split(') ');
    const [user, system] = after.split(' ').slice(11, 13).map(Number);
    return sum + (user + system) * 10;
  }, 0);
}

async function startRegistry(
  work: string,
  address: string,
  namespace: string | null,
): Promise<ChildProcess> {
  const command =
    values.registry === 'docker' ? dockerRegistry(work, address) : embeddedRegistry(work, address);
  const [program, ...args] =
    namespace === null ? command : ['ip', 'netns', 'exec', namespace, ...command];
  const server = spawn(program, args, { stdio: ['ignore', 'ignore', 'inherit'] });
  if (namespace === null) await untilListening(address);
  else await sleep(1000);
  if (server.exitCode !== null) throw new Error(`${program} did not start`);
  return server;
}

function embeddedRegistry(work: string, address: string): string[] {
  const script = join(packageRoot, 'dist/bench/link/registry-server.js');
  const root = join(work, 'registry');
  return [process.execPath, '--max-semi-space-size=1', script, root, address, String(PORT)];
}

function dockerRegistry(work: string, address: string): string[] {
  const config = join(work, 'registry.yml');
  writeFileSync(
    config,
    `version: 0.1\nlog: {level: error, accesslog: {disabled: true}}\n` +
      `storage: {filesystem: {rootdirectory: ${join(work, 'registry')}}}\n` +
      `http: {addr: '${address}:${PORT}'}\n`,
  );
  return ['docker-registry', 'serve', config];
}

async function untilListening(address: string): Promise<void> {
  for (let attempt = 0; attempt < 100; attempt += 1) {
    const socket = connect(PORT, address);
    const connected = await once(socket, 'connect').then(
      () => true,
      () => false,
    );
    socket.destroy();
    if (connected) return;
    await sleep(50);
  }
  throw new Error(`the registry does not answer on ${address}:${PORT}`);
}

async function stop(server: ChildProcess): Promise<void> {
  if (server.exitCode !== null) return;
  server.kill();
  await once(server, 'exit');
}

/** Empties the kernel's page cache, then reads what the registry serves: the link is measured. */
function dropCaches(workspace: Workspace): void {
  spawnSync('sync');
  writeFileSync('/proc/sys/vm/drop_caches', '3');
  const root = join(workspace.folder, 'registry');
  for (const entry of readdirSync(root, { recursive: true, withFileTypes: true })) {
    if (entry.isFile()) readFileSync(join(entry.parentPath, entry.name));
  }
}

function repeat<T>(count: number, work: () => T): T[] {
  return Array.from({ length: count }, work);
}

function median(values: readonly number[]): number {
  return percentile(values, 0.5);
}

/** Nearest rank. */
function percentile(values: readonly number[], share: number): number {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.max(0, Math.ceil(sorted.length * share) - 1)];
}

function formatRow(row: object): string {
  const {
    link,
    lazyMs,
    replayMs,
    warmMs,
    boundMs,
    ratio,
    ratioP95,
    gapClosure: closed,
    predictedReplayMs,
    predictedLazyMs,
    touchedShare,
    replayError,
    lazyError,
    packedMs,
    hostCpu,
    ...quality
  } = row as Row;
  const ms = (value: number): string => value.toFixed(0).padStart(6);
  const off = (error: number): string => `${error < 0 ? '' : '+'}${(error * 100).toFixed(0)} %`;
  const percent = (value: number | null): string => `${((value ?? 0) * 100).toFixed(1)} %`;
  const { nearMs, farMs, mib, requests } = hostCpu;
  return (
    `${String(link.megabitsPerSecond).padStart(4)} Mbit/s ${String(link.roundTripMs).padStart(2)} ms` +
    `  lazy${ms(lazyMs)}  replay${ms(replayMs)}  warm${ms(warmMs)}  bound${ms(boundMs)}` +
    `  ratio ${ratio.toFixed(3)} (p95 ${ratioP95.toFixed(3)})  gap closed ${percent(closed)}` +
    `  touched ${percent(touchedShare)}` +
    `  coverage ${percent(quality.coverage)}  accuracy ${percent(quality.accuracy)}` +
    `  timeliness ${percent(quality.timeliness)}  over-fetch ${percent(quality.overFetch)}` +
    `  ${quality.requestsPerMiB.toFixed(2)} requests/MiB` +
    `  predicted: lazy${ms(predictedLazyMs)} (${off(lazyError)})` +
    ` replay${ms(predictedReplayMs)} (${off(replayError)})` +
    `${packedMs === null ? '' : `  packed${ms(packedMs)}`}` +
    `  processor: ${nearMs.toFixed(0)} ms here, ${farMs.toFixed(0)} ms there` +
    ` for ${requests} requests, ${mib.toFixed(1)} MiB`
  );
}
