import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { ReplaybdError } from '../base/errors.ts';
import { SECTOR_BYTES } from '../base/limits.ts';
import { Attachment, type AttachmentReport, type AttachMode } from '../daemon/attachment.ts';
import type { Runtime } from '../daemon/runtime.ts';
import { worstSource } from '../daemon/touch-feed.ts';
import { startFuse } from '../frontend/fuse/fuse-frontend.ts';
import { FuseThreads } from '../frontend/fuse/threads.ts';
import { startNbd } from '../frontend/nbd/server.ts';
import type { PackedMode } from '../prefetch/packed-rule.ts';
import { describeWorkload, type TraceRecords } from '../trace/trace.ts';
import type { TimelineAccess } from '../../tui/timeline.ts';
import { NbdReader } from './nbd-client.ts';

/** How a run reaches its device: a mounted file system, or an NBD client that plays reads. */
export type Guest =
  { kind: 'mount'; command: readonly string[] } | { kind: 'nbd'; reads: TraceRecords };

export interface RunOptions {
  runtime: Runtime;
  /** Image reference. */
  image: string;
  mode: AttachMode;
  tracePath: string;
  /** Default 'auto'. */
  packed?: PackedMode;
  guest: Guest;
  /** For mount points and sockets. */
  workFolder: string;
  signal: AbortSignal;
}

export interface DemoRun {
  /** From the attach to the guest's first output (NBD: to its last read), in ms. */
  totalMs: number;
  /** What the guest printed first. */
  output: string;
  report: AttachmentReport;
  accesses: TimelineAccess[];
}

const FUSE_WORKERS = 2;
const NBD_READS_IN_FLIGHT = 4;

/** Attaches the image, runs the guest until it has answered, and detaches. */
export async function runOnce(options: RunOptions): Promise<DemoRun> {
  const { runtime, guest, signal } = options;
  const accesses: TimelineAccess[] = [];
  const startedMs = runtime.clock.nowMs();
  const threads = guest.kind === 'mount' ? new FuseThreads(FUSE_WORKERS) : null;
  const attachment = await Attachment.open(runtime, {
    id: 'demo',
    target: options.image,
    mode: options.mode,
    tracePath: options.tracePath,
    ...(options.packed === undefined ? {} : { packed: options.packed }),
    workload: describeWorkload(guest.kind === 'mount' ? guest.command : ['nbd'], []),
    readerThreads: FUSE_WORKERS,
    onTouch: (timeUs, offset, touched) => {
      const source = worstSource(touched);
      if (source === null) return;
      accesses.push({ timeMs: timeUs / 1000, lba: offset / SECTOR_BYTES, source });
    },
    signal,
  }).catch((error: unknown) => {
    threads?.close();
    throw error;
  });
  try {
    const output =
      guest.kind === 'mount'
        ? await runMounted(attachment, threads, guest.command, options)
        : await playOverNbd(attachment, guest.reads, options);
    const totalMs = output.atMs - startedMs;
    return { totalMs, output: output.text, report: await attachment.close(), accesses };
  } finally {
    await attachment.close();
  }
}

interface GuestOutput {
  text: string;
  atMs: number;
}

async function runMounted(
  attachment: Attachment,
  threads: FuseThreads | null,
  command: readonly string[],
  options: RunOptions,
): Promise<GuestOutput> {
  const { runtime, signal } = options;
  const mount = join(options.workFolder, 'mnt');
  await mkdir(mount, { recursive: true });
  const frontend = await startFuse(attachment.device, {
    mount,
    workers: FUSE_WORKERS,
    ...(threads === null ? {} : { threads }),
    log: runtime.log,
  });
  try {
    const child = spawn('chroot', [mount, ...command], {
      stdio: ['ignore', 'pipe', 'pipe'],
      env: { PATH: process.env.PATH ?? '/usr/sbin:/usr/bin:/sbin:/bin' },
      signal,
    });
    const errors: Buffer[] = [];
    child.stderr.on('data', (chunk: Buffer) => errors.push(chunk));
    const ended = once(child, 'exit');
    // What is not awaited below must not become an unhandled rejection.
    ended.catch(() => undefined);
    const first = await Promise.race([once(child.stdout, 'data'), ended.then(() => null)]);
    const atMs = runtime.clock.nowMs();
    const [code]: unknown[] = await ended;
    if (first === null || code !== 0) {
      const reason = Buffer.concat(errors).toString('utf8').trim();
      throw new ReplaybdError('ERR_DEMO_GUEST', `${command.join(' ')} failed: ${reason}`);
    }
    return { text: String(first[0]).trim(), atMs };
  } catch (error) {
    // Ctrl-C ends the child as well; that it was ended is not what went wrong.
    signal.throwIfAborted();
    throw error;
  } finally {
    await frontend.close();
  }
}

/** Plays the reads in their order, a few at once, with the pauses that were recorded left out. */
async function playOverNbd(
  attachment: Attachment,
  reads: TraceRecords,
  options: RunOptions,
): Promise<GuestOutput> {
  const { runtime, signal } = options;
  const socketPath = join(options.workFolder, 'demo.nbd');
  const frontend = await startNbd(attachment.device, { socketPath, log: runtime.log });
  try {
    const client = await NbdReader.connect(socketPath);
    const sectorsTotal = attachment.device.virtualSizeBytes / SECTOR_BYTES;
    let next = 0;
    const play = async (): Promise<void> => {
      while (next < reads.count && !signal.aborted) {
        const i = next++;
        const sectors = Math.min(reads.sectors[i], sectorsTotal - reads.lba[i]);
        if (sectors > 0) await client.read(reads.lba[i] * SECTOR_BYTES, sectors * SECTOR_BYTES);
      }
    };
    await Promise.all(Array.from({ length: NBD_READS_IN_FLIGHT }, play));
    const atMs = runtime.clock.nowMs();
    await client.close();
    signal.throwIfAborted();
    return { text: `${reads.count} reads played`, atMs };
  } finally {
    await frontend.close();
  }
}
