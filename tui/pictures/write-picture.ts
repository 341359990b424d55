import { basename } from 'node:path';
import { writeFileAtomic } from '../../src/base/atomic-file.ts';
import { decodeTrace } from '../../src/trace/decode.ts';
import { readTraceFile } from '../../src/trace/store.ts';
import type { DiskOrder } from '../model/disk-axis.ts';
import { openedTrace } from '../model/opened-trace.ts';
import { traceCsv } from './csv.ts';
import { svgToPng } from './png.ts';
import { traceSvg } from './svg.ts';

export type PictureFormat = 'svg' | 'png' | 'csv';

/**
 * Writes a trace as a picture or as a table of its records; `order` is a picture's vertical axis. Errors:
 * those of reading a trace.
 */
export async function writePicture(
  tracePath: string,
  outputPath: string,
  format: PictureFormat,
  order: DiskOrder,
): Promise<{ records: number; bytes: number }> {
  const file = await readTraceFile(tracePath);
  const trace = decodeTrace(file, tracePath);
  const opened = openedTrace(basename(tracePath), trace, file.length);
  const text = format === 'csv' ? traceCsv(trace) : traceSvg(opened, order);
  const output = format === 'png' ? await svgToPng(text) : Buffer.from(text);
  await writeFileAtomic(outputPath, output);
  return { records: trace.records.count, bytes: output.length };
}
