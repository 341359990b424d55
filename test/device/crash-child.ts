import { writeSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { codeOf } from '../../src/base/errors.ts';
import { openLocalBlob } from '../../src/blob/local-blob.ts';
import { silentLogger } from '../../src/base/log.ts';
import { SECTOR_BYTES } from '../../src/base/limits.ts';
import { recoverSnapshot, type SnapshotStep } from '../../src/device/snapshot.ts';
import type { WritableDevice } from '../../src/device/writable-device.ts';
import { readImageConfig } from '../../src/image/config.ts';
import { openWritableUpper } from '../../src/image/lsmt/writable-upper.ts';
import { openStack } from '../../src/image/stack.ts';
import { pathsIn } from '../image/upper-support.ts';
import { crashOps, sectorsOf } from './crash-ops.ts';
import { writableDevice } from './writable-support.ts';

// A process that changes a device until it is killed, or kills itself after a step of a snapshot. On
// standard output: an operation's number before it begins, and "f" and a number when all operations
// up to that one are flushed.

/** Opens the device of a configuration file, as an attach does. */
export async function openConfigured(configPath: string): Promise<WritableDevice> {
  await recoverSnapshot(configPath, silentLogger);
  const config = await readImageConfig(configPath);
  const blobs = await Promise.all(config.lowers.map(({ file }) => openLocalBlob(file)));
  const { data, index } = config.upper;
  const upper = await openWritableUpper({ data, index });
  return writableDevice(await openStack(blobs), upper, configPath);
}

async function main(
  folder: string,
  seed: number,
  firstOp: number,
  fatalStep: string,
): Promise<void> {
  const device = await openConfigured(`${folder}/config.v1.json`);
  const onStep = async (step: SnapshotStep): Promise<void> => {
    if (step === fatalStep) process.kill(process.pid, 'SIGKILL');
    // A write in the middle of it, which waits or goes to the new layer.
    if (step === 'switched') await device.writer.flush();
  };
  for (const op of crashOps(seed, firstOp)) {
    await tell(String(op.number));
    const offset = op.lba * SECTOR_BYTES;
    if (op.kind === 'write') await device.writer.write(offset, sectorsOf(op), false);
    else if (op.kind === 'discard') await device.writer.discard(offset, op.sectors * SECTOR_BYTES);
    else if (op.kind === 'flush') await device.writer.flush();
    else await device.snapshot({ ...pathsIn(folder, `upper${op.number}`), onStep });
    if (op.kind === 'flush' || op.kind === 'snapshot') await tell(`f${op.number}`);
    if (op.number % 50 === 0) await sleep(1);
  }
}

/** A line is written before this resolves; a reader that is slow has the pipe full for a while. */
async function tell(text: string): Promise<void> {
  for (;;) {
    try {
      writeSync(1, `${text}\n`);
      return;
    } catch (error) {
      if (codeOf(error) !== 'EAGAIN') throw error;
      await sleep(1);
    }
  }
}

if (import.meta.main) {
  const [folder = '', seed = '', firstOp = '', fatalStep = ''] = process.argv.slice(2);
  await main(folder, Number(seed), Number(firstOp), fatalStep);
}
