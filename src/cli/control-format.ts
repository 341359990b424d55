import type { AttachmentReport } from '../daemon/attachment.ts';
import { formatQuality } from '../prefetch/quality.ts';
import type { DeviceSummary } from '../daemon/served-device.ts';
import type { DeviceStats } from './control-socket.ts';
import { formatBytes, formatTable } from './terminal.ts';

/** An attached device's counters, a line each. */
export function formatStats(facts: DeviceStats & { pid: number }): string {
  const { trace, replay, fetcher, cache } = facts;
  const row = (name: string, text: string): string => `${name.padEnd(13)}${text}\n`;
  const inFlight = formatBytes(fetcher.demand.activeBytes + fetcher.prefetch.activeBytes);
  return (
    row('device', `${facts.device} (process ${facts.pid}): ${facts.image}`) +
    (facts.failure === null ? '' : row('failed', facts.failure)) +
    row('mode', `${facts.mode}, ready in ${facts.readyMs.toFixed(0)} ms`) +
    row('disk', `${formatBytes(facts.virtualSizeBytes)} in ${facts.layers} layers`) +
    (trace === null ? '' : row('trace', formatTrace(trace))) +
    (replay === null
      ? ''
      : row(
          'replay',
          `${replay.end ?? 'running'}, ${formatBytes(replay.requestedBytes)} asked for`,
        )) +
    formatQuality(facts.quality) +
    formatUpper(facts) +
    row('in flight', `${inFlight}, ${fetcher.retries} retries, ${fetcher.throttles} throttles`) +
    row('cache', `${formatBytes(cache.usedBytes)} of ${formatBytes(cache.quotaBytes)}`)
  );
}

/** The trace that a device records or replays, for people. */
export function formatTrace(trace: NonNullable<AttachmentReport['trace']>): string {
  const truncated = trace.truncated ? ' (truncated)' : '';
  return `${trace.records} records${truncated}, ${trace.path}`;
}

/** What was written to a device, as a line for people; '' for a read-only one. */
export function formatUpper({ upper }: Pick<AttachmentReport, 'upper'>): string {
  if (upper === null) return '';
  const { kind, data, writes, writtenBytes, flushes, discards } = upper;
  return (
    `written      ${formatBytes(writtenBytes)} in ${writes} writes, ${flushes} flushes, ` +
    `${discards} discards; ${kind} layer ${data}\n`
  );
}

/** Devices, a line each under a heading; '' when there are none. */
export function formatDevices(devices: readonly DeviceSummary[]): string {
  if (devices.length === 0) return '';
  const rows = devices.map(({ device, state, mode, frontend, path, failure, image }) => [
    ...[device, state, mode, path ?? frontend],
    failure === null ? image : `${image}: ${failure}`,
  ]);
  const table = [['DEVICE', 'STATE', 'MODE', 'PATH', 'IMAGE'], ...rows];
  return formatTable(table);
}
