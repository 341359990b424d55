import { access, rm } from 'node:fs/promises';
import { resolve } from 'node:path';
import { codeOf, messageOf } from '../base/errors.ts';
import { mergeConfig } from '../device/snapshot-config.ts';
import { readImageConfig } from '../image/config.ts';
import type { UpperKind } from '../image/lsmt/upper-map.ts';
import { upperFiles } from '../image/lsmt/create-upper.ts';
import { openWritableUpper } from '../image/lsmt/writable-upper.ts';
import type { UpstreamReply } from './control-routes.ts';
import type { Devices } from './devices.ts';

const PARAMETERS = ['dev_id', 'config'] as const;

/**
 * overlaybd's `/snapshot?dev_id=<id>&config=<path>`: the device goes on with the writable layer that
 * another configuration names, which takes the place of the present one: what it says beside the stack
 * counts from the next attach. As there, its files may have
 * been created beforehand; here they may also be left to the snapshot.
 */
export async function upstreamSnapshot(
  devices: Devices,
  query: URLSearchParams,
): Promise<UpstreamReply> {
  const missing = PARAMETERS.find((name) => (query.get(name) ?? '') === '');
  if (missing !== undefined) return failure(400, `missing parameter ${missing}`);
  const id = query.get('dev_id') ?? '';
  const configPath = resolve(query.get('config') ?? '');
  try {
    const { attachment } = devices.get(id);
    const { upper } = await readImageConfig(configPath);
    if (upper.data === '' || upper.index === '') {
      return failure(500, `${configPath}: expected a writable layer, found none`);
    }
    const kind = await takeUntouched(upper);
    const { config } = await attachment.snapshot({
      ...{ data: resolve(upper.data), index: resolve(upper.index) },
      ...(kind === null ? {} : { kind }),
    });
    if (resolve(config) !== configPath) {
      await mergeConfig(config, configPath);
      await rm(configPath, { force: true });
    }
    return { status: 200, success: true, message: 'snapshot created' };
  } catch (error) {
    return failure(codeOf(error) === 'ERR_DEVICE_UNKNOWN' ? 404 : 500, messageOf(error));
  }
}

/**
 * Makes room for the snapshot's own files where overlaybd-create has made empty ones; their kind, or
 * null when there are none. Throws when they hold data, or belong to somebody.
 */
async function takeUntouched(paths: { data: string; index: string }): Promise<UpperKind | null> {
  try {
    await access(paths.data);
  } catch {
    return null;
  }
  const upper = await openWritableUpper(paths);
  const { isEmpty, kind } = upper;
  await upper.close();
  if (!isEmpty) throw new Error(`${paths.data}: expected an empty writable layer, found data`);
  for (const path of upperFiles(paths)) await rm(path, { force: true });
  return kind;
}

function failure(status: 400 | 404 | 500, message: string): UpstreamReply {
  return { status, success: false, message };
}
