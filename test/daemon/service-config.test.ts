import assert from 'node:assert/strict';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import fc from 'fast-check';
import { ReplaybdError } from '../../src/base/errors.ts';
import { loadServiceConfig, parseServiceConfig } from '../../src/daemon/service-config.ts';

// Goal: an overlaybd.json means here what it means to overlaybd, old keys included; a mistake is
// named by file and JSON path, an unknown key is told and does no harm.
// Method: whole files in the shapes users have, single mistakes, and arbitrary JSON.

const parse = (value: unknown) => parseServiceConfig(JSON.stringify(value), 'overlaybd.json');

test('an empty object has every default', () => {
  const config = parse({});
  assert.deepEqual(config, {
    logConfig: { logLevel: 1, logPath: '/var/log/overlaybd.log', logSizeMB: 10, logRotateNum: 3 },
    cacheConfig: {
      cacheType: 'file',
      cacheDir: '/opt/overlaybd/registry_cache',
      cacheSizeGB: 4,
      refillSize: 262_144,
      blockSize: 65_536,
    },
    gzipCacheConfig: {
      enable: false,
      cacheDir: '/opt/overlaybd/gzip_cache',
      cacheSizeGB: 4,
      refillSize: 1_048_576,
    },
    credentialConfig: {
      mode: 'file',
      path: '/opt/overlaybd/cred.json',
      timeout: 1,
      client_cert_path: '',
      client_key_path: '',
      server_ca_path: '',
    },
    download: {
      enable: false,
      delay: 300,
      delayExtra: 30,
      maxMBps: 100,
      tryCnt: 5,
      blockSize: 262_144,
    },
    p2pConfig: { enable: false, address: 'http://localhost:9731/accelerator' },
    exporterConfig: {
      enable: false,
      uriPrefix: '/metrics',
      port: 9863,
      updateInterval: 60_000_000,
    },
    prefetchConfig: { concurrency: 16 },
    certConfig: { certFile: '', keyFile: '' },
    serviceConfig: { enable: false, address: 'http://127.0.0.1:9862' },
    ioEngine: 0,
    enableAudit: true,
    auditPath: '/var/log/overlaybd-audit.log',
    enableThread: false,
    registryFsVersion: 'v2',
    userAgent: '',
    replaybd: {
      cacheDir: null,
      quotaGB: null,
      traceDir: null,
      readDeadlineMs: null,
      controlSocket: null,
    },
    ignored: [],
  });
});

test('what is given replaces the defaults, ours included', () => {
  const config = parse({
    logConfig: { logLevel: 2, logPath: '/tmp/o.log' },
    logPath: '/not/this.log',
    cacheConfig: { cacheType: 'download', cacheDir: '/c', cacheSizeGB: 9, refillSize: 65_536 },
    registryCacheDir: '/not/this',
    credentialConfig: { mode: 'http', path: 'http://127.0.0.1/auth', timeout: 3 },
    credentialFilePath: '/not/this.json',
    download: { enable: true, delay: 600 },
    prefetchConfig: { concurrency: 0 },
    enableAudit: false,
    replaybd: { cacheDir: '/fast', quotaGB: 2.5, readDeadlineMs: 30_000, traceDir: '/t' },
  });
  assert.deepEqual(config.logConfig, {
    logLevel: 2,
    logPath: '/tmp/o.log',
    logSizeMB: 10,
    logRotateNum: 3,
  });
  assert.equal(config.cacheConfig.cacheDir, '/c');
  assert.equal(config.cacheConfig.cacheSizeGB, 9);
  assert.equal(config.credentialConfig.path, 'http://127.0.0.1/auth');
  assert.deepEqual([config.download.enable, config.download.delay], [true, 600]);
  assert.equal(config.download.tryCnt, 5);
  assert.equal(config.prefetchConfig.concurrency, 0);
  assert.equal(config.enableAudit, false);
  assert.equal(config.replaybd.quotaGB, 2.5);
  assert.equal(config.replaybd.controlSocket, null);
  assert.deepEqual(config.ignored, []);
});

