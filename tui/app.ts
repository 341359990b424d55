import { TextInput } from '@inkjs/ui';
import { Box, Text, useApp, useInput, useWindowSize } from 'ink';
import { createElement, memo, useState, useSyncExternalStore, type ReactElement } from 'react';
import { keyNames } from './model/keys.ts';
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
  useInput(
    (input, key) => {
      // What was typed behind a slash before it was read is the filter's beginning.
      const slash = store.state.isHelp ? -1 : input.indexOf('/');
      for (const name of keyNames(slash < 0 ? input : input.slice(0, slash), key)) {
        if (name === 'q') exit();
        else store.press(name, size);
      }
      if (slash < 0 || !store.canFilter) return;
      const [text, ...ended] = input.slice(slash + 1).split('\r');
      if (text !== '') store.filter(text);
      setTyping(ended.length === 0);
    },
    { isActive: !isTyping },
  );
  const rows = store.rows(size, isTyping);
  const shown = isTyping ? rows.slice(0, -1) : rows;
  return createElement(
    Box,
    { flexDirection: 'column' },
    ...shown.map((text, row) => createElement(Row, { key: row, text })),
    isTyping ? createElement(Filter, { store, onEnd: () => setTyping(false) }) : null,
  );
}

/** The last row while a filter is typed. */
function Filter({ store, onEnd }: { store: Store; onEnd: () => void }): ReactElement {
  const { state } = store;
  useInput((_, key) => {
    if (!key.escape) return;
    store.filter('');
    onEnd();
  });
  return createElement(
    Box,
    {},
    createElement(Text, {}, ' /'),
    createElement(TextInput, {
      defaultValue: state.filters[state.view] ?? '',
      onChange: (text) => {
        if (text !== (store.state.filters[state.view] ?? '')) store.filter(text);
      },
      onSubmit: onEnd,
    }),
  );
}
