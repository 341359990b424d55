#!/usr/bin/env -S node --max-semi-space-size=1
import { isNodeSupported, NODE_VERSION_MIN } from '../base/node-version.ts';

// An older Node.js has to be able to load this far: nothing else is imported before the check.
const { node } = process.versions;
if (isNodeSupported(node)) {
  const { runProgram } = await import('./program.ts');
  await runProgram(process.argv);
} else {
  process.stderr.write(
    `replaybd: expected Node.js ${NODE_VERSION_MIN} or later, found ${node} (${process.execPath}). ` +
      'Install one, or use node_modules/.bin/node of a prepared checkout. (ERR_NODE_VERSION)\n',
  );
  process.exitCode = 1;
}
