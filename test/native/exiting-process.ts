import { once } from 'node:events';
import { writeSync } from 'node:fs';
import { isMainThread, parentPort } from 'node:worker_threads';
import koffi from 'koffi';
import { NativeThread } from '../../native/native-thread.ts';
import { StopGuard } from '../../native/stop-guard.ts';

// A process that exits while a thread of its own is where stopping it would abort the process.

const BUSY_MS = 500;

if (isMainThread) {
  const { worker } = new NativeThread(new URL(import.meta.url), { name: 'busy' });
  await once(worker, 'message');
  writeSync(1, 'exits\n');
  process.exit(0);
}

const guard = new StopGuard();
const bytes = new Uint8Array(64);
parentPort?.postMessage('busy');
for (const endMs = performance.now() + BUSY_MS; performance.now() < endMs;) {
  koffi.view(koffi.address(bytes), bytes.length);
}
writeSync(1, 'past it\n');
guard.leave();
