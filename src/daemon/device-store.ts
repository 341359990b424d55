import { closeSync } from 'node:fs';
import { mkdir, readdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { tryLockFolder } from '../../native/file-space.ts';
import { syncFolder, writeFileAtomic } from '../base/atomic-file.ts';
import { readConfigFile } from '../base/config-file.ts';
import { codeOf, messageOf, ReplaybdError } from '../base/errors.ts';
import { JsonObject } from '../base/json-object.ts';
import { daemonLimits } from '../base/limits.ts';
import type { Logger } from '../base/log.ts';
import { attachBody, readAttachParameters, type AttachParameters } from './attach-parameters.ts';

const VERSION = 1;
const SUFFIX = '.device.json';

/**
 * The devices of a daemon as files, one each, that only their owner may read: what the next daemon
 * attaches again when this one was killed.
 *
 *   <folder>/<id>.device.json    {"version": 1, "device": {...}}    as POST /v1/devices takes it
 *   <folder>/lock                locked by the daemon that has the folder
 */
export class DeviceStore {
  readonly #folder: string;
  readonly #log: Logger;
  #lockFd: number | null = null;

  private constructor(folder: string, log: Logger) {
    this.#folder = folder;
    this.#log = log;
  }

  /** Makes the folder. Throws ERR_STATE_FOLDER. */
  static async open(folder: string, log: Logger): Promise<DeviceStore> {
    try {
      await mkdir(folder, { recursive: true, mode: 0o700 });
      return new DeviceStore(folder, log);
    } catch (error) {
      throw new ReplaybdError(
        'ERR_STATE_FOLDER',
        `${folder}: cannot be made: ${messageOf(error)}. Choose another with --state.`,
        { cause: error },
      );
    }
  }

  /** Takes the folder for this process, until `close`. Throws ERR_STATE_LOCKED when another has it. */
  lock(): void {
    this.#lockFd = tryLockFolder(this.#folder);
    if (this.#lockFd !== null) return;
    throw new ReplaybdError(
      'ERR_STATE_LOCKED',
      `${this.#folder}: another daemon has the devices of this folder. Give this one another --state ` +
        'folder, or end that one.',
      { errno: 'EBUSY' },
    );
  }

  close(): void {
    if (this.#lockFd !== null) closeSync(this.#lockFd);
    this.#lockFd = null;
  }

  async save(parameters: AttachParameters): Promise<void> {
    const text = JSON.stringify({ version: VERSION, device: attachBody(parameters) }, null, 2);
    await writeFileAtomic(this.#path(parameters.id), Buffer.from(`${text}\n`));
  }

  /** Nothing happens when there is no such device. */
  async remove(id: string): Promise<void> {
    await rm(this.#path(id), { force: true });
    await syncFolder(this.#folder);
  }

  /** Every device. A file that is none is left alone, and the log says why. */
  async load(): Promise<AttachParameters[]> {
    const names = (await readdir(this.#folder)).filter((name) => name.endsWith(SUFFIX)).sort();
    const devices: AttachParameters[] = [];
    for (const name of names.slice(0, daemonLimits.devicesMax)) {
      try {
        devices.push(await readDescription(join(this.#folder, name), name));
      } catch (error) {
        this.#log.error({ code: codeOf(error) }, `a device is left out: ${messageOf(error)}`);
      }
    }
    return devices;
  }

  #path(id: string): string {
    return join(this.#folder, `${id}${SUFFIX}`);
  }
}

async function readDescription(path: string, name: string): Promise<AttachParameters> {
  const text = await readConfigFile(path, daemonLimits.descriptionBytesMax);
  const root = JsonObject.parse(text, path);
  const version = root.natural('version', 0);
  const device = root.object('device');
  if (version !== VERSION || device === null) {
    throw new ReplaybdError(
      'ERR_STATE_VERSION',
      `${path}: expected a device of version ${VERSION}, found version ${version}. ` +
        'Remove the file, or use the replaybd that wrote it.',
    );
  }
  const parameters = readAttachParameters(device);
  if (root.ignored.length > 0 || name !== `${parameters.id}${SUFFIX}`) {
    throw new ReplaybdError(
      'ERR_STATE_VERSION',
      `${path}: expected what describes device ${parameters.id} and nothing else, found ` +
        `${root.ignored.length === 0 ? 'another name' : root.ignored.join(', ')}. Remove the file.`,
    );
  }
  return parameters;
}
