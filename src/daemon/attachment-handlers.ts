import { ReplaybdError } from '../base/errors.ts';
import type { Attachment } from './attachment.ts';
import type { ControlHandlers, JsonValue } from './control.ts';
import type { Runtime } from './runtime.ts';

/** The control API of a process that serves one device. */
export function attachmentHandlers(
  runtime: Runtime,
  attachment: Attachment,
  detach: () => void,
): ControlHandlers {
  const only = (id: string): Attachment => {
    if (id === attachment.device.id) return attachment;
    throw new ReplaybdError(
      'ERR_DEVICE_UNKNOWN',
      `no device ${id}; this process serves ${attachment.device.id}.`,
      { errno: 'ENOENT' },
    );
  };
  const stats = (): JsonValue => {
    const { demand, prefetch, ...fetcher } = runtime.fetcher.stats;
    return {
      ...asJson(attachment.report()),
      fetcher: { demand: { ...demand }, prefetch: { ...prefetch }, ...fetcher },
      cache: { ...runtime.cache.stats },
    };
  };
  return {
    health: () => ({ status: 'ok', pid: process.pid }),
    devices: () => [stats()],
    stats: (id) => {
      only(id);
      return stats();
    },
    metrics: () => runtime.metrics.registry.metrics(),
    stopRecording: async (id) => {
      const trace = await only(id).stopRecording('request');
      return { records: trace.records.count, durationUs: trace.recording.durationUs };
    },
    snapshot: async (id, parameters) => asJson(await only(id).snapshot(parameters)),
    fork: async (id, parameters) => asJson(await only(id).fork(parameters)),
    detach: (id) => {
      only(id);
      detach();
      return { detaching: id };
    },
  };
}

/** A plain object as JSON sees it. */
function asJson(value: object): { [key: string]: JsonValue } {
  return JSON.parse(JSON.stringify(value)) as { [key: string]: JsonValue };
}
