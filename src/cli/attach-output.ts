import type { DeviceSummary } from '../daemon/served-device.ts';
import type { AttachFlags } from './attach.ts';

/** Says that a device can be used, and where. */
export function announce(summary: DeviceSummary, control: string, flags: AttachFlags): void {
  const { device, mode, frontend, path, mount, virtualSizeBytes, readyMs } = summary;
  const facts = { device, mode, frontend, path, mount, control, virtualSizeBytes, readyMs };
  if (flags.json === true) {
    // `id` is what `device` was called before.
    process.stdout.write(`${JSON.stringify({ id: device, ...facts })}\n`);
    return;
  }
  const mounted = mount === null ? '' : ` mounted on ${mount}`;
  const how = flags.daemon === true ? `replaybd detach ${device} ends it.` : 'Ctrl-C detaches.';
  process.stdout.write(
    `${path === null || path === '' ? device : path}${mounted}: ${summary.image}, ` +
      `${mode} mode, ready in ${(readyMs ?? 0).toFixed(0)} ms. ${how}\n`,
  );
}
