const EIGHTHS = [' ', '▏', '▎', '▍', '▌', '▋', '▊', '▉', '█'];
const LEVELS = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/** A part of 1 as a bar of exactly so many cells. */
export function bar(part: number, width: number): string {
  const eighths = Math.round(Math.min(Math.max(part, 0), 1) * width * 8);
  const whole = Math.floor(eighths / 8);
  const rest = whole < width ? EIGHTHS[eighths % 8] : '';
  return ('█'.repeat(whole) + rest).padEnd(width, ' ');
}

/**
 * The last `width` values as a line of bars up to `max`, newest at the right. A value above 0 shows;
 * null is a time about which nothing is known.
 */
export function sparkline(values: readonly (number | null)[], width: number, max: number): string {
  const shown = values.slice(-width).map((value) => {
    if (value === null) return ' ';
    if (value <= 0) return LEVELS[0];
    const level = Math.ceil((value / Math.max(max, value)) * (LEVELS.length - 1));
    return LEVELS[Math.min(level, LEVELS.length - 1)];
  });
  return shown.join('').padStart(width, ' ');
}
