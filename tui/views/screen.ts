import { VIEW_IDS } from '../model/state.ts';
import {
  ansi,
  clipLine,
  fitLine,
  line,
  span,
  textOf,
  type Line,
  type Span,
} from '../paint/line.ts';
import { pad, plain } from '../paint/text.ts';
import { VIEWS, viewOf } from './views.ts';
import type { ViewContext } from './view.ts';

/** Rows beside the view: tabs above, keys below. */
const AROUND = 2;

/** Bars and shades: nothing to be read aloud. */
const DRAWN = /[\u2580-\u259f]+ ?|·{2,}/g;

/** A context with the whole screen, as one with what a view has of it. */
export function bodyOf(context: ViewContext): ViewContext {
  return { ...context, rows: Math.max(1, context.rows - AROUND) };
}

/**
 * The whole screen: exactly as many rows as it has, each with what a terminal needs for it. The last row is
 * left empty while something is typed there.
 */
export function screenRows(context: ViewContext, isTyping = false): string[] {
  const { rows, columns } = context;
  const view = viewOf(context.state.view);
  const body = context.state.isHelp ? helpLines(context) : view.draw(bodyOf(context));
  const lines: Line[] = [
    tabs(context),
    ...Array.from({ length: Math.max(0, rows - AROUND) }, (_, row) => body[row] ?? line('')),
    isTyping ? line('') : footer(context),
  ];
  return lines.slice(0, rows).map((one) => ansi(clipLine(one, columns), !context.isColourless));
}

/** The present view as text that is read from top to bottom. */
export function reportRows(context: ViewContext): string[] {
  const view = viewOf(context.state.view);
  const lines = context.state.isHelp ? helpLines(context) : view.report(bodyOf(context));
  return [view.title, ...lines.map((one) => textOf(one).replaceAll(DRAWN, '').trimEnd())];
}

function tabs({ state, columns }: ViewContext): Line {
  const names = VIEWS.map(({ id, title }, index): Span => {
    return span(` ${index + 1} ${title} `, id === state.view ? 'barStrong' : 'bar');
  });
  return fitLine(names, columns, 'bar');
}

/** As many keys as there is room for; the filter, if there is one. */
function footer({ state, columns }: ViewContext): Line {
  const filter = state.filters[state.view] ?? '';
  const shown = filter === '' ? '' : ` /${plain(filter)} `;
  const last = ' ? help  q quit ';
  const spans: Span[] = shown === '' ? [] : [span(shown, 'barStrong')];
  let left = columns - shown.length - last.length;
  const keys = state.isHelp ? [] : viewOf(state.view).keys;
  for (const [key, what] of keys) {
    const text = ` ${key} ${what} `;
    if (text.length > left) break;
    left -= text.length;
    spans.push(span(` ${key}`, 'barStrong'), span(` ${what} `, 'bar'));
  }
  spans.push(span(' '.repeat(Math.max(0, left)), 'bar'), span(last, 'bar'));
  return fitLine(spans, columns, 'bar');
}

const COMMON: readonly (readonly [string, string])[] = [
  [`1 - ${VIEW_IDS.length}`, 'a view; Tab and Shift+Tab: the next and the one before'],
  ['hjkl g G', 'as arrows, Home and End'],
  ['/', 'filter what is shown; Enter keeps it, Esc clears it'],
  ['esc', 'back'],
  ['?', 'this help'],
  ['q', 'quit'],
];

function helpLines({ state }: ViewContext): Line[] {
  const view = viewOf(state.view);
  const row = ([key, what]: readonly [string, string]): Line => [
    span(`  ${pad(key, 12)}`, 'accent'),
    span(what),
  ];
  return [
    line(''),
    line(` ${view.title}`, 'strong'),
    ...view.keys.map(row),
    line(''),
    line(' Everywhere', 'strong'),
    ...COMMON.map(row),
    line(''),
    line(' Any key goes back.', 'dim'),
  ];
}
