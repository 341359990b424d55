import assert from 'node:assert/strict';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import fc from 'fast-check';
import { ReplaybdError } from '../../src/base/errors.ts';
import { SERVICE_KEYS, type ServiceKey } from '../../src/daemon/service-config-keys.ts';
import { loadServiceConfig, parseServiceConfig } from '../../src/daemon/service-config.ts';

// Goal: an overlaybd.json means here what it means to overlaybd, old keys included; a mistake is
// named by file and JSON path, a key without an effect here is told and does no harm.
// Method: whole files in the shapes users have, single mistakes, and arbitrary JSON.

const parse = (value: unknown) => parseServiceConfig(JSON.stringify(value), 'overlaybd.json');

test('an empty object has every default', () => {
  const config = parse({});
  assert.deepEqual(config, {
    cacheSizeGB: 4,
    credentialConfig: {
      mode: 'file',
      path: '/opt/overlaybd/cred.json',
      timeout: 1,
      client_cert_path: '',
      client_key_path: '',
      server_ca_path: '',
    },
    p2pConfig: { enable: false, address: 'http://localhost:9731/accelerator' },
    certConfig: { certFile: '', keyFile: '' },
    userAgent: '',
    logConfig: { level: null, path: null },
    auditPath: '/var/log/overlaybd-audit.log',
    exporterConfig: { enable: false, address: '127.0.0.1', port: 9863, uriPrefix: '/metrics' },
    serviceConfig: { enable: false, address: 'http://127.0.0.1:9862' },
    replaybd: {
      cacheDir: null,
      quotaGB: null,
      traceDir: null,
      readDeadlineMs: null,
      demandConcurrency: null,
      prefetchConcurrency: null,
      mode: null,
      budgetMB: null,
      traceFrom: null,
      renewTraces: null,
      coverageMin: null,
      traceMaxAgeDays: null,
      otlpEndpoint: null,
      packed: null,
    },
    ignored: [],
  });
});

test('the file that overlaybd is installed with has its meaning, and no unknown key', () => {
  const config = parse({
    logConfig: { logLevel: 1, logPath: '/var/log/overlaybd.log' },
    cacheConfig: { cacheType: 'file', cacheDir: '/opt/overlaybd/registry_cache', cacheSizeGB: 4 },
    gzipCacheConfig: { enable: true, cacheDir: '/opt/overlaybd/gzip_cache', cacheSizeGB: 4 },
    credentialConfig: { mode: 'file', path: '/opt/overlaybd/cred.json' },
    ioEngine: 0,
    download: { enable: true, delay: 600, delayExtra: 30, maxMBps: 100 },
    p2pConfig: { enable: false, address: 'localhost:19145/dadip2p' },
    exporterConfig: {
      enable: false,
      uriPrefix: '/metrics',
      port: 9863,
      updateInterval: 60_000_000,
    },
    enableAudit: true,
    auditPath: '/var/log/overlaybd-audit.log',
    registryFsVersion: 'v2',
  });
  assert.deepEqual(config.logConfig, { level: 'info', path: '/var/log/overlaybd.log' });
  assert.equal(config.auditPath, '/var/log/overlaybd-audit.log');
  assert.equal(config.cacheSizeGB, 4);
  const unknown = config.ignored.filter(({ reason }) => reason.startsWith('no key'));
  assert.deepEqual(unknown, []);
});

test('what is given replaces the defaults, ours included', () => {
  const config = parse({
    cacheConfig: { cacheType: 'download', cacheSizeGB: 9 },
    registryCacheSizeGB: 7,
    credentialConfig: { mode: 'http', path: 'http://127.0.0.1/auth', timeout: 3 },
    credentialFilePath: '/not/this.json',
    p2pConfig: { enable: true, address: 'http://peer' },
    certConfig: { certFile: '/cert.pem', keyFile: '/key.pem' },
    userAgent: 'agent',
    logConfig: { logLevel: 3 },
    logPath: '/old.log',
    logLevel: 0,
    auditPath: '/audit.log',
    exporterConfig: { enable: true, uriPrefix: '/m', port: 80 },
    serviceConfig: { enable: true },
    replaybd: {
      cacheDir: '/fast',
      quotaGB: 2.5,
      readDeadlineMs: 30_000,
      traceDir: '/t',
      demandConcurrency: 4,
      prefetchConcurrency: 1,
      mode: 'replay',
      budgetMB: 0.5,
      traceFrom: 'registry',
      renewTraces: false,
      coverageMin: 0,
      traceMaxAgeDays: 0.5,
      packed: 'off',
      exporterAddress: '::1',
      otlpEndpoint: 'http://127.0.0.1:4318/v1/traces',
    },
  });
  assert.equal(config.cacheSizeGB, 9);
  assert.equal(config.credentialConfig.path, 'http://127.0.0.1/auth');
  assert.equal(config.credentialConfig.timeout, 3);
  assert.deepEqual(config.p2pConfig, { enable: true, address: 'http://peer' });
  assert.deepEqual(config.certConfig, { certFile: '/cert.pem', keyFile: '/key.pem' });
  assert.equal(config.userAgent, 'agent');
  assert.deepEqual(config.replaybd, {
    cacheDir: '/fast',
    quotaGB: 2.5,
    readDeadlineMs: 30_000,
    traceDir: '/t',
    demandConcurrency: 4,
    prefetchConcurrency: 1,
    mode: 'replay',
    budgetMB: 0.5,
    traceFrom: 'registry',
    renewTraces: false,
    coverageMin: 0,
    traceMaxAgeDays: 0.5,
    otlpEndpoint: 'http://127.0.0.1:4318/v1/traces',
    packed: 'off',
  });
  assert.deepEqual(config.logConfig, { level: 'error', path: '/old.log' });
  assert.equal(config.auditPath, '/audit.log');
  assert.deepEqual(config.exporterConfig, {
    enable: true,
    address: '::1',
    port: 80,
    uriPrefix: '/m',
  });
  assert.equal(config.serviceConfig.enable, true);
  assert.deepEqual(config.ignored, []);
});

