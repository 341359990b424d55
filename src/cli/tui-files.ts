import { SECTOR_BYTES } from '../base/limits.ts';
import type { Runtime } from '../daemon/runtime.ts';
import { stackDisk } from '../daemon/stack-disk.ts';
import { withTraceImage } from '../daemon/trace-image.ts';
import { fileFinder } from '../trace/file-finder.ts';
import { mapAccessedFiles, type FileMap } from '../trace/file-map.ts';
import { reportFiles } from '../trace/file-report.ts';
import type { TraceTarget } from '../trace/served-by.ts';
import type { FilesData } from '../../tui/model/session.ts';
import type { OpenedTrace } from '../../tui/model/opened-trace.ts';
import { closeOnAbort } from './registry-options.ts';
import { openRuntime, type RuntimeFlags } from './runtime-options.ts';

/**
 * The files that some traces read, in their order: each image is that of the trace in its place, the last
 * one also of the traces behind. Errors: those of opening the images, and the signal's.
 */
export async function filesOfTraces(
  traces: readonly OpenedTrace[],
  images: readonly string[],
  flags: RuntimeFlags,
  signal: AbortSignal,
): Promise<FilesData[]> {
  const runtime = await openRuntime(flags);
  try {
    closeOnAbort(runtime.client, signal);
    const found: FilesData[] = [];
    for (const [index, image] of images.entries()) {
      const end = index + 1 === images.length ? traces.length : index + 1;
      found.push(...(await filesOf(runtime, image, traces.slice(index, end), signal)));
    }
    return found;
  } finally {
    await runtime.close();
  }
}

/** The files of one image that some traces read. */
async function filesOf(
  runtime: Runtime,
  image: string,
  traces: readonly OpenedTrace[],
  signal: AbortSignal,
): Promise<FilesData[]> {
  const work = async (target: TraceTarget & DiskTarget): Promise<FilesData[]> => {
    const disk = stackDisk(target.stack, image);
    const map = await mapAccessedFiles(disk, recordsOf(traces), signal);
    const finder = fileFinder(map, target);
    return traces.map(({ trace }) => {
      const { fileSystem, files, foreignBytes } = reportFiles(trace, map, target);
      const namesAt = namesOf(map, target);
      return { fileSystem, files, foreignBytes, namesAt, filesOf: finder };
    });
  };
  return await withTraceImage(runtime, image, traces[0].trace.workload, work, signal);
}

interface DiskTarget {
  readonly stack: Parameters<typeof stackDisk>[0];
}

/** What some traces read of a disk. */
function recordsOf(traces: readonly OpenedTrace[]): Parameters<typeof mapAccessedFiles>[1] {
  const all = traces.map(({ trace }) => trace.records);
  return {
    count: all.reduce((sum, { count }) => sum + count, 0),
    lba: Float64Array.from(all.flatMap(({ lba }) => [...lba])),
    sectors: Uint32Array.from(all.flatMap(({ sectors }) => [...sectors])),
  };
}

/** Paths, and in angle brackets what else lies there, each once. */
function namesOf(map: FileMap, { image, stack }: TraceTarget): FilesData['namesAt'] {
  return (digest, lba, sectors) => {
    const names = new Set<string>();
    for (const piece of stack.locate(lba, sectors)) {
      if (image.layers[piece.layer].digest !== digest) continue;
      const parts = map.parts(piece.lba * SECTOR_BYTES, piece.sectors * SECTOR_BYTES);
      for (const { node, kind } of parts) {
        const path = node === null ? undefined : map.node(node).paths[0];
        names.add(path === undefined ? `<${kind}>` : `/${path.toString()}`);
      }
    }
    return [...names];
  };
}
