import { SECTOR_BYTES } from '../base/limits.ts';
import { printable } from '../base/printable.ts';
import { isTruncated, waitedUs, type Trace, type TracePacked } from './trace.ts';

/** A trace's facts and totals, without its columns: what `trace show --json` prints. */
export interface TraceSummary extends Pick<Trace, 'image' | 'workload' | 'recording' | 'runs'> {
  readonly fileBytes: number;
  readonly records: number;
  /** Bytes of the disk that the records cover. */
  readonly recordedBytes: number;
  /** Before the last record, how long reads waited for bytes that were not local. */
  readonly waitedUs: number;
  readonly bytesPerRecord: number | null;
  readonly planRanges: number;
  /** The plan has as many ranges as it may have: later ones were left out. */
  readonly truncated: boolean;
  /** Compressed bytes of the plan; of those, due at time 0 (what opening the layers needs). */
  readonly planBytes: number;
  readonly planMetadataBytes: number;
  /** The hot blob; null where nobody packed the plan. */
  readonly packed: TracePacked | null;
  /** By layer, bottom first. */
  readonly layers: readonly { recordedBytes: number; planBytes: number }[];
}

export function summariseTrace(trace: Trace, fileBytes: number): TraceSummary {
  const { image, workload, recording, runs, records, plan } = trace;
  const layers = image.layers.map(() => ({ recordedBytes: 0, planBytes: 0 }));
  let planMetadataBytes = 0;
  for (let i = 0; i < records.count; i += 1) {
    layers[records.layer[i]].recordedBytes += records.sectors[i] * SECTOR_BYTES;
  }
  for (let i = 0; i < plan.count; i += 1) {
    layers[plan.blob[i]].planBytes += plan.length[i];
    if (plan.dueUs[i] === 0) planMetadataBytes += plan.length[i];
  }
  return {
    image,
    workload,
    recording,
    runs,
    fileBytes,
    records: records.count,
    recordedBytes: layers.reduce((sum, layer) => sum + layer.recordedBytes, 0),
    waitedUs: waitedUs(records),
    bytesPerRecord: records.count === 0 ? null : fileBytes / records.count,
    planRanges: plan.count,
    truncated: isTruncated(plan),
    planBytes: layers.reduce((sum, layer) => sum + layer.planBytes, 0),
    planMetadataBytes,
    packed: trace.packed ?? null,
    layers,
  };
}

/** A summary as lines for people. */
export function formatSummary(summary: TraceSummary): string {
  const { image, workload, recording } = summary;
  const seconds = (recording.durationUs / 1e6).toFixed(2);
  const lines = [
    `image      ${image.manifestDigest ?? 'without a manifest'}, ${mib(image.virtualSizeBytes)} disk`,
    `workload   ${printable([...workload.entrypoint, ...workload.args].join(' ')) || workload.key}`,
    `recorded   ${new Date(recording.startedAtMs).toISOString()}, ${seconds} s, ` +
      `ended by ${recording.endReason}, runs ${summary.runs}`,
    `records    ${summary.records}, ${mib(summary.recordedBytes)}` +
      (summary.waitedUs === 0 ? '' : `, waited ${(summary.waitedUs / 1e6).toFixed(2)} s for bytes`),
    `plan       ${summary.planRanges} ranges, ${mib(summary.planBytes)}, ` +
      `${mib(summary.planMetadataBytes)} of it due at once` +
      (summary.truncated ? '; truncated: what is due later is left out' : ''),
    `file       ${summary.fileBytes} bytes`,
  ];
  const { packed } = summary;
  if (packed !== null) {
    const parts = `${packed.layers.length} of ${image.layers.length} layers`;
    lines.push(`packed     ${packed.digest}  ${mib(packed.sizeBytes)} of ${parts}`);
  }
  for (const [index, layer] of image.layers.entries()) {
    const { recordedBytes, planBytes } = summary.layers[index];
    const share = `${mib(planBytes)} planned of ${mib(layer.sizeBytes)}`;
    lines.push(
      `layer ${String(index).padEnd(4)} ${layer.digest}  ${share}, ${mib(recordedBytes)} read`,
    );
  }
  return `${lines.join('\n')}\n`;
}

function mib(bytes: number): string {
  return `${(bytes / 2 ** 20).toFixed(2)} MiB`;
}
