import { mkdtemp, rm, stat } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Command } from 'commander';
import { packForImage } from '../daemon/pack-image.ts';
import { writeOutputFile } from '../image/output-file.ts';
import { decodeTrace } from '../trace/decode.ts';
import { encodeTrace } from '../trace/encode.ts';
import { pushTrace } from '../trace/referrer.ts';
import { readTraceFile } from '../trace/store.ts';
import type { Trace } from '../trace/trace.ts';
import { addRuntimeOptions, type RuntimeFlags } from './runtime-options.ts';
import { formatBytes, ProgressLine } from './terminal.ts';
import { withRuntime } from './trace-image.ts';
import { tell, writeOutput } from './output.ts';

interface PackFlags extends RuntimeFlags {
  output?: string;
  blob?: string;
  push?: boolean;
  force?: boolean;
  json?: boolean;
}

/** `replaybd trace pack`. */
export function registerPack(trace: Command): void {
  const packing = trace
    .command('pack')
    .description("put the bytes of a trace's plan into one blob, in the order they are needed")
    .argument('<trace>', 'a trace file')
    .argument('<image>', 'its image: config.v1.json or a registry reference')
    .option('-o, --output <file>', 'write the trace that names the blob')
    .option('--blob <file>', 'write the blob')
    .option('--push', 'attach the trace and the blob to the image in its registry')
    .option('--force', 'replace a blob file that is there')
    .option('--json', 'print what was packed as JSON');
  addRuntimeOptions(packing).action(pack);
}

async function pack(
  file: string,
  image: string,
  flags: PackFlags,
  command: Command,
): Promise<void> {
  const { output, blob, push = false, force = false } = flags;
  if (!push && (output === undefined || blob === undefined)) {
    command.error('error: give --push, or --output and --blob');
  }
  if (blob === '-') command.error('error: the hot blob needs a file: --blob FILE');
  if (push && image.endsWith('.json')) {
    command.error('error: --push is for images of a registry');
  }
  const trace = decodeTrace(await readTraceFile(file), file);
  const folder = await mkdtemp(join(tmpdir(), '.replaybd-pack-'));
  let facts;
  try {
    facts = await packInto(blob ?? join(folder, 'hot'), { trace, image, force, flags });
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
  const { sizeBytes, ranges, bytes, pushed } = facts;
  const text =
    `${facts.digest}: ${formatBytes(sizeBytes)} of ${ranges} ranges; ` +
    `trace of ${formatBytes(bytes)}${pushed === null ? '' : `, pushed as ${pushed}`}\n`;
  tell(flags, { output: output ?? null, ...facts }, text);
}

interface PackJob {
  readonly trace: Trace;
  readonly image: string;
  readonly force: boolean;
  readonly flags: PackFlags;
}

interface PackFacts {
  readonly digest: string;
  readonly sizeBytes: number;
  readonly layers: readonly number[];
  /** Of the plan. */
  readonly ranges: number;
  /** Of the trace's file. */
  readonly bytes: number;
  /** Digest of the manifest. */
  readonly pushed: string | null;
}

async function packInto(path: string, { trace, image, force, flags }: PackJob): Promise<PackFacts> {
  return await withRuntime(flags, async (runtime, signal) => {
    const progress = new ProgressLine();
    const onProgress = (share: number) => {
      progress.show(`packing ${image}: ${Math.floor(share * 100)} %`);
    };
    let packed: Trace;
    try {
      packed = await writeOutputFile(path, { replace: force, signal }, (file) =>
        packForImage(runtime, image, trace, { file, onProgress, signal }),
      );
    } finally {
      progress.clear();
    }
    const bytes = encodeTrace(packed);
    if (flags.output !== undefined) await writeOutput(flags.output, bytes);
    const hotBlobPath = path;
    const pushed =
      flags.push === true
        ? await pushTrace(runtime.client, image, bytes, { hotBlobPath, signal })
        : null;
    return {
      digest: packed.packed?.digest ?? '',
      sizeBytes: (await stat(path)).size,
      layers: packed.packed?.layers ?? [],
      ranges: packed.plan.count,
      bytes: bytes.length,
      pushed: pushed?.digest ?? null,
    };
  });
}
