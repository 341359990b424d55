import { overlaybdTraceLimits } from '../../base/limits.ts';
import { decodeTrace, hasTraceMagic } from '../decode.ts';
import { readTraceFile } from '../store.ts';
import type { Trace } from '../trace.ts';
import { decodeOverlaybdTrace, hasOverlaybdTraceMagic, type OverlaybdTrace } from './format.ts';
import { parsePathList } from './path-list.ts';

/** What overlaybd's `recordTracePath`, or a member of an acceleration layer, may hold. */
export type AnyTrace =
  | { readonly kind: 'replaybd'; readonly trace: Trace }
  | { readonly kind: 'overlaybd'; readonly trace: OverlaybdTrace }
  | { readonly kind: 'paths'; readonly paths: readonly Buffer[] };

/**
 * Tells a trace of ours, a trace of overlaybd's and a list of paths apart by their first bytes, as
 * the original does, and reads it. Errors: those of the three formats.
 */
export function parseAnyTrace(bytes: Uint8Array, name: string): AnyTrace {
  if (hasTraceMagic(bytes)) return { kind: 'replaybd', trace: decodeTrace(bytes, name) };
  if (hasOverlaybdTraceMagic(bytes)) {
    return { kind: 'overlaybd', trace: decodeOverlaybdTrace(bytes, name) };
  }
  return { kind: 'paths', paths: parsePathList(bytes, name) };
}

/** Reads a file of any of the three kinds. Errors: those of parseAnyTrace and readTraceFile. */
export async function readAnyTrace(path: string): Promise<AnyTrace> {
  return parseAnyTrace(await readTraceFile(path, overlaybdTraceLimits.fileBytesMax), path);
}

/** Records, reads or paths. */
export function recordsIn(trace: AnyTrace): number {
  if (trace.kind === 'paths') return trace.paths.length;
  return trace.kind === 'replaybd' ? trace.trace.records.count : trace.trace.count;
}
