import { Counter, type Registry } from 'prom-client';
import type { DeviceWriter } from '../device/block-device.ts';

/** What guests have changed, and made durable, since the device was attached. */
export interface WriteCounts {
  writes: number;
  writtenBytes: number;
  flushes: number;
  discards: number;
  discardedBytes: number;
  zeroes: number;
  zeroedBytes: number;
}

export function noWrites(): WriteCounts {
  return {
    writes: 0,
    writtenBytes: 0,
    flushes: 0,
    discards: 0,
    discardedBytes: 0,
    zeroes: 0,
    zeroedBytes: 0,
  };
}

/** A writer that counts what it did; what fails is not counted. */
export function countingWriter(writer: DeviceWriter, counts: WriteCounts): DeviceWriter {
  return {
    write: async (offset, data, fua) => {
      await writer.write(offset, data, fua);
      counts.writes += 1;
      counts.writtenBytes += data.length;
      if (fua) counts.flushes += 1;
    },
    flush: async () => {
      await writer.flush();
      counts.flushes += 1;
    },
    discard: async (offset, length) => {
      await writer.discard(offset, length);
      counts.discards += 1;
      counts.discardedBytes += length;
    },
    writeZeroes: async (offset, length) => {
      await writer.writeZeroes(offset, length);
      counts.zeroes += 1;
      counts.zeroedBytes += length;
    },
  };
}

const METRICS: readonly [string, string, keyof WriteCounts][] = [
  ['replaybd_writes_total', 'Writes that guests made', 'writes'],
  ['replaybd_written_bytes_total', 'Bytes that guests wrote', 'writtenBytes'],
  ['replaybd_flushes_total', 'Flushes, and writes that were made durable at once', 'flushes'],
  ['replaybd_discards_total', 'Discards', 'discards'],
  ['replaybd_discarded_bytes_total', 'Bytes that guests discarded', 'discardedBytes'],
  ['replaybd_zeroes_total', 'Ranges that guests had zeroed', 'zeroes'],
  ['replaybd_zeroed_bytes_total', 'Bytes that guests had zeroed', 'zeroedBytes'],
];

/** The Prometheus metrics of writable devices. */
export class WriteMetrics {
  readonly #devices = new Map<string, () => WriteCounts>();

  constructor(registry: Registry) {
    const devices = this.#devices;
    for (const [name, help, count] of METRICS) {
      new Counter({
        name,
        help,
        labelNames: ['device'],
        registers: [registry],
        collect() {
          this.reset();
          for (const [device, counts] of devices) this.inc({ device }, counts()[count]);
        },
      });
    }
  }

  add(device: string, counts: () => WriteCounts): void {
    this.#devices.set(device, counts);
  }

  remove(device: string): void {
    this.#devices.delete(device);
  }
}
