import assert from 'node:assert/strict';
import { mkdirSync } from 'node:fs';
import { Attached } from '../../support/attached.ts';
import { serveRegistry } from '../../support/cli.ts';
import { sha256OfFile } from '../../support/test-image.ts';
import { compareTree, job, nothingIsLeft, step } from './support.ts';

// Arguments: the folder of a registry, the digest of its image's disk, and the folders that it was
// built from. The first run records, the second replays: the same reads through an empty cache.

const [registryFolder, sha256, ...rootfs] = process.argv.slice(2);

await job(async (scratch) => {
  const reference = `${await serveRegistry(scratch, registryFolder)}/e2e/image:v1`;
  const mount = scratch.path('mount');
  mkdirSync(mount);
  for (const expected of ['record', 'replay'] as const) {
    step(`attach, ${expected}`);
    const attached = await Attached.start(scratch, [
      ...[reference, '--frontend', 'tcmu', '--mount', mount, '--id', `image-${expected}`],
      ...['--cache', scratch.path(expected), '--trace-dir', scratch.path('traces')],
    ]);
    assert.equal(attached.ready.mode, expected);
    assert.match(attached.ready.path, /^\/dev\/sd[a-z]$/);
    step('compare every file');
    for (const folder of rootfs) await compareTree(folder, mount);
    step('compare the disk');
    assert.equal(await sha256OfFile(attached.ready.path), sha256);
    step('detach');
    const report = await attached.detach();
    console.log(JSON.stringify(report));
    assert.ok(report.trace !== null && report.trace.records > 0);
    assert.equal(report.quality.missErrors, 0);
    nothingIsLeft();
  }
});