test('old files mean what they always meant', () => {
  const config = parse({
    registryCacheSizeGB: 7,
    credentialFilePath: '/old/cred.json',
    // Without a cacheType the section gives no size.
    cacheConfig: { cacheSizeGB: 9 },
  });
  assert.equal(config.cacheSizeGB, 7);
  assert.equal(config.credentialConfig.mode, 'file');
  assert.equal(config.credentialConfig.path, '/old/cred.json');
});

test('log levels are overlaybd numbers, or our words', () => {
  const levels = [0, 1, 2, 3, 4, 5, 6].map((logLevel) => parse({ logLevel }).logConfig.level);
  assert.deepEqual(levels, ['debug', 'info', 'warn', 'error', 'fatal', 'silent', 'silent']);
  const ours = parse({ logLevel: 0, replaybd: { logLevel: 'warn', logPath: '/ours' } });
  assert.deepEqual(ours.logConfig, { level: 'warn', path: '/ours' });
  assert.equal(parse({ enableAudit: false, auditPath: '/a' }).auditPath, null);
});

test('keys without an effect are told with the reason', () => {
  const config = parse({
    workpoolSize: 8,
    cacheConfig: { cacheType: 'file', cacheSizeGB: 4, cacheDir: '/c', refillSize: 262_144 },
    gzipCacheConfig: { enable: true },
    download: { enable: true, delays: 1 },
    ioEngin: 1,
    p2pConfig: null,
  });
  const reasons = new Map(config.ignored.map(({ key, reason }) => [key, reason]));
  assert.deepEqual(
    [...reasons.keys()].toSorted(),
    [
      ...['workpoolSize', 'cacheConfig.cacheDir', 'cacheConfig.refillSize', 'ioEngin'],
      ...['gzipCacheConfig.enable', 'download.enable', 'download.delays'],
    ].toSorted(),
  );
  assert.equal(reasons.get('gzipCacheConfig.enable'), 'TurboOCI layers are not served');
  assert.equal(reasons.get('ioEngin'), 'no key of overlaybd or replaybd; ioEngine is one');
  const hostile = parseServiceConfig('{"__proto__": {"userAgent": "x"}, "toString": 1}', 'file');
  assert.deepEqual(
    hostile.ignored.map(({ key }) => key),
    ['__proto__', 'toString'],
  );
  assert.equal(hostile.userAgent, '');
});

test('an unknown key of our own is an error that says what was meant', () => {
  assert.throws(() => parse({ replaybd: { quota: 1 } }), {
    code: 'ERR_CONFIG_KEY',
    message: /^overlaybd.json: \$\.replaybd\.quota: .*; replaybd\.quotaGB is one\.$/,
  });
});

/** A value of the key's type that is no default. */
function sampleOf({ path, type }: ServiceKey): unknown {
  const words: Record<string, string> = {
    'credentialConfig.mode': 'uds',
    'cacheConfig.cacheType': 'file',
    'replaybd.mode': 'record',
    'replaybd.traceFrom': 'store',
    'replaybd.packed': 'on',
    'replaybd.logLevel': 'debug',
  };
  if (type === 'word') return words[path];
  if (path === 'enableAudit') return false;
  const httpUrl = 'https://host/path';
  const urlPath = '/path';
  const numbers = { natural: 2, positive: 2, share: 0.5 };
  return { string: '/some/text', boolean: true, urlPath, httpUrl, ...numbers }[type];
}

/** The file with this one key, and what it needs to count. */
function fileWith(path: string, value: unknown): Record<string, unknown> {
  const [section = '', key] = path.split('.');
  if (key === undefined) return { [section]: value };
  const needed: Record<string, object> = {
    credentialConfig: { mode: 'http' },
    cacheConfig: { cacheType: 'ocf' },
  };
  return { [section]: { ...needed[section], [key]: value } };
}

