import assert from 'node:assert/strict';
import { existsSync, mkdirSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { open, rmdir, symlink, unlink, writeFile } from 'node:fs/promises';
import { setTimeout as sleep } from 'node:timers/promises';
import { CliProcess } from '../../support/cli.ts';
import type { Scratch } from '../../support/scratch.ts';

// What overlaybd's snapshotter does to have a device, by configfs alone; the daemon answers the kernel.

/** Where it makes its devices; whoever uses them makes and removes it. */
export const HBA = '/sys/kernel/config/target/core/user_999999999';
const LOOPBACK = '/sys/kernel/config/target/loopback';
const LOOKS_MAX = 500;
/** Many devices are looked for at once. */
const LOOK_MS = 200;
/** Of a disk that is looked at only here and there. */
const SAMPLES = 3;
const SAMPLE_BYTES = 65_536;

export interface Device {
  id: number;
  folder: string;
  fabric: string;
  resultFile: string;
  config: string;
  /** Further settings, as control takes them. */
  settings?: string;
}

export async function startDaemon(
  scratch: Scratch,
): Promise<{ daemon: CliProcess; control: string }> {
  const daemon = new CliProcess(scratch, ['daemon', '--cache', scratch.path('cache'), '--json']);
  const { control } = JSON.parse(await daemon.line()) as { control: string };
  return { daemon, control };
}

/** A snapshot's folder: `configPath` with changes, and where the daemon is to tell how it went. */
export function makeDevice(
  scratch: Scratch,
  configPath: string,
  id: number,
  changes: object = {},
): Device {
  const config = scratch.path(`config-${id}.v1.json`);
  const resultFile = scratch.path(`result-${id}`);
  const image = JSON.parse(readFileSync(configPath, 'utf8')) as object;
  writeFileSync(config, JSON.stringify({ ...image, ...changes, resultFile }));
  const fabric = `${LOOPBACK}/naa.199${String(id).padStart(13, '0')}`;
  return { id, config, resultFile, fabric, folder: `${HBA}/dev_${id}` };
}

/** The snapshotter's sequence, to the letter; returns /dev/sdX. */
export async function attach(device: Device): Promise<string> {
  await enable(device);
  const { folder, fabric, id } = device;
  writeFileSync(`${folder}/attrib/cmd_time_out`, '2147483');
  mkdirSync(`${fabric}/tpgt_1/lun/lun_0`, { recursive: true });
  writeFileSync(`${fabric}/tpgt_1/nexus`, fabric.slice(fabric.lastIndexOf('/') + 1));
  await symlink(folder, `${fabric}/tpgt_1/lun/lun_0/dev_${id}`);
  const address = readFileSync(`${fabric}/tpgt_1/address`, 'utf8').trim();
  const block = `/sys/class/scsi_device/${address}:0/device/block`;
  for (let look = 0; look < LOOKS_MAX; look += 1) {
    const name = existsSync(block) ? readdirSync(block).at(0) : undefined;
    if (name !== undefined && (await opens(`/dev/${name}`))) return `/dev/${name}`;
    await sleep(LOOK_MS);
  }
  throw new Error(`${block}: no disk`);
}

/** A disk's name and node are there before it is. */
async function opens(disk: string): Promise<boolean> {
  try {
    await (await open(disk)).close();
    return true;
  } catch {
    return false;
  }
}

/** A few blocks of a disk that should be as a file is; others for each seed. */
export async function compareSamples(disk: string, raw: string, seed: number): Promise<void> {
  const places = Math.floor(statSync(raw).size / SAMPLE_BYTES);
  const file = await open(raw);
  try {
    for (let sample = 0; sample < SAMPLES; sample += 1) {
      const position = ((seed * 97 + sample * 193) % places) * SAMPLE_BYTES;
      const bytes = Buffer.alloc(SAMPLE_BYTES);
      await file.read(bytes, 0, bytes.length, position);
      await compareAt(disk, position, bytes);
    }
  } finally {
    await file.close();
  }
}

export async function compareAt(disk: string, position: number, expected: Buffer): Promise<void> {
  const file = await open(disk);
  try {
    const { buffer } = await file.read(Buffer.alloc(expected.length), 0, expected.length, position);
    assert.ok(buffer.equals(expected), `${disk}: other bytes at ${position}`);
  } finally {
    await file.close();
  }
}

/** Resolves when the daemon has opened the image. */
export async function enable({ folder, config, settings }: Device): Promise<void> {
  mkdirSync(folder);
  writeFileSync(`${folder}/control`, `dev_config=overlaybd/${config}`);
  writeFileSync(`${folder}/control`, 'max_data_area_mb=4');
  if (settings !== undefined) writeFileSync(`${folder}/control`, settings);
  await writeFile(`${folder}/enable`, '1');
}

export async function detach({ folder, fabric, id }: Device): Promise<void> {
  const lun = `${fabric}/tpgt_1/lun/lun_0`;
  await unlink(`${lun}/dev_${id}`);
  for (const path of [lun, `${fabric}/tpgt_1`, fabric, folder]) await rmdir(path);
}
