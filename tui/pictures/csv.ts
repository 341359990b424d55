import { OUTCOMES, type RecordOutcomes } from '../../src/prefetch/simulate/outcomes.ts';
import type { Trace } from '../../src/trace/trace.ts';

/** A trace's records, a line each under a heading; with what they meet with in a simulated start. */
export function traceCsv(
  { image, records }: Trace,
  outcomes: RecordOutcomes | null = null,
): string {
  const heading = 'time_us,wait_us,lba,sectors,layer,weight';
  const lines = [outcomes === null ? heading : `${heading},outcome,simulated_wait_us`];
  for (let i = 0; i < records.count; i += 1) {
    const { timeUs, waitUs, lba, sectors, layer, weight } = records;
    const { digest } = image.layers[layer[i]];
    const met =
      outcomes === null
        ? ''
        : `,${OUTCOMES[outcomes.codes[i]]},${Math.round(outcomes.waitMs[i] * 1000)}`;
    lines.push(`${timeUs[i]},${waitUs[i]},${lba[i]},${sectors[i]},${digest},${weight[i]}${met}`);
  }
  return `${lines.join('\n')}\n`;
}