test('each key does what the table says: it has an effect, or is told with its reason', () => {
  for (const key of SERVICE_KEYS) {
    const { ignored, ...config } = parse(fileWith(key.path, sampleOf(key)));
    const { ignored: none, ...without } = parse(fileWith(key.path, undefined));
    assert.deepEqual(none, [], 'an undefined member is not in the JSON');
    if (key.effect === 'ignored') {
      assert.deepEqual(ignored, [{ key: key.path, reason: key.note }]);
      assert.deepEqual(config, without, `${key.path} has no effect`);
    } else {
      assert.deepEqual(ignored, [], key.path);
      // Which kind of cache it is changes nothing but which of two sizes counts.
      if (key.path !== 'cacheConfig.cacheType') assert.notDeepEqual(config, without, key.path);
    }
    assert.throws(() => parse(fileWith(key.path, [])), {
      code: 'ERR_CONFIG_TYPE',
      message: new RegExp(`\\$\\.${key.path}: expected .*, found a list`),
    });
  }
});

test('the documentation says of each key what the table says', async () => {
  const path = fileURLToPath(new URL('../../docs/configuration.md', import.meta.url));
  const rows = (await readFile(path, 'utf8')).split('\n').filter((line) => line.startsWith('| `'));
  const cells = rows.map((row) =>
    row
      .slice(1, -1)
      .split('|')
      .map((cell) => cell.trim()),
  );
  for (const { path: key, note } of SERVICE_KEYS) {
    const found = cells.filter(([name]) => name === `\`${key}\``);
    assert.deepEqual(found, [[`\`${key}\``, note]]);
  }
});

test('the result cannot be changed', () => {
  const config = parse({});
  assert.ok(Object.isFrozen(config) && Object.isFrozen(config.replaybd));
  assert.ok(Object.isFrozen(config.ignored));
});

test('mistakes are named by file and JSON path', () => {
  const mistakes: [unknown, RegExp][] = [
    [[], /^overlaybd.json: \$: expected an object, found a list/],
    [{ p2pConfig: [] }, /\$\.p2pConfig: expected an object, found a list/],
    [{ p2pConfig: { enable: 'true' } }, /p2pConfig.enable: expected true or false, found string/],
    [{ cacheConfig: { cacheSizeGB: '4' } }, /cacheConfig.cacheSizeGB: expected a whole number/],
    [{ cacheConfig: { cacheSizeGB: 1.5 } }, /cacheConfig.cacheSizeGB: expected a whole number/],
    [{ cacheConfig: { cacheSizeGB: -1 } }, /found -1/],
    [{ cacheConfig: { cacheType: 'fast' } }, /cacheType: expected one of file, ocf, download/],
    [{ credentialConfig: { mode: 'ftp' } }, /credentialConfig.mode: expected one of file, http/],
    [{ credentialConfig: { path: 7 } }, /credentialConfig.path: expected a string, found 7/],
    [{ ioEngine: 'psync' }, /ioEngine: expected a whole number of at least 0, found string/],
    [{ exporterConfig: { port: 65_536 } }, /port: expected a whole number from 0 to 65535/],
    [{ exporterConfig: { uriPrefix: 'm' } }, /uriPrefix: expected a path that begins with \//],
    [{ replaybd: { demandConcurrency: 0 } }, /expected a whole number from 1 to 32, found 0/],
    [{ replaybd: { quotaGB: 0 } }, /replaybd.quotaGB: expected a number above 0, found 0/],
    [{ replaybd: { readDeadlineMs: null } }, /replaybd.readDeadlineMs: .*found null/],
  ];
  for (const [value, expected] of mistakes) {
    assert.throws(
      () => parse(value),
      (error: unknown) => {
        assert.ok(error instanceof ReplaybdError);
        assert.equal(error.code, 'ERR_CONFIG_TYPE');
        assert.match(error.message, expected);
        return true;
      },
    );
  }
  assert.throws(() => parseServiceConfig('{', 'file'), {
    code: 'ERR_CONFIG_JSON',
    message: /^file: /,
  });
});

test('any JSON is a configuration or an error of ours', () => {
  const keys = [
    'p2pConfig',
    'cacheConfig',
    'enable',
    'cacheType',
    'userAgent',
    'replaybd',
    'quotaGB',
  ];
  const value = fc.letrec((tie) => ({
    node: fc.oneof(
      { depthSize: 'small' },
      fc.jsonValue({ maxDepth: 1 }),
      fc.dictionary(fc.constantFrom(...keys), tie('node'), { maxKeys: 5 }),
    ),
  })).node;
  fc.assert(
    fc.property(value, (document) => {
      try {
        parse(document);
      } catch (error) {
        assert.ok(error instanceof ReplaybdError);
      }
    }),
  );
});

test('files are loaded, and missing ones named', async (t) => {
  const folder = await mkdtemp(join(tmpdir(), 'replaybd-config-'));
  t.after(async () => await rm(folder, { recursive: true, force: true }));
  const path = join(folder, 'overlaybd.json');
  await writeFile(path, '{"userAgent": "x"}');
  assert.equal((await loadServiceConfig(path)).userAgent, 'x');
  await assert.rejects(loadServiceConfig(`${path}.none`), {
    code: 'ERR_CONFIG_READ',
    message: /ENOENT/,
  });
});
