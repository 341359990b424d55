/**
 * How soon does the terminal interface draw, and what does it take of a core?
 *
 *   npm run bench tui -- [--records 100000] [--runs 5] [--seconds 10] [--json]
 *
 * The built tool in a pseudo-terminal of 80 x 24 and of 200 x 60 cells (script, of bsdutils). First frame: from
 * the start of the process to the overview of a trace; beside it, how long Node takes to start. Idle: the
 * timeline, and nobody presses a key. Live: a device's replay, fifty new touches every 100 ms, asked for
 * through a control socket that this process serves. Share of a core: the process's time over the seconds.
 */
import { spawn, spawnSync, type ChildProcess } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import { packageRoot } from '../src/base/package-root.ts';
import { startControl } from '../src/daemon/control.ts';
import type { ControlHandlers, JsonValue } from '../src/daemon/control-routes.ts';
import { encodeTraceWithinLimit } from '../src/trace/encode.ts';
import { describeWorkload, emptyPlan, type Trace } from '../src/trace/trace.ts';
import { randomOf } from './support/boot-reads.ts';
import { formatTable, machineFacts, median } from './support/report.ts';

const { values } = parseArgs({
  options: {
    records: { type: 'string', default: '100000' },
    runs: { type: 'string', default: '5' },
    seconds: { type: 'string', default: '10' },
    json: { type: 'boolean', default: false },
  },
});
const SIZES = [
  [80, 24],
  [200, 60],
] as const;
const TICKS_PER_SECOND = 100;
/** Until what a start causes is over. */
const SETTLE_MS = 3000;
const TOUCHES_PER_PAGE = 50;

const folder = mkdtempSync(join(tmpdir(), 'replaybd-bench-tui-'));
const children = new Set<ChildProcess>();
try {
  const file = join(folder, 'boot.trace');
  writeFileSync(file, encodeTraceWithinLimit(makeTrace(Number(values.records))));
  const control = await startControl({ socketPath: join(folder, 'control'), handlers: handlers() });
  const rows = [];
  for (const [columns, lines] of SIZES) {
    const size = `stty cols ${columns} rows ${lines}`;
    const firstFrameMs = [];
    for (let run = 0; run < Number(values.runs); run += 1) {
      firstFrameMs.push(await firstFrame(size, [file]));
    }
    rows.push({
      screen: `${columns} x ${lines}`,
      'node starts, ms': nodeStartMs(),
      'first frame, ms': median(firstFrameMs),
      'idle, % of a core': await share(size, [file, '--view', '2'], 'record 1,', ''),
      'live, % of a core': await share(
        size,
        ['--socket', control.socketPath],
        'registry/app',
        '\r',
      ),
    });
  }
  await control.close();
  const report = { bench: 'tui', ...machineFacts(), records: Number(values.records), rows };
  process.stdout.write(values.json ? `${JSON.stringify(report, null, 2)}\n` : formatTable(rows));
} finally {
  for (const child of children) child.kill();
  rmSync(folder, { recursive: true, force: true });
}

/** The tool in a pseudo-terminal; the shell becomes the tool, so that script's child is its process. */
function start(size: string, args: readonly string[]): ChildProcess {
  const main = join(packageRoot, 'dist/src/cli/main.js');
  const words = [process.execPath, '--max-semi-space-size=1', main, 'tui', ...args]
    .map((word) => `'${word}'`)
    .join(' ');
  const child = spawn('script', ['-qfc', `${size}; exec ${words}`, '/dev/null'], {
    stdio: ['pipe', 'pipe', 'inherit'],
    env: { ...process.env, TERM: 'xterm-256color', XDG_RUNTIME_DIR: folder },
  });
  children.add(child);
  child.on('exit', () => children.delete(child));
  return child;
}

async function firstFrame(size: string, args: readonly string[]): Promise<number> {
  const startedMs = performance.now();
  const child = start(size, args);
  await shown(child, '? help');
  const elapsedMs = performance.now() - startedMs;
  child.kill();
  return elapsedMs;
}

/** Of a core, in per cent, once the screen has shown something and a key was pressed then. */
async function share(
  size: string,
  args: readonly string[],
  expected: string,
  key: string,
): Promise<number> {
  const child = start(size, args);
  await shown(child, expected);
  await sleep(SETTLE_MS);
  child.stdin?.write(key);
  await sleep(SETTLE_MS);
  const pid = spawnSync('pgrep', ['-P', String(child.pid)])
    .stdout.toString()
    .trim();
  const before = ticksOf(pid);
  await sleep(Number(values.seconds) * 1000);
  const used = ticksOf(pid) - before;
  child.kill();
  return (used / TICKS_PER_SECOND / Number(values.seconds)) * 100;
}

