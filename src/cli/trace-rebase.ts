import type { Command } from 'commander';
import { messageOf } from '../base/errors.ts';
import { mapOldImage, olderImageOf } from '../daemon/rebase-image.ts';
import type { Runtime } from '../daemon/runtime.ts';
import { stackDisk } from '../daemon/stack-disk.ts';
import { withTraceImage } from '../daemon/trace-image.ts';
import { decodeTrace } from '../trace/decode.ts';
import { encodeTraceWithinLimit } from '../trace/encode.ts';
import type { FileMap } from '../trace/file-map.ts';
import { isStale, rebaseTrace, type RebaseFacts, type RebaseShare } from '../trace/rebase.ts';
import { readTraceFile } from '../trace/store.ts';
import type { Trace } from '../trace/trace.ts';
import { tellEmpty } from './empty-trace.ts';
import { addRuntimeOptions, type RuntimeFlags } from './runtime-options.ts';
import { complain, formatBytes } from './terminal.ts';
import { tellTruncated } from './truncated-plan.ts';
import { withRuntime } from './trace-image.ts';
import { tell, writeOutput } from './output.ts';

interface RebaseFlags extends RuntimeFlags {
  from?: string;
  output: string;
  json?: boolean;
}

/** `replaybd trace rebase`. */
export function registerRebase(trace: Command): void {
  const command = trace
    .command('rebase')
    .description('make a trace of a new image of one of an older image, without recording again')
    .argument('<trace>', 'a trace file')
    .argument('<image>', 'the new image: config.v1.json or a registry reference')
    .option(
      '--from <image>',
      "the image that was recorded, to map records through files (default: by the trace's manifest " +
        "digest, in the new image's repository)",
    )
    .requiredOption('-o, --output <file>', 'the trace to write')
    .option('--json', 'print what was kept as JSON');
  addRuntimeOptions(command).action(rebase);
}

async function rebase(file: string, image: string, flags: RebaseFlags): Promise<void> {
  const old = decodeTrace(await readTraceFile(file), file);
  const { trace, facts } = await withRuntime(flags, (runtime, signal) =>
    withTraceImage(
      runtime,
      image,
      old.workload,
      async (target) => {
        const from = isStale(old, target)
          ? await oldFiles(runtime, old, image, flags.from, signal)
          : null;
        const files = from === null ? null : { from, to: stackDisk(target.stack, image) };
        return await rebaseTrace(old, target, files, { signal });
      },
      signal,
    ),
  );
  await writeOutput(flags.output, encodeTraceWithinLimit(trace));
  for (const problem of facts.problems) complain(problem);
  tellTruncated(flags.output, trace.plan);
  const { output } = flags;
  tellEmpty(output, trace.records, 'Nothing of the old one is in this image: record it.');
  tell(flags, { output, ...facts }, formatFacts(output, facts));
}

/** An image that the user named has to be there; one that is only guessed need not. */
async function oldFiles(
  runtime: Runtime,
  trace: Trace,
  image: string,
  from: string | undefined,
  signal: AbortSignal,
): Promise<FileMap | null> {
  if (from !== undefined) return await mapOldImage(runtime, trace, from, { signal });
  const older = olderImageOf(image, trace);
  if (older === null) {
    complain('the image that was recorded is not known: nothing is mapped through files (--from)');
    return null;
  }
  try {
    return await mapOldImage(runtime, trace, older, { signal });
  } catch (error) {
    signal.throwIfAborted();
    complain(`${messageOf(error)}: nothing is mapped through files`);
    return null;
  }
}

function formatFacts(output: string, facts: RebaseFacts): string {
  const share = (name: string, { records, bytes }: RebaseShare): string =>
    `${name.padEnd(9)} ${String(records).padStart(8)} records  ${formatBytes(bytes)}`;
  const lines = [
    `${output}: ${facts.records} records, staleness ${facts.staleness.toFixed(3)}`,
    share('kept', facts.kept),
    share('mapped', facts.mapped),
    share('dropped', facts.dropped),
  ];
  return `${lines.join('\n')}\n`;
}
