import { isAbsolute } from 'node:path';
import { ReplaybdError } from '../base/errors.ts';
import { JsonObject } from '../base/json-object.ts';
import { daemonLimits } from '../base/limits.ts';
import type { FrontendKind, FrontendParameters } from '../frontend/frontend.ts';
import { checkFrontendParameters, FRONTEND_KINDS } from '../frontend/frontends.ts';
import type { UpperKind } from '../image/lsmt/upper-map.ts';
import { PACKED_MODES, type PackedMode } from '../prefetch/packed-rule.ts';
import type { TraceWorkload } from '../trace/trace.ts';
import { wordsOfWorkload, workloadOfWords, type WorkloadWords } from '../trace/workload.ts';
import type { AttachmentOptions, AttachMode } from './attachment.ts';
import type { ServiceConfig } from './service-config.ts';

export const ATTACH_MODES: readonly AttachMode[] = ['off', 'record', 'replay', 'auto'];
const UPPER_KINDS: readonly UpperKind[] = ['append', 'sparse'];

/** A device as it is asked for: all that it takes to attach it, now or after a restart. */
export interface AttachParameters extends WorkloadWords {
  readonly id: string;
  /** The absolute path of a config.v1.json, or an image reference. */
  readonly image: string;
  readonly mode: AttachMode;
  /** Words that name the workload. */
  readonly workload: readonly string[];
  /** A trace file to write or to replay. */
  readonly trace?: string;
  /** Most that a replay may fetch, in MiB. */
  readonly budgetMiB?: number;
  /** Whether a replay reads hot blobs. */
  readonly packed?: PackedMode;
  /** When a recording ends, in seconds. */
  readonly timeLimit?: number;
  readonly untilIdle?: number;
  /** The folder of a writable layer, and its kind. */
  readonly upper?: string;
  readonly upperKind?: UpperKind;
  readonly frontend: FrontendKind;
  readonly frontendParameters: FrontendParameters;
}

/** What holds where a request does not say. */
export interface AttachDefaults {
  readonly mode: AttachMode;
  readonly budgetMiB?: number;
  readonly packed?: PackedMode;
}

const DEFAULTS: AttachDefaults = { mode: 'auto' };

/** Those of overlaybd.json. */
export function attachDefaults(service: ServiceConfig | null): AttachDefaults {
  const { mode = null, budgetMB = null, packed = null } = service?.replaybd ?? {};
  return {
    mode: mode ?? DEFAULTS.mode,
    ...(budgetMB === null ? {} : { budgetMiB: budgetMB }),
    ...(packed === null ? {} : { packed }),
  };
}

/** A device's name as people and programs may choose it. */
export function isDeviceId(text: string): boolean {
  return /^[A-Za-z0-9][A-Za-z0-9_.-]*$/.test(text) && text.length <= daemonLimits.idLengthMax;
}

/**
 * Reads and checks the parameters of an attach; keys that it does not know stay in `object.ignored`.
 * Throws ERR_CONFIG_TYPE, ERR_ATTACH_PARAMETER or ERR_FRONTEND_PARAMETER.
 */
export function readAttachParameters(
  object: JsonObject,
  defaults: AttachDefaults = DEFAULTS,
): AttachParameters {
  const id = object.string('id');
  if (!isDeviceId(id)) {
    throw wrong(
      `"id": expected up to ${daemonLimits.idLengthMax} letters, digits, dots, dashes, underscores`,
    );
  }
  const image = object.string('image');
  if (image === '') throw wrong('"image": expected a configuration file or an image reference');
  if (/^\.{0,2}\/|\.json$/.test(image)) path('image', image);
  const frontend = object.word('frontend', FRONTEND_KINDS) || 'fuse';
  const upper = path('upper', object.string('upper'));
  const upperKind = object.word('upperKind', UPPER_KINDS);
  if (upperKind !== '' && upper === '') throw wrong('"upperKind" goes with "upper"');
  const trace = path('trace', object.string('trace'));
  const packed = object.word('packed', PACKED_MODES) || defaults.packed;
  const frontendParameters = readFrontendParameters(object);
  checkFrontendParameters(frontend, frontendParameters);
  return {
    ...{ id, image, mode: object.word('mode', ATTACH_MODES) || defaults.mode },
    ...attachWorkload(readWorkload(object)),
    ...(trace === '' ? {} : { trace }),
    ...(defaults.budgetMiB === undefined ? {} : { budgetMiB: defaults.budgetMiB }),
    ...positive(object, 'budgetMiB'),
    ...(packed === undefined ? {} : { packed }),
    ...positive(object, 'timeLimit'),
    ...positive(object, 'untilIdle'),
    ...(upper === '' ? {} : { upper }),
    ...(upperKind === '' ? {} : { upperKind }),
    ...{ frontend, frontendParameters },
  };
}

/** The words of a request that name a workload. Throws ERR_CONFIG_TYPE or ERR_WORKLOAD. */
export function readWorkload(object: JsonObject): TraceWorkload {
  return workloadOfWords({
    workload: object.strings('workload'),
    workloadArgs: object.strings('workloadArgs'),
    workloadEnv: object.strings('workloadEnv'),
  });
}

/** A workload as parameters have it. */
export function attachWorkload(workload: TraceWorkload) {
  return { workload: [], ...wordsOfWorkload(workload) };
}

/** The body of a request that asks for a device, and what readAttachParameters reads. */
export function attachBody({ frontendParameters, ...others }: AttachParameters): object {
  return { ...others, ...frontendParameters };
}

/** The parameters as an Attachment takes them. */
export function attachmentOptions(parameters: AttachParameters): AttachmentOptions {
  const { id, image, mode } = parameters;
  const { trace, budgetMiB, packed, timeLimit, untilIdle, upper, upperKind } = parameters;
  return {
    ...{ id, target: image, mode, workload: workloadOfWords(parameters) },
    ...(trace === undefined ? {} : { tracePath: trace }),
    ...(budgetMiB === undefined ? {} : { budgetBytes: budgetMiB * 2 ** 20 }),
    ...(packed === undefined ? {} : { packed }),
    ...(timeLimit === undefined ? {} : { recordLimitMs: timeLimit * 1000 }),
    ...(untilIdle === undefined ? {} : { recordUntilIdleMs: untilIdle * 1000 }),
    ...(upper === undefined ? {} : { upperFolder: upper }),
    ...(upperKind === undefined ? {} : { upperKind }),
  };
}

function readFrontendParameters(object: JsonObject): FrontendParameters {
  const mount = path('mount', object.string('mount'));
  const socket = path('socket', object.string('socket'));
  return {
    ...(mount === '' ? {} : { mount }),
    ...(object.has('loop') ? { loop: object.boolean('loop') } : {}),
    ...(socket === '' ? {} : { socket }),
    ...(object.has('port') ? { port: object.natural('port', 0, { max: 65_535 }) } : {}),
  };
}

function positive<Key extends string>(object: JsonObject, key: Key): Partial<Record<Key, number>> {
  const value = object.positive(key);
  return (value === null ? {} : { [key]: value }) as Partial<Record<Key, number>>;
}

/** A path or ''; a relative one would be the daemon's and not the caller's. */
function path(key: string, value: string): string {
  if (value === '' || isAbsolute(value)) return value;
  throw wrong(`"${key}": expected an absolute path`);
}

function wrong(what: string): ReplaybdError {
  return new ReplaybdError('ERR_ATTACH_PARAMETER', `attach: ${what}.`, { errno: 'EINVAL' });
}
