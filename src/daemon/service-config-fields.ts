import type { FieldSpec, ObjectSpec } from './config-reader.ts';
import type { ServiceConfig } from './service-config.ts';

/** Keys of the document itself; the first two are legacy. */
export interface TopLevel {
  registryCacheSizeGB: number;
  credentialFilePath: string;
  userAgent: string;
}

/** The document's objects. A cacheConfig, or a credentialConfig, counts where it has a type. */
export type Sections = Pick<
  ServiceConfig,
  'credentialConfig' | 'p2pConfig' | 'certConfig' | 'replaybd'
> & { cacheConfig: { cacheType: string; cacheSizeGB: number } };

const text = (fallback: string): FieldSpec<string> => ({ type: 'string', fallback });

function count(fallback: number): FieldSpec<number> {
  const holds = (value: number): boolean => value >= 0;
  return { type: 'integer', fallback, accepts: { what: 'an integer of at least 0', holds } };
}

function oneOf(fallback: string, values: readonly string[]): FieldSpec<string> {
  const what = `one of ${values.filter((value) => value !== '').join(', ')}`;
  return { type: 'string', fallback, accepts: { what, holds: (value) => values.includes(value) } };
}

function positive(type: 'integer' | 'number'): FieldSpec<number | null> {
  const holds = (value: number | null): boolean => value !== null && value > 0;
  return { type, fallback: null, accepts: { what: `a positive ${type}`, holds } };
}

const optionalText: FieldSpec<string | null> = { type: 'string', fallback: null };

export const topLevelSpec: ObjectSpec<TopLevel> = {
  registryCacheSizeGB: count(4),
  credentialFilePath: text('/opt/overlaybd/cred.json'),
  userAgent: text(''),
};

export const sectionSpecs: { [Key in keyof Sections]: ObjectSpec<Sections[Key]> } = {
  cacheConfig: {
    cacheType: oneOf('', ['', 'file', 'ocf', 'download']),
    cacheSizeGB: count(4),
  },
  credentialConfig: {
    mode: oneOf('', ['', 'file', 'http', 'https', 'uds']),
    path: text(''),
    timeout: count(1),
    client_cert_path: text(''),
    client_key_path: text(''),
    server_ca_path: text(''),
  },
  p2pConfig: {
    enable: { type: 'boolean', fallback: false },
    address: text('http://localhost:9731/accelerator'),
  },
  certConfig: { certFile: text(''), keyFile: text('') },
  replaybd: {
    cacheDir: optionalText,
    quotaGB: positive('number'),
    traceDir: optionalText,
    readDeadlineMs: positive('integer'),
  },
};
