import { VIEW_IDS } from '../model/state.ts';
import {
  ansi,
  beside,
  clipLine,
  fitLine,
  line,
  span,
  textOf,
  type Line,
  type Span,
} from '../paint/line.ts';
import { pad, plain } from '../paint/text.ts';
import { wrapped } from './notice.ts';
import { VIEWS, viewOf } from './views.ts';
import type { ViewContext } from './view.ts';

/** Rows beside the view: tabs above, keys below. */
const AROUND = 2;

/** Bars and shades: nothing to be read aloud; and spans that are nothing else. */
const DRAWN = /[\u2580-\u259f]+ ?|·{2,}/g;
const ALL_DRAWN = /^[\u2580-\u259f ]{4,}$/;

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
  const spoken = (one: Line): string =>
    textOf(one.filter(({ text }) => !ALL_DRAWN.test(text)))
      .replaceAll(DRAWN, '')
      .trimEnd();
  return [view.title, ...lines.map(spoken)];
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
  const shown = filter === '' ? '' : ` filter: ${plain(filter)} `;
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
  [`1 - ${VIEW_IDS.length}`, 'a view'],
  ['tab', 'next view (shift: back)'],
  ['hjkl g G', 'as arrows, Home and End'],
  ['PgUp PgDn', 'a page of a list'],
  ['/', 'filter a list; esc: all'],
  ['esc', 'back'],
  ['?', 'this help'],
  ['q', 'quit'],
];
/** The help has two columns where each has so many cells. */
const HELP_COLUMN = 40;

function helpLines({ state, columns }: ViewContext): Line[] {
  const view = viewOf(state.view);
  const row = ([key, what]: readonly [string, string]): Line => [
    span(`  ${pad(key, 10)} `, 'accent'),
    span(what),
  ];
  const own = [line(` ${view.title}`, 'strong'), ...view.keys.map(row)];
  const common = [line(' Everywhere', 'strong'), ...COMMON.map(row)];
  const keys =
    columns < 2 * HELP_COLUMN
      ? [...own, line(''), ...common]
      : Array.from({ length: Math.max(own.length, common.length) }, (_, index) =>
          beside(own[index] ?? [], HELP_COLUMN + 2, common[index] ?? []),
        );
  const notes = (view.notes ?? []).flatMap((note) => wrapped(note, columns));
  return [
    ...keys,
    line(''),
    ...notes.map((note) => line(` ${note}`)),
    line(' Any key goes back.', 'dim'),
  ];
}