test('old files mean what they always meant', () => {
  const config = parse({
    logLevel: 3,
    logPath: '/old.log',
    cacheType: 'ocf',
    registryCacheDir: '/old/cache',
    registryCacheSizeGB: 7,
    credentialFilePath: '/old/cred.json',
    // Without a cacheType the section gives neither folder nor size.
    cacheConfig: { cacheDir: '/not/this', refillSize: 131_072 },
  });
  assert.deepEqual([config.logConfig.logLevel, config.logConfig.logPath], [3, '/old.log']);
  assert.deepEqual(config.cacheConfig, {
    cacheType: 'ocf',
    cacheDir: '/old/cache',
    cacheSizeGB: 7,
    refillSize: 131_072,
    blockSize: 65_536,
  });
  assert.equal(config.credentialConfig.mode, 'file');
  assert.equal(config.credentialConfig.path, '/old/cred.json');
});

test('unknown keys are told by path', () => {
  const config = parse({
    workpoolSize: 8,
    download: { enable: true, delays: 1 },
    replaybd: { quota: 1 },
    p2pConfig: null,
  });
  assert.deepEqual(config.ignored, ['workpoolSize', 'download.delays', 'replaybd.quota']);
  const hostile = parseServiceConfig('{"__proto__": {"ioEngine": 2}, "toString": 1}', 'file');
  assert.deepEqual(hostile.ignored, ['__proto__', 'toString']);
  assert.equal(hostile.ioEngine, 0);
});

test('the result cannot be changed', () => {
  const config = parse({});
  assert.ok(Object.isFrozen(config) && Object.isFrozen(config.cacheConfig));
  assert.ok(Object.isFrozen(config.ignored));
});

test('mistakes are named by file and JSON path', () => {
  const mistakes: [unknown, RegExp][] = [
    [[], /^overlaybd.json: \$: expected an object, found an array/],
    [{ download: [] }, /download: expected an object, found an array/],
    [{ download: { enable: 'true' } }, /download.enable: expected a boolean, found the string/],
    [{ cacheConfig: { cacheSizeGB: '4' } }, /cacheConfig.cacheSizeGB: expected an integer/],
    [{ cacheConfig: { cacheSizeGB: 1.5 } }, /cacheConfig.cacheSizeGB: expected an integer/],
    [{ cacheConfig: { cacheSizeGB: -1 } }, /found the number -1/],
    [{ cacheConfig: { cacheType: 'fast' } }, /expected one of file, ocf, download, found .*fast/],
    [{ cacheConfig: { refillSize: 5000 } }, /refillSize: expected a power of two/],
    [{ cacheConfig: { refillSize: 2048 } }, /refillSize: expected a power of two/],
    [{ ioEngine: 3 }, /ioEngine: expected an integer from 0 to 2/],
    [{ exporterConfig: { port: 70_000 } }, /exporterConfig.port/],
    [{ credentialConfig: { mode: 'ftp' } }, /credentialConfig.mode/],
    [{ replaybd: { quotaGB: 0 } }, /replaybd.quotaGB: expected a positive number/],
    [{ replaybd: { readDeadlineMs: null } }, /replaybd.readDeadlineMs: .*found null/],
  ];
  for (const [value, expected] of mistakes) {
    assert.throws(
      () => parse(value),
      (error: unknown) => {
        assert.ok(error instanceof ReplaybdError);
        assert.equal(error.code, 'ERR_CONFIG');
        assert.match(error.message, expected);
        return true;
      },
    );
  }
  assert.throws(() => parseServiceConfig('{', 'file'), {
    code: 'ERR_CONFIG',
    message: /^file: \$/,
  });
});

test('any JSON is a configuration or an error of ours', () => {
  const keys = [
    'download',
    'cacheConfig',
    'enable',
    'cacheType',
    'ioEngine',
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
  await writeFile(path, '{"ioEngine": 1}');
  assert.equal((await loadServiceConfig(path)).ioEngine, 1);
  await assert.rejects(loadServiceConfig(`${path}.none`), {
    code: 'ERR_CONFIG',
    message: /ENOENT/,
  });
});
