// Goal: threads that write one device at once, while it is flushed and snapshotted, lose nothing: what
// they read afterwards is what is on disk.
// Method: three threads write overlapping ranges, and sectors of their own that they read back; the
// main thread flushes and takes snapshots; then the live disk is compared with the reopened one.
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { setImmediate } from 'node:timers/promises';
import { MessageChannel, Worker } from 'node:worker_threads';
import { openLocalBlob } from '../../src/blob/local-blob.ts';
import { SECTOR_BYTES } from '../../src/base/limits.ts';
import { openWritableUpper } from '../../src/image/lsmt/writable-upper.ts';
import { openStack } from '../../src/image/stack.ts';
import { kinds, newUpper, pathsIn, testFolder } from '../image/upper-support.ts';
import { lazyLayer, readAsFrontends, writableDevice } from './writable-support.ts';
import type { WriterThreadData } from './writer-thread.ts';

const THREADS = 3;
const WRITES = 3000;
const SHARED_SECTORS = 4096;
const OWN_SECTORS = 64;
const DISK_SECTORS = SHARED_SECTORS + THREADS * OWN_SECTORS;
const DISK_BYTES = DISK_SECTORS * SECTOR_BYTES;
const SNAPSHOTS = 3;

for (const kind of kinds) {
  test(`${kind}: three threads, flushes and snapshots`, async (t) => {
    const folder = testFolder(t);
    const configPath = join(folder, 'config.v1.json');
    const first = pathsIn(folder, 'upper');
    writeFileSync(configPath, JSON.stringify({ lowers: [{ file: 'base' }], upper: first }));
    const base = await lazyLayer([], DISK_BYTES);
    const upper = await newUpper(first, kind, DISK_BYTES);
    const device = writableDevice(await openStack([base]), upper, configPath);
    const counters = new SharedArrayBuffer(12);
    const workers = Array.from({ length: THREADS }, (_, thread) => {
      const { port1, port2 } = new MessageChannel();
      device.onRemap((shared) => port1.postMessage(shared));
      port1.unref();
      const workerData: WriterThreadData = {
        ...{ shared: device.shared, thread, writes: WRITES, sectors: SHARED_SECTORS },
        ...{ ownSectors: OWN_SECTORS, port: port2, counters },
      };
      const script = new URL('./writer-thread.ts', import.meta.url);
      // Old mappings are in use until all have ended: nothing here tells earlier.
      device.onRemap(() => ended);
      const worker = new Worker(script, { workerData, transferList: [port2] });
      const ended = once(worker, 'exit').then(() => undefined);
      t.after(() => worker.terminate());
      return { worker, ended };
    });
    let running = THREADS;
    const failures: unknown[] = [];
    for (const { worker, ended } of workers) {
      worker.on('error', (error) => failures.push(error));
      void ended.then(() => (running -= 1));
    }
    let paths = first;
    for (let count = 1; running > 0; count += 1) {
      await device.writer.flush();
      // A flush with nothing to do returns without letting the event loop turn.
      await setImmediate();
      if (count % 3 !== 0 || count > 3 * SNAPSHOTS) continue;
      paths = pathsIn(folder, `upper${count}`);
      await device.snapshot(paths);
    }
    await Promise.all(workers.map(({ ended }) => ended));
    assert.deepEqual(failures, []);
    const [refused, maps] = new Int32Array(counters);
    t.diagnostic(`${refused} writes refused, ${maps} new maps taken by threads`);
    const live = await readAsFrontends(device, 0, DISK_SECTORS);
    await device.close();

    const { lowers } = JSON.parse(readFileSync(configPath, 'utf8')) as {
      lowers: { file: string }[];
    };
    const blobs = await Promise.all(lowers.slice(1).map(({ file }) => openLocalBlob(file)));
    const stack = await openStack([base, ...blobs]);
    const again = writableDevice(stack, await openWritableUpper(paths), configPath);
    assert.ok((await readAsFrontends(again, 0, DISK_SECTORS)).equals(live));
    await again.close();
    assert.ok(lowers.length > 1, 'no snapshot was taken while threads were writing');
  });
}
