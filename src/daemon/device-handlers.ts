import { ReplaybdError } from '../base/errors.ts';
import type { AttachDefaults } from './attach-parameters.ts';
import type { ControlHandlers, JsonValue } from './control-routes.ts';
import type { Devices } from './devices.ts';
import { upstreamSnapshot } from './upstream-snapshot.ts';

/**
 * The control API over a process's devices: a daemon's, or the one of `replaybd attach`, which serves
 * no other (`servesOne`).
 */
export function deviceHandlers(
  devices: Devices,
  { servesOne = false, defaults }: { servesOne?: boolean; defaults?: AttachDefaults } = {},
): ControlHandlers {
  const { runtime } = devices;
  const stats = (id: string): JsonValue => {
    const device = devices.get(id);
    const { demand, prefetch, ...fetcher } = runtime.fetchers.stats;
    return {
      ...asJson(device.report ?? device.attachment.report()),
      ...asJson(device.summary),
      fetcher: { demand: { ...demand }, prefetch: { ...prefetch }, ...fetcher },
      cache: { ...runtime.cache.stats },
      missLatencyBuckets: device.missLatencyBuckets,
    };
  };
  return {
    health: () => {
      const states = { opening: 0, ready: 0, closing: 0, failed: 0 };
      for (const device of devices.list()) states[device.state] += 1;
      return { status: 'ok', pid: process.pid, devices: states };
    },
    devices: () => devices.list().map((device) => asJson(device.summary)),
    stats,
    touches: (id, since) => asJson(devices.get(id).attachment.touches.page(since)),
    metrics: () => runtime.metrics.registry.metrics(),
    ...(defaults === undefined ? {} : { attachDefaults: defaults }),
    attach: async (parameters) => {
      if (servesOne && !devices.has(parameters.id)) throw servesOneError(parameters.id);
      return asJson((await devices.attach(parameters)).summary);
    },
    detach: async (id) => {
      const report = await devices.detach(id);
      return { device: id, detached: id, report: report === null ? null : asJson(report) };
    },
    startRecording: (id, parameters) => {
      return { device: id, trace: devices.get(id).attachment.startRecording(parameters) };
    },
    stopRecording: async (id) => {
      const trace = await devices.get(id).attachment.stopRecording('request');
      return { device: id, records: trace.records.count, durationUs: trace.recording.durationUs };
    },
    snapshot: async (id, parameters) =>
      asJson(await devices.get(id).attachment.snapshot(parameters)),
    fork: async (id, parameters) => asJson(await devices.get(id).attachment.fork(parameters)),
    resize: async (id, { sizeBytes }) => asJson(await devices.get(id).resize(sizeBytes)),
    upstreamSnapshot: (query) => upstreamSnapshot(devices, query),
  };
}

function servesOneError(id: string): ReplaybdError {
  return new ReplaybdError(
    'ERR_DAEMON_NEEDED',
    `${id}: this process serves the one device that it was started for. Ask the daemon.`,
    { errno: 'EINVAL' },
  );
}

/** A plain object as JSON sees it. */
function asJson(value: object): { [key: string]: JsonValue } {
  return JSON.parse(JSON.stringify(value)) as { [key: string]: JsonValue };
}
