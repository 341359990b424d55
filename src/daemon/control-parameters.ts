import { messageOf, ReplaybdError } from '../base/errors.ts';
import { JsonObject } from '../base/json-object.ts';
import type { UpperKind } from '../image/lsmt/upper-map.ts';
import type { WorkloadWords } from '../trace/workload.ts';
import {
  attachWorkload,
  readAttachParameters,
  readWorkload,
  type AttachDefaults,
  type AttachParameters,
} from './attach-parameters.ts';

// Parameters of control requests: a JSON object in the body. A key that a request does not know would
// go unheeded, so it is refused (ERR_CONTROL_BODY).

const REQUEST = 'control request';
const UPPER_KINDS: readonly UpperKind[] = ['append', 'sparse'];

/** Files of a device's new writable layer, and its kind; what is absent follows the old one. */
export interface SnapshotParameters {
  data?: string;
  index?: string;
  kind?: UpperKind;
}

export interface ForkParameters {
  /** Of the new device's configuration and writable layer. */
  folder: string;
  kind?: UpperKind;
}

export interface ResizeParameters {
  /** Of the disk. */
  sizeBytes: number;
}

/** How a recording that begins now is named, and when it ends. */
export interface RecordParameters extends WorkloadWords {
  /** A file, instead of one in the trace store. */
  trace?: string;
  /** In seconds. */
  timeLimit?: number;
  untilIdle?: number;
}

/** Nothing, or an empty object. */
export function parseNoParameters(body: string): void {
  parse(body, () => undefined);
}

/** `since` of a query, a whole number; 0 without it. Throws ERR_CONTROL_QUERY. */
export function parseSince(query: URLSearchParams): number {
  const text = query.get('since') ?? '0';
  const value = Number(text);
  const unknown = [...query.keys()].find((key) => key !== 'since');
  if (/^\d+$/.test(text) && Number.isSafeInteger(value) && unknown === undefined) return value;
  throw new ReplaybdError(
    'ERR_CONTROL_QUERY',
    `${REQUEST}: expected since=NUMBER and nothing else in the query, found ` +
      JSON.stringify((unknown ?? `since=${text}`).slice(0, 80)),
    { errno: 'EINVAL' },
  );
}

export function parseSnapshotParameters(body: string): SnapshotParameters {
  return parse(body, (object) => {
    const [data, index, kind] = [
      object.string('data'),
      object.string('index'),
      object.word('kind', UPPER_KINDS),
    ];
    if ((data === '') !== (index === '')) throw refusal('"data" and "index" go together');
    return {
      ...(data === '' ? {} : { data, index }),
      ...(kind === '' ? {} : { kind }),
    };
  });
}

export function parseForkParameters(body: string): ForkParameters {
  return parse(body, (object) => {
    const [folder, kind] = [object.string('folder'), object.word('kind', UPPER_KINDS)];
    if (!folder.startsWith('/')) throw refusal('"folder" is an absolute path');
    return { folder, ...(kind === '' ? {} : { kind }) };
  });
}

export function parseResizeParameters(body: string): ResizeParameters {
  return parse(body, (object) => {
    const sizeBytes = object.natural('sizeBytes', 0);
    if (sizeBytes === 0) throw refusal('"sizeBytes" is the new size of the disk');
    return { sizeBytes };
  });
}

export function parseRecordParameters(body: string): RecordParameters {
  return parse(body, (object) => {
    const trace = object.string('trace');
    if (trace !== '' && !trace.startsWith('/')) throw refusal('"trace" is an absolute path');
    const [timeLimit, untilIdle] = [object.positive('timeLimit'), object.positive('untilIdle')];
    return {
      ...attachWorkload(readWorkload(object)),
      ...(trace === '' ? {} : { trace }),
      ...(timeLimit === null ? {} : { timeLimit }),
      ...(untilIdle === null ? {} : { untilIdle }),
    };
  });
}

export function parseAttachParameters(body: string, defaults?: AttachDefaults): AttachParameters {
  return parse(body, (object) => readAttachParameters(object, defaults));
}

function parse<Parameters>(body: string, read: (object: JsonObject) => Parameters): Parameters {
  try {
    const object = JsonObject.parse(body.trim() === '' ? '{}' : body, REQUEST);
    const parameters = read(object);
    if (object.ignored.length === 0) return parameters;
    throw refusal(`it does not take ${object.ignored.join(', ')}`);
  } catch (error) {
    throw new ReplaybdError('ERR_CONTROL_BODY', messageOf(error), {
      errno: 'EINVAL',
      cause: error,
    });
  }
}

function refusal(what: string): ReplaybdError {
  return new ReplaybdError('ERR_CONTROL_BODY', `${REQUEST}: ${what}.`, { errno: 'EINVAL' });
}
