import { TextInput } from '@inkjs/ui';
import { Box, Text, useApp, useInput, useWindowSize } from 'ink';
import { createElement, memo, useState, useSyncExternalStore, type ReactElement } from 'react';
import { characterNames, keyNames } from './model/keys.ts';
import type { Store } from './store.ts';

/** A row that is ready for the terminal: cheap, as ink measures it once and wraps nothing. */
const Row = memo(({ text }: { text: string }) =>
  createElement(Text, { wrap: 'truncate-end' }, text === '' ? ' ' : text),
);

/** The store's screen in a terminal of any size; keys go to the store. */
export function App({ store }: { store: Store }): ReactElement {
  const { exit } = useApp();
  const size = useWindowSize();
  const [isTyping, setTyping] = useState(false);
  useSyncExternalStore(store.subscribe, store.version);
  const press = (names: readonly string[]): void => {
    for (const name of names) {
      if (name === 'q') exit();
      else store.press(name, size);
    }
  };
  const endTyping = (behind: string): void => {
    setTyping(false);
    press(characterNames(behind));
  };
  useInput(
    (input, key) => {
      // What was typed behind a slash before it was read is the filter's beginning.
      const slash = store.state.isHelp ? -1 : input.indexOf('/');
      press(keyNames(slash < 0 ? input : input.slice(0, slash), key));
      if (slash < 0 || !store.canFilter) return;
      const { text, behind } = splitTyped(input.slice(slash + 1));
      if (text !== '') store.filter(text);
      if (behind === null) setTyping(true);
      else endTyping(behind);
    },
    { isActive: !isTyping },
  );
  const rows = store.rows(size, isTyping);
  const shown = isTyping ? rows.slice(0, -1) : rows;
  return createElement(
    Box,
    { flexDirection: 'column' },
    ...shown.map((text, row) => createElement(Row, { key: row, text })),
    isTyping ? createElement(Filter, { store, onEnd: endTyping }) : null,
  );
}

/** What was typed before Enter, and the keys that came with it: null without Enter. */
function splitTyped(typed: string): { text: string; behind: string | null } {
  const end = typed.indexOf('\r');
  if (end < 0) return { text: typed, behind: null };
  return { text: typed.slice(0, end), behind: typed.slice(end + 1) };
}

/** The last row while a filter is typed. */
function Filter({
  store,
  onEnd,
}: {
  store: Store;
  /** With keys that came together with the last one. */
  onEnd: (behind: string) => void;
}): ReactElement {
  const { state } = store;
  useInput((_, key) => {
    if (!key.escape) return;
    store.filter('');
    onEnd('');
  });
  return createElement(
    Box,
    {},
    createElement(Text, {}, ' /'),
    createElement(TextInput, {
      defaultValue: state.filters[state.view] ?? '',
      onChange: (typed) => {
        const { text, behind } = splitTyped(typed);
        if (text !== (store.state.filters[state.view] ?? '')) store.filter(text);
        if (behind !== null) onEnd(behind);
      },
      onSubmit: () => onEnd(''),
    }),
  );
}
