import { arch, availableParallelism, cpus, release } from 'node:os';

/** What a figure depends on beside the code. */
export function machineFacts(): Record<string, string | number> {
  return {
    node: process.version,
    kernel: release(),
    arch: arch(),
    processor: cpus()[0]?.model ?? 'unknown',
    cores: availableParallelism(),
  };
}

/** Of an even number of values, the lower middle one; NaN of none. */
export function median(values: readonly number[]): number {
  return percentile(values, 0.5);
}

/** Nearest rank; NaN of none. */
export function percentile(values: readonly number[], share: number): number {
  const sorted = values.toSorted((a, b) => a - b);
  return sorted[Math.max(0, Math.ceil(sorted.length * share) - 1)] ?? Number.NaN;
}

/** Columns, numbers to the right; every row has the keys of the first. */
export function formatTable(rows: readonly Record<string, string | number>[]): string {
  if (rows.length === 0) return '';
  const names = Object.keys(rows[0]);
  const cells = rows.map((row) => names.map((name) => cell(row[name])));
  const widths = names.map((name, i) =>
    Math.max(name.length, ...cells.map((row) => row[i].length)),
  );
  const line = (texts: string[]): string =>
    texts
      .map((text, i) => (i === 0 ? text.padEnd(widths[i]) : text.padStart(widths[i])))
      .join('  ')
      .trimEnd();
  return `${[names, ...cells].map(line).join('\n')}\n`;
}

function cell(value: string | number): string {
  if (typeof value === 'string') return value;
  if (Number.isInteger(value) || Math.abs(value) >= 1000) return value.toFixed(0);
  return value.toFixed(Math.abs(value) < 10 ? 3 : 1);
}
