const UNITS = ['B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB'];

/** Bytes in at most eight cells. */
export function bytes(value: number): string {
  let scaled = value;
  let unit = 0;
  while (scaled >= 1000 && unit < UNITS.length - 1) {
    scaled /= 1024;
    unit += 1;
  }
  return `${scaled.toFixed(unit === 0 || scaled >= 100 ? 0 : 1)} ${UNITS[unit]}`;
}

/** A time in milliseconds with the unit that suits it, in at most eight cells. */
export function duration(ms: number): string {
  if (ms < 0.9995) return `${(ms * 1000).toFixed(0)} µs`;
  if (ms < 9.995) return `${ms.toFixed(2)} ms`;
  if (ms < 999.5) return `${ms.toFixed(0)} ms`;
  if (ms < 99_995) return `${(ms / 1000).toFixed(2)} s`;
  return ms < 5_999_500 ? `${(ms / 1000).toFixed(0)} s` : `${(ms / 3_600_000).toFixed(1)} h`;
}

/** A part of 1; 'n/a' for null. */
export function percent(part: number | null): string {
  return part === null ? 'n/a' : `${(part * 100).toFixed(1)} %`;
}

/** A whole number in groups of three digits. */
export function count(value: number): string {
  return Math.round(value).toLocaleString('en-GB');
}

/** So many of something that takes an s. */
export function counted(value: number, name: string): string {
  return `${count(value)} ${name}${value === 1 ? '' : 's'}`;
}

/** Bytes a second as a link's speed. */
export function linkSpeed(bytesPerSecond: number): string {
  const mbit = (bytesPerSecond * 8) / 1e6;
  return mbit >= 1000 ? `${trim(mbit / 1000)} Gbit/s` : `${trim(mbit)} Mbit/s`;
}

function trim(value: number): string {
  return value.toFixed(value < 10 ? 1 : 0).replace(/\.0$/, '');
}
