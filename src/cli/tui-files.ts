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
        return { fileSystem, files, nameAt: (lba) => nameAt(map, lba) };
      },
      signal,
    );
  } finally {
    await runtime.close();
  }
}

/** A path, or in angle brackets what else the sector is; '' when it is unknown. */
function nameAt(map: FileMap, lba: number): string {
  const [part] = map.parts(lba * SECTOR_BYTES, SECTOR_BYTES);
  if (part === undefined) return '';
  const path = part.node === null ? undefined : map.node(part.node).paths[0];
  return path === undefined ? `<${part.kind}>` : `/${path.toString()}`;
}
