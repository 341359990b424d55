import assert from 'node:assert/strict';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import fc from 'fast-check';
import { ReplaybdError } from '../../src/base/errors.ts';
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
    replaybd: { cacheDir: null, quotaGB: null, traceDir: null, readDeadlineMs: null },
    ignored: [],
  });
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
    replaybd: { cacheDir: '/fast', quotaGB: 2.5, readDeadlineMs: 30_000, traceDir: '/t' },
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
  });
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

test('keys without an effect are told by path', () => {
  const config = parse({
    workpoolSize: 8,
    logConfig: { logLevel: 0 },
    cacheConfig: { cacheType: 'file', cacheSizeGB: 4, cacheDir: '/c', refillSize: 262_144 },
    gzipCacheConfig: { enable: true },
    exporterConfig: { enable: true, port: 9863 },
    download: { enable: true, delays: 1 },
    prefetchConfig: { concurrency: 16 },
    ioEngine: 1,
    enableAudit: false,
    replaybd: { quota: 1, controlSocket: '/run/socket' },
    p2pConfig: null,
  });
  assert.deepEqual(
    config.ignored.toSorted(),
    [
      ...['workpoolSize', 'logConfig', 'cacheConfig.cacheDir', 'cacheConfig.refillSize'],
      ...['gzipCacheConfig', 'exporterConfig', 'download', 'prefetchConfig', 'ioEngine'],
      ...['enableAudit', 'replaybd.quota', 'replaybd.controlSocket'],
    ].toSorted(),
  );
  const hostile = parseServiceConfig('{"__proto__": {"userAgent": "x"}, "toString": 1}', 'file');
  assert.deepEqual(hostile.ignored, ['__proto__', 'toString']);
  assert.equal(hostile.userAgent, '');
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
