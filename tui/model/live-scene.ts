import type { Touch } from '../../src/daemon/touch-feed.ts';
import { SECTOR_BYTES } from '../../src/base/limits.ts';
import type { Accesses } from './accesses.ts';
import { kindCode, KINDS } from './kinds.ts';
import type { OpenedTrace } from './opened-trace.ts';
import { sceneOf, type Scene } from './scene.ts';

/**
 * A replay while it happens: first touches by what they met with, over the records of the trace, which
 * are unused as long as nobody has read them. A cell shows the worst, so that touches cover records.
 */
export function replayScene(touches: readonly Touch[], expected: OpenedTrace | null): Scene {
  const records = expected?.accesses;
  const before = records?.count ?? 0;
  const count = before + touches.length;
  const all = {
    count,
    timeUs: new Float64Array(count),
    lba: new Float64Array(count),
    sectors: new Float64Array(count),
    layer: new Uint16Array(count),
    codes: new Uint8Array(count).fill(kindCode('unused'), 0, before),
  };
  if (records !== undefined) {
    all.timeUs.set(records.timeUs);
    all.lba.set(records.lba);
    for (let i = 0; i < before; i += 1) all.sectors[i] = records.sectors[i];
  }
  let lastUs = expected?.summary.recording.durationUs ?? 0;
  for (const [index, [timeMs, offset, length, source]] of touches.entries()) {
    const at = before + index;
    all.timeUs[at] = timeMs * 1000;
    all.lba[at] = offset / SECTOR_BYTES;
    all.sectors[at] = length / SECTOR_BYTES;
    all.codes[at] = kindCode(source);
    lastUs = Math.max(lastUs, timeMs * 1000);
  }
  return sceneOf(all satisfies Accesses, KINDS, 'lba', lastUs);
}
