import type { Trace } from '../../src/trace/trace.ts';

/** A trace's records, a line each under a heading. */
export function traceCsv({ image, records }: Trace): string {
  const lines = ['time_us,wait_us,lba,sectors,layer,weight'];
  for (let i = 0; i < records.count; i += 1) {
    const { timeUs, waitUs, lba, sectors, layer, weight } = records;
    const { digest } = image.layers[layer[i]];
    lines.push(`${timeUs[i]},${waitUs[i]},${lba[i]},${sectors[i]},${digest},${weight[i]}`);
  }
  return `${lines.join('\n')}\n`;
}
