import type { Later } from '../model/session.ts';
import { line, type Line } from '../paint/line.ts';
import { plain } from '../paint/text.ts';

/** What stands in the place of a view that has nothing to show, wrapped to a width. */
export function notice(text: string, width: number): Line[] {
  return [line(''), ...wrapped(text, width).map((one) => line(`  ${one}`, 'warning'))];
}

/** Text in lines of a width, with room for two cells in front. */
export function wrapped(text: string, width: number): string[] {
  const lines: string[] = [];
  for (const word of plain(text).split(' ')) {
    const last = lines.at(-1);
    if (last === undefined || last.length + word.length + 3 > width) lines.push(word);
    else lines[lines.length - 1] = `${last} ${word}`;
  }
  return lines;
}

/** Of what is not there. */
export function laterNotice(
  later: Exclude<Later<unknown>, { state: 'done' }>,
  width: number,
): Line[] {
  return notice(later.state === 'working' ? 'Working ...' : later.why, width);
}

export const NO_TRACE = 'No trace is open. Name one: replaybd tui app.trace';
