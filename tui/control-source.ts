import { basename, resolve } from 'node:path';
import { ReplaybdError } from '../src/base/errors.ts';
import type { TouchPage } from '../src/daemon/touch-feed.ts';
import { decodeTrace } from '../src/trace/decode.ts';
import { readFacts } from '../src/trace/store-catalog.ts';
import type { ReplayRun } from '../src/trace/store-facts.ts';
import { readTraceFile, TraceStore } from '../src/trace/store.ts';
import type { LiveSource, ServedDevice } from './live-poller.ts';
import type { LiveStats } from './model/live.ts';
import { openedTrace, type OpenedTrace } from './model/opened-trace.ts';

/** Where the store keeps a trace: folder, image, workload. */
const STORED = /^(.*)\/([0-9a-f]{64})\/([0-9a-f]{64})\.trace$/;

/** Reads a trace file. Errors: those of reading and decoding one. */
export async function openTrace(path: string): Promise<OpenedTrace> {
  const bytes = await readTraceFile(path);
  return openedTrace(basename(path), decodeTrace(bytes, path), bytes.length, await runsOf(path));
}

/** What the trace store keeps beside a trace of its own of how replays of it went. */
async function runsOf(path: string): Promise<readonly ReplayRun[]> {
  const found = STORED.exec(resolve(path));
  if (found === null) return [];
  const [, folder, image, workload] = found;
  // A trace can be looked at without that, whatever is wrong with it.
  const facts = await readFacts(new TraceStore(folder), image, workload).catch(() => null);
  return facts?.runs ?? [];
}

/** Devices by the control API; `find` lists those that there are. */
export function controlSource(find: () => Promise<readonly ServedDevice[]>): LiveSource {
  const ask = async (device: ServedDevice, what: string): Promise<object> => {
    const path = `/v1/devices/${encodeURIComponent(device.device)}/${what}`;
    const { controlRequest } = await import('../src/daemon/control-client.ts');
    const answer = await controlRequest(device.socketPath, 'GET', path);
    if (typeof answer === 'object' && answer !== null) return answer;
    throw new ReplaybdError(
      'ERR_CONTROL_REPLY',
      `${device.socketPath}: expected an object for ${path}, found something else. ` +
        'Is this a replaybd daemon?',
    );
  };
  return {
    devices: find,
    stats: async (device) => (await ask(device, 'stats')) as LiveStats,
    touches: async (device, since) => (await ask(device, `touches?since=${since}`)) as TouchPage,
    trace: openTrace,
  };
}
