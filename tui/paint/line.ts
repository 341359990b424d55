import { cellWidth, clip, pad } from './text.ts';

/** How text looks: a name for a meaning, or the parameters of a terminal's SGR sequence. */
export type Tone = keyof typeof TONES | `sgr:${string}`;

/** A run of cells that look alike. The text holds no control characters: see `plain`. */
export interface Span {
  readonly text: string;
  readonly tone?: Tone;
}

export type Line = readonly Span[];

const TONES = {
  strong: '1',
  dim: '38;5;245',
  accent: '38;5;39',
  warning: '38;5;220',
  alarm: '38;5;203',
  bar: '48;5;236;38;5;252',
  barStrong: '48;5;24;38;5;231;1',
  selected: '48;5;24;38;5;231',
  cursor: '7',
} as const;
/** What is still told apart where there are no colours. */
const COLOURLESS: Readonly<Partial<Record<string, string>>> = {
  strong: '1',
  barStrong: '7',
  selected: '7',
  cursor: '7',
};

export function span(text: string, tone?: Tone): Span {
  return tone === undefined ? { text } : { text, tone };
}

/** A line of one look. */
export function line(text: string, tone?: Tone): Line {
  return [span(text, tone)];
}

/** A line as its text alone. */
export function textOf(line: Line): string {
  return line.map(({ text }) => text).join('');
}

/** A line cut to a width; the last span that is left says that there was more. */
export function clipLine(line: Line, width: number): Line {
  const kept: Span[] = [];
  let left = width;
  for (const one of line) {
    if (left <= 0) break;
    const text = clip(one.text, left);
    kept.push({ ...one, text });
    left -= cellWidth(text);
  }
  return kept;
}

/** A line cut or filled to exactly a width; what is filled looks like `tone`. */
export function fitLine(line: Line, width: number, tone?: Tone): Line {
  const clipped = clipLine(line, width);
  const left = width - cellWidth(textOf(clipped));
  return left === 0 ? clipped : [...clipped, span(' '.repeat(left), tone)];
}

/** Two lines beside each other, the first in so many cells. */
export function beside(left: Line, width: number, right: Line): Line {
  return [...fitLine(left, width), ...right];
}

/** A name and what it is, in columns. */
export function fact(name: string, ...value: (string | Span)[]): Line {
  const spans = value.map((part) => (typeof part === 'string' ? span(part) : part));
  return [span(` ${pad(name, 15)}`, 'dim'), ...spans];
}

const RESET = '\u001b[0m';
/** Sets the colour of the text and nothing else, so that another one takes its place without a reset. */
const COLOUR_ALONE = /^38;5;\d+$/;

/** Ready for a terminal, with what ends the look of its last span. */
export function ansi(line: Line, hasColour: boolean): string {
  let text = '';
  let former = '';
  for (const one of line) {
    const parameters = sgr(one.tone, hasColour);
    if (parameters !== former) {
      const isReplaced = COLOUR_ALONE.test(former) && COLOUR_ALONE.test(parameters);
      if (former !== '' && !isReplaced) text += RESET;
      if (parameters !== '') text += `\u001b[${parameters}m`;
    }
    text += one.text;
    former = parameters;
  }
  return former === '' ? text : text + RESET;
}

function sgr(tone: Tone | undefined, hasColour: boolean): string {
  if (tone === undefined) return '';
  if (!hasColour) return COLOURLESS[tone] ?? '';
  return tone.startsWith('sgr:') ? tone.slice(4) : TONES[tone as keyof typeof TONES];
}