/** Resolves when the screen has been told to show a text; what comes then is thrown away. */
async function shown(child: ChildProcess, expected: string): Promise<void> {
  await new Promise<void>((resolve) => {
    let text = '';
    child.stdout?.on('data', (chunk: Buffer) => {
      if (text.includes(expected)) return;
      text += chunk.toString();
      if (text.includes(expected)) resolve();
    });
  });
}

/** User and system time of a process, all its threads. */
function ticksOf(pid: string): number {
  const fields = readFileSync(`/proc/${pid}/stat`, 'utf8').split(') ')[1].split(' ');
  return Number(fields[11]) + Number(fields[12]);
}

function nodeStartMs(): number {
  const times = Array.from({ length: Number(values.runs) }, () => {
    const startedMs = performance.now();
    spawnSync(process.execPath, ['-e', '0']);
    return performance.now() - startedMs;
  });
  return median(times);
}

/** Accesses all over a disk of 10 GiB, in five layers, as quick as a boot's. */
function makeTrace(count: number): Trace {
  const next = randomOf(1);
  const column = (make: (index: number) => number): number[] =>
    Array.from({ length: count }, (_, i) => make(i));
  const layers = Array.from({ length: 5 }, (_, i) => ({
    digest: `sha256:${String(i).repeat(64)}`,
    sizeBytes: 2 ** 29,
    diffId: null,
  }));
  const disk = { virtualSizeBytes: 10 * 2 ** 30 };
  return {
    image: { manifestDigest: null, ...disk, layers },
    workload: describeWorkload(['/sbin/init'], []),
    recording: {
      startedAtMs: 1_760_000_000_000,
      durationUs: count * 400,
      endReason: 'detach',
      deviceSizeBytes: disk.virtualSizeBytes,
    },
    runs: 1,
    records: {
      count,
      timeUs: Float64Array.from(column((i) => i * 400)),
      waitUs: new Float64Array(count),
      lba: Float64Array.from(column(() => Math.floor(next() * 2_621_000) * 8)),
      sectors: Uint32Array.from(column(() => 8)),
      layer: Uint16Array.from(column((i) => i % 5)),
      weight: new Uint16Array(count).fill(1),
    },
    plan: emptyPlan,
  };
}

/** A daemon with one device that is read all the time; what nobody asks for here is not answered. */
function handlers(): ControlHandlers {
  const next = randomOf(2);
  let told = 0;
  const device = { device: 'app', state: 'ready', failure: null, image: 'registry/app:v1' };
  const summary = { ...device, frontend: 'nbd', path: null, mount: null, mode: 'record' };
  const lane = { requests: 0, bytes: 0, failures: 0, queued: 3, active: 2, activeBytes: 65_536 };
  const unasked = (): never => {
    throw new Error('not asked for');
  };
  return {
    health: unasked,
    devices: () => [{ ...summary, virtualSizeBytes: 2 ** 30, readyMs: 5 }],
    stats: (): JsonValue => ({
      quality: {
        ...{ coverage: 0.5, hits: told, misses: told },
        missLatencyMs: { p95: 20 },
        lanes: { demand: { bytes: told * 4096 }, prefetch: { bytes: told * 8192 } },
      },
      ...{ replay: null, trace: null, fetcher: { demand: lane, prefetch: lane } },
      missLatencyBuckets: [[20, told]],
    }),
    touches: (_, since) => {
      const sources = ['prefetched', 'late', 'demand', 'cached'];
      const touches = Array.from({ length: TOUCHES_PER_PAGE }, (_entry, i) => {
        const offset = Math.floor(next() * 262_144) * 4096;
        return [(told + i) * 2, offset, 4096, sources[i % sources.length]];
      });
      told = since + TOUCHES_PER_PAGE;
      return { next: told, lost: 0, touches };
    },
    metrics: unasked,
    attach: unasked,
    detach: unasked,
    startRecording: unasked,
    stopRecording: unasked,
    snapshot: unasked,
    fork: unasked,
    resize: unasked,
    upstreamSnapshot: unasked,
  };
}
