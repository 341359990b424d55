import { readsOf, type OverlaybdTrace } from './format.ts';

/** overlaybd's trace in totals. */
export interface OverlaybdTraceSummary {
  readonly format: 'overlaybd';
  readonly fileBytes: number;
  readonly records: number;
  /** Records that are replayed: reads of at least a byte. */
  readonly reads: number;
  /** Uncompressed bytes of all reads; what was read twice counts twice. */
  readonly readBytes: number;
  readonly longestReadBytes: number;
  /** By layer, the bottom first; those without reads are left out. */
  readonly layers: readonly { layer: number; reads: number; readBytes: number }[];
}

export function summariseOverlaybdTrace(
  trace: OverlaybdTrace,
  fileBytes: number,
): OverlaybdTraceSummary {
  const byLayer = new Map<number, { layer: number; reads: number; readBytes: number }>();
  let longestReadBytes = 0;
  for (const { layer, length } of readsOf(trace)) {
    const sums = byLayer.get(layer) ?? { layer, reads: 0, readBytes: 0 };
    sums.reads += 1;
    sums.readBytes += length;
    byLayer.set(layer, sums);
    longestReadBytes = Math.max(longestReadBytes, length);
  }
  const layers = [...byLayer.values()].sort((a, b) => a.layer - b.layer);
  return {
    format: 'overlaybd',
    fileBytes,
    records: trace.count,
    reads: layers.reduce((sum, { reads }) => sum + reads, 0),
    readBytes: layers.reduce((sum, { readBytes }) => sum + readBytes, 0),
    longestReadBytes,
    layers,
  };
}

/** A summary as lines for people. */
export function formatOverlaybdSummary(summary: OverlaybdTraceSummary): string {
  const { fileBytes, records, reads, readBytes, longestReadBytes, layers } = summary;
  const lines = [
    "format     overlaybd's 24-byte records, without times or image",
    `records    ${records}, ${reads} of them reads of ${mib(readBytes)}, at most ${mib(longestReadBytes)} each`,
    `file       ${fileBytes} bytes`,
    ...layers.map(
      (sums) => `layer ${String(sums.layer).padEnd(4)} ${sums.reads} reads, ${mib(sums.readBytes)}`,
    ),
  ];
  return `${lines.join('\n')}\n`;
}

function mib(bytes: number): string {
  return `${(bytes / 2 ** 20).toFixed(2)} MiB`;
}
