import { basename } from 'node:path';
import { decodeTrace } from '../../src/trace/decode.ts';
import { readTraceFile } from '../../src/trace/store.ts';
import type { Trace } from '../../src/trace/trace.ts';
import type { DiskOrder } from '../model/disk-axis.ts';
import { openedTrace } from '../model/opened-trace.ts';
import { traceCsv } from './csv.ts';
import { svgToPng } from './png.ts';
import { traceSvg, type SimulatedPicture } from './svg.ts';

export type PictureFormat = 'svg' | 'png' | 'csv';

export interface PictureOptions {
  /** A picture's vertical axis. */
  readonly order: DiskOrder;
  /** The start whose outcomes colours and columns tell; null where colours tell layers. */
  readonly simulate: (trace: Trace) => SimulatedPicture | null;
}

/** A trace file as a picture, or as a table of its records. Errors: those of reading a trace. */
export async function drawPicture(
  tracePath: string,
  format: PictureFormat,
  { order, simulate }: PictureOptions,
): Promise<{ records: number; content: Uint8Array }> {
  const file = await readTraceFile(tracePath);
  const trace = decodeTrace(file, tracePath);
  const opened = openedTrace(basename(tracePath), trace, file.length);
  const simulated = simulate(trace);
  const text =
    format === 'csv' ? traceCsv(trace, simulated?.outcomes) : traceSvg(opened, order, simulated);
  const content = format === 'png' ? await svgToPng(text) : Buffer.from(text);
  return { records: trace.records.count, content };
}
