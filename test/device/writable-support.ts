import { systemClock } from '../../src/base/clock.ts';
import { SECTOR_BYTES } from '../../src/base/limits.ts';
import { silentLogger } from '../../src/base/log.ts';
import type { BlockDevice } from '../../src/device/block-device.ts';
import { createTapMap } from '../../src/device/tap.ts';
import { WritableDevice } from '../../src/device/writable-device.ts';
import { writeCommittedLayer, type LsmtExtent } from '../../src/image/lsmt/writer.ts';
import type { WritableUpper } from '../../src/image/lsmt/writable-upper.ts';
import type { Stack } from '../../src/image/stack.ts';
import { MemoryBlob } from '../../bench/support/memory-blob.ts';
import { MemorySink } from '../../bench/support/memory-sink.ts';

export function writableDevice(
  stack: Stack,
  upper: WritableUpper,
  configPath?: string,
): WritableDevice {
  return new WritableDevice({
    id: 'test',
    stack,
    tap: createTapMap(1),
    upper,
    clock: systemClock,
    log: silentLogger,
    observer: { onMiss: () => 'demand', onMissDone: () => undefined },
    ...(configPath === undefined ? {} : { configPath }),
  });
}

/** A raw layer of which nothing is local until it is read. */
export async function lazyLayer(
  extents: readonly LsmtExtent[],
  virtualSizeBytes: number,
): Promise<MemoryBlob> {
  const sink = new MemorySink();
  await writeCommittedLayer(sink, { virtualSizeBytes }, extents);
  return new MemoryBlob(sink.bytes, 'lazy');
}

/** What a front end does: the hit path first, then the other one. */
export async function readAsFrontends(
  device: BlockDevice,
  lba: number,
  sectors: number,
): Promise<Buffer> {
  const into = Buffer.alloc(sectors * SECTOR_BYTES, 0xee);
  if (!device.readCached(lba * SECTOR_BYTES, into)) await device.read(lba * SECTOR_BYTES, into);
  return into;
}

/** Sectors that differ from each other and from those of other seeds; none is zero. */
export function noise(sectors: number, seed: number): Buffer {
  const bytes = Buffer.alloc(sectors * SECTOR_BYTES);
  for (let at = 0; at < bytes.length; at += 4) {
    bytes.writeUInt32LE((Math.imul(seed * 65_537 + at + 1, 0x9e37_79b1) | 1) >>> 0, at);
  }
  return bytes;
}
