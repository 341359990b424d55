import assert from 'node:assert/strict';
import { test } from 'node:test';
import { attachDefaults } from '../../src/daemon/attach-parameters.ts';
import { parseAttachParameters } from '../../src/daemon/control-parameters.ts';
import { parseServiceConfig } from '../../src/daemon/service-config.ts';

// Goal: overlaybd.json decides how a device is recorded or replayed where the request does not say.
// Method: requests with and without their own words, under several configurations.

const defaultsOf = (replaybd: object) =>
  attachDefaults(parseServiceConfig(JSON.stringify({ replaybd }), 'file'));

function attached(request: object, defaults = attachDefaults(null)) {
  const body = JSON.stringify({ id: 'one', image: '/config.v1.json', ...request });
  const { mode, budgetMiB } = parseAttachParameters(body, defaults);
  return [mode, budgetMiB];
}

test('without a configuration a device replays if it can, else records', () => {
  assert.deepEqual(attached({}), ['auto', undefined]);
  assert.deepEqual(attached({}, defaultsOf({})), ['auto', undefined]);
});

test('the configuration holds where the request does not say', () => {
  const defaults = defaultsOf({ mode: 'replay', budgetMB: 64 });
  assert.deepEqual(attached({}, defaults), ['replay', 64]);
  assert.deepEqual(attached({ mode: 'off' }, defaults), ['off', 64]);
  assert.deepEqual(attached({ budgetMiB: 1 }, defaults), ['replay', 1]);
});
