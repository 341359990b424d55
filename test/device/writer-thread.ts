import { receiveMessageOnPort, workerData, type MessagePort } from 'node:worker_threads';
import { SECTOR_BYTES } from '../../src/base/limits.ts';
import type { SharedDevice } from '../../src/device/block-device.ts';
import { CachedReader } from '../../src/device/cached-reader.ts';
import { randomOf } from '../../bench/support/boot-reads.ts';

/** A thread that writes a device by itself, as a front end's workers do. */
export interface WriterThreadData {
  shared: SharedDevice;
  thread: number;
  writes: number;
  /** Sectors of the disk; every thread writes all of it, and has the last `ownSectors` x thread. */
  sectors: number;
  ownSectors: number;
  /** New maps come here. */
  port: MessagePort;
  /** Words: how many threads have taken a new map, how many writes were refused, maps taken. */
  counters: SharedArrayBuffer;
}

const data = workerData as WriterThreadData;
const counters = new Int32Array(data.counters);
let reader = new CachedReader(data.shared, 0);
const next = randomOf(data.thread + 1);
const sector = Buffer.alloc(SECTOR_BYTES);

function write(offset: number, bytes: Uint8Array): void {
  for (;;) {
    if (reader.upper?.write(offset, bytes) === true) return;
    Atomics.add(counters, 0, 1);
    if (!reader.isRetired) {
      Atomics.wait(counters, 2, 0, 1);
      continue;
    }
    const message = receiveMessageOnPort(data.port) as { message: SharedDevice } | undefined;
    if (message === undefined) continue;
    reader = new CachedReader(message.message, 0);
    Atomics.add(counters, 1, 1);
  }
}

for (let count = 1; count <= data.writes; count += 1) {
  const shared = Math.floor(next() * (data.sectors - 16));
  const sectors = 1 + Math.floor(next() * 16);
  write(shared * SECTOR_BYTES, Buffer.alloc(sectors * SECTOR_BYTES, data.thread + 1));
  // What is this thread's alone must read back at once.
  const own = data.sectors + data.thread * data.ownSectors + (count % data.ownSectors);
  sector.writeUInt32LE(count, 0);
  write(own * SECTOR_BYTES, sector);
  const back = Buffer.alloc(SECTOR_BYTES);
  for (let tries = 0; !reader.readCached(own * SECTOR_BYTES, back); tries += 1) {
    if (!reader.isRetired || tries > 1_000_000) throw new Error('own data does not read');
    const message = receiveMessageOnPort(data.port) as { message: SharedDevice } | undefined;
    if (message !== undefined) reader = new CachedReader(message.message, 0);
  }
  if (!back.equals(sector)) throw new Error(`thread ${data.thread}: write ${count} is not there`);
}
