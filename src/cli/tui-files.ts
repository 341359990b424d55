import { SECTOR_BYTES } from '../base/limits.ts';
import { stackDisk } from '../daemon/stack-disk.ts';
import { withTraceImage } from '../daemon/trace-image.ts';
import { mapAccessedFiles, type FileMap } from '../trace/file-map.ts';
import { reportFiles } from '../trace/file-report.ts';
import type { FilesData } from '../../tui/model/session.ts';
import type { OpenedTrace } from '../../tui/model/opened-trace.ts';
import { closeOnAbort } from './registry-options.ts';
import { openRuntime, type RuntimeFlags } from './runtime-options.ts';

/** The files that a trace of an image read. Errors: those of opening the image, and the signal's. */
export async function filesOfTrace(
  { trace }: OpenedTrace,
  image: string,
  flags: RuntimeFlags,
  signal: AbortSignal,
): Promise<FilesData> {
  const runtime = await openRuntime(flags);
  try {
    closeOnAbort(runtime.client, signal);
    return await withTraceImage(
      runtime,
      image,
      trace.workload,
      async (target) => {
        const map = await mapAccessedFiles(stackDisk(target.stack, image), trace.records, signal);
        const { fileSystem, files } = reportFiles(trace, map, target);
        return { fileSystem, files, namesAt: (lba, sectors) => namesAt(map, lba, sectors) };
      },
      signal,
    );
  } finally {
    await runtime.close();
  }
}

/** Paths, and in angle brackets what else lies there, each once. */
function namesAt(map: FileMap, lba: number, sectors: number): string[] {
  const parts = [...map.parts(lba * SECTOR_BYTES, sectors * SECTOR_BYTES)];
  const names = parts.map(({ node, kind }) => {
    const path = node === null ? undefined : map.node(node).paths[0];
    return path === undefined ? `<${kind}>` : `/${path.toString()}`;
  });
  return [...new Set(names)];
}
