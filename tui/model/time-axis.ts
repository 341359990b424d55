/** A mark on an axis of time. */
export interface Tick {
  readonly timeUs: number;
  readonly label: string;
}

/** Round times between two, at least `gapUs` apart: 1, 2 or 5 times a power of ten. */
export function timeTicks(fromUs: number, toUs: number, gapUs: number): Tick[] {
  const power = 10 ** Math.floor(Math.log10(Math.max(gapUs, 1)));
  const step = power * ([1, 2, 5, 10].find((factor) => factor * power >= gapUs) ?? 10);
  const ticks: Tick[] = [];
  for (let i = Math.ceil(fromUs / step); i * step < toUs; i += 1) {
    ticks.push({ timeUs: i * step, label: timeLabel(i * step, step) });
  }
  return ticks;
}

/** A time to the precision of a step. */
export function timeLabel(timeUs: number, stepUs: number): string {
  if (timeUs === 0) return '0';
  if (stepUs >= 1e5 || timeUs >= 1e7) {
    return `${(timeUs / 1e6).toFixed(decimals(stepUs, 1e6))} s`;
  }
  return `${(timeUs / 1e3).toFixed(decimals(stepUs, 1e3))} ms`;
}

/** Digits behind the point that tell multiples of a step apart. */
function decimals(stepUs: number, unitUs: number): number {
  return Math.min(6, Math.max(0, Math.ceil(-Math.log10(stepUs / unitUs) - 1e-9)));
}
