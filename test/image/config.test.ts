// Goal: configuration files mean what they mean to overlaybd, and a mistake in one is named with
// its place. Method: files as the snapshotter writes them, then one mistake at a time; lowers are
// looked for in a real folder.
import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import fc from 'fast-check';
import { ReplaybdError } from '../../src/base/errors.ts';
import { parseImageConfig, readImageConfig, resolveLower } from '../../src/image/config.ts';
import { fixtures } from './lsmt-support.ts';

const DIGEST = `sha256:${'a'.repeat(64)}`;

let folder = '';
before(() => {
  folder = mkdtempSync(join(tmpdir(), 'replaybd-config-'));
});
after(() => rmSync(folder, { recursive: true, force: true }));

test('a configuration as the snapshotter writes it', () => {
  const config = parse({
    repoBlobUrl: 'https://registry.example/v2/app/blobs',
    lowers: [
      { file: '/opt/overlaybd/baselayers/ext4_64' },
      { digest: DIGEST, size: 12_345, dir: '/snapshots/1/fs' },
      { file: '/f', targetDigest: DIGEST, gzipIndex: '/g', dir: '/d', targetFile: '/t' },
    ],
    upper: { index: '/i', data: '/d', vsize: 64, target: '/t', gzipIndex: '/g' },
    resultFile: '/r',
    download: { enable: true, maxMBps: 7 },
    accelerationLayer: true,
    recordTracePath: '/trace',
    aKeyOfTheFuture: [1, 2, 3],
  });
  const nothing = { file: '', dir: '', digest: '', size: 0 };
  const noTarget = { targetFile: '', targetDigest: '', gzipIndex: '' };
  assert.deepEqual(config, {
    name: 'config.json',
    repoBlobUrl: 'https://registry.example/v2/app/blobs',
    lowers: [
      { ...nothing, ...noTarget, file: '/opt/overlaybd/baselayers/ext4_64' },
      { ...nothing, ...noTarget, digest: DIGEST, size: 12_345, dir: '/snapshots/1/fs' },
      {
        ...nothing,
        file: '/f',
        dir: '/d',
        targetFile: '/t',
        targetDigest: DIGEST,
        gzipIndex: '/g',
      },
    ],
    upper: { index: '/i', data: '/d', target: '/t', gzipIndex: '/g' },
    resultFile: '/r',
    download: {
      enable: true,
      delay: 300,
      delayExtra: 30,
      maxMBps: 7,
      tryCnt: 5,
      blockSize: 262_144,
    },
    accelerationLayer: true,
    recordTracePath: '/trace',
  });
});

test('the least there can be', () => {
  const config = parse({ lowers: [{ file: '/x' }] });
  assert.equal(config.repoBlobUrl, '');
  assert.equal(config.accelerationLayer, false);
  assert.equal(config.download, null);
  assert.deepEqual(config.upper, { index: '', data: '', target: '', gzipIndex: '' });
});

test("the fixtures' configuration is read from its file", async () => {
  const config = await readImageConfig(join(fixtures, 'stack3/config.v1.json'));
  assert.equal(config.lowers.length, 3);
  assert.equal(config.lowers[2].file, 'FIXTURES/lsmt/stack3/layer2.lsmt');
});

const one = [{ file: '/x' }];
const MISTAKES: { value: unknown; code: string; place: RegExp }[] = [
  { value: [], code: 'ERR_CONFIG_TYPE', place: /: \$: expected an object, found a list/ },
  { value: { lowers: {} }, code: 'ERR_CONFIG_TYPE', place: /\$\.lowers: expected a list/ },
  { value: { lowers: [{}, 7] }, code: 'ERR_CONFIG_TYPE', place: /\$\.lowers\[1\]: .* found 7/ },
  {
    value: { lowers: [{ file: 5 }] },
    code: 'ERR_CONFIG_TYPE',
    place: /\$\.lowers\[0\]\.file: expected a string, found 5/,
  },
  { value: { lowers: [{ size: -1 }] }, code: 'ERR_CONFIG_TYPE', place: /\$\.lowers\[0\]\.size/ },
  { value: { lowers: [{ size: 1.5 }] }, code: 'ERR_CONFIG_TYPE', place: /\$\.lowers\[0\]\.size/ },
  { value: { lowers: [{ size: 2 ** 60 }] }, code: 'ERR_CONFIG_TYPE', place: /\.size/ },
  {
    value: { lowers: one, upper: { index: null } },
    code: 'ERR_CONFIG_TYPE',
    place: /\$\.upper\.index: expected a string, found null/,
  },
  { value: { lowers: one, upper: 'x' }, code: 'ERR_CONFIG_TYPE', place: /\$\.upper: / },
  {
    value: { lowers: one, accelerationLayer: 'yes' },
    code: 'ERR_CONFIG_TYPE',
    place: /\$\.accelerationLayer: expected true or false, found string/,
  },
  {
    value: { lowers: one, download: { delay: '3' } },
    code: 'ERR_CONFIG_TYPE',
    place: /\$\.download\.delay: /,
  },
  { value: {}, code: 'ERR_CONFIG_LOWERS', place: /expected 1 to 255 layers, found 0/ },
  {
    value: { lowers: Array.from({ length: 256 }, () => ({ file: '/x' })) },
    code: 'ERR_CONFIG_LOWERS',
    place: /found 256/,
  },
];

for (const { value, code, place } of MISTAKES) {
  test(`${JSON.stringify(value).slice(0, 60)} is refused with its place`, () => {
    assert.throws(
      () => parse(value),
      (error) => isNamed(error, code, place),
    );
  });
}

test('what is no JSON, too large, or absent is refused by name', async () => {
  const broken = () => parseImageConfig('{"lowers": [', 'config.json');
  assert.throws(broken, (error) => isNamed(error, 'ERR_CONFIG_JSON', /not valid JSON/));
  const large = join(folder, 'large.json');
  writeFileSync(large, Buffer.alloc(16 * 1024 * 1024 + 1, ' '));
  await assert.rejects(readImageConfig(large), { code: 'ERR_CONFIG_SIZE' });
  await assert.rejects(readImageConfig(join(folder, 'none.json')), { code: 'ERR_CONFIG_READ' });
});

test('any JSON at all is a configuration or an error of ours', () => {
  fc.assert(
    fc.property(
      fc.json(),
      fc.dictionary(fc.constantFrom('file', 'size'), fc.anything()),
      (a, b) => {
        const lower = JSON.stringify(b);
        for (const text of [a, `{"lowers": [${lower}]}`, `{"lowers": ${a}}`]) {
          try {
            assert.ok(parseImageConfig(text, 'config.json').lowers.length > 0);
          } catch (error) {
            assert.ok(error instanceof ReplaybdError, String(error));
          }
        }
      },
    ),
  );
});

test('a lower is the first file there is, else the blob in the registry', async () => {
  const dir = join(folder, 'layer');
  const file = join(folder, 'layer.obd');
  mkdirSync(dir);
  const repoBlobUrl = 'https://registry.example/v2/app/blobs/';
  const locate = () => {
    const config = parse({ repoBlobUrl, lowers: [{ file, dir, digest: DIGEST, size: 9 }] });
    return resolveLower(config, config.lowers[0]);
  };
  assert.deepEqual(await locate(), {
    kind: 'remote',
    url: `https://registry.example/v2/app/blobs/${DIGEST}`,
    digest: DIGEST,
    size: 9,
  });
  // From the last choice to the first, each hides the ones before.
  const choices = [join(dir, 'overlaybd.sealed'), join(dir, '.commit')];
  for (const path of [...choices, join(dir, 'overlaybd.commit'), file]) {
    writeFileSync(path, '');
    assert.deepEqual(await locate(), { kind: 'file', path });
  }
});

test('a lower that cannot be found says what is missing', async () => {
  const refused = async (lower: object, code: string, place: RegExp, repoBlobUrl = '') => {
    const config = parse({ repoBlobUrl, lowers: [{ file: '/ok' }, lower] });
    await assert.rejects(resolveLower(config, config.lowers[1]), (error) =>
      isNamed(error, code, place),
    );
  };
  const none = join(folder, 'none');
  await refused({}, 'ERR_CONFIG_LOWER', /\$\.lowers\[1\]: .*no file, dir or digest/);
  await refused({ file: none }, 'ERR_CONFIG_LOWER', /none, none of which exists/);
  await refused({ digest: 'sha256:ABC' }, 'ERR_CONFIG_DIGEST', /\$\.lowers\[1\]\.digest/);
  await refused({ digest: `${DIGEST}/../x` }, 'ERR_CONFIG_DIGEST', /64 lower-case/);
  await refused({ digest: DIGEST }, 'ERR_CONFIG_URL', /found an empty one/);
  await refused({ digest: DIGEST, targetDigest: DIGEST }, 'ERR_CONFIG_UNSUPPORTED', /TurboOCI/);
  await refused({ file: none, targetFile: '/t' }, 'ERR_CONFIG_UNSUPPORTED', /TurboOCI/);
  await refused({ digest: DIGEST }, 'ERR_CONFIG_URL', /^(?!.*hunter2)/, 'ftp://me:hunter2@host');
});

test('the largest image there can be is read', () => {
  const lowers = Array.from({ length: 255 }, () => ({ file: '/x' }));
  assert.equal(parse({ lowers }).lowers.length, 255);
});

function parse(value: unknown) {
  return parseImageConfig(JSON.stringify(value), 'config.json');
}

function isNamed(error: unknown, code: string, place: RegExp): boolean {
  assert.ok(error instanceof ReplaybdError);
  assert.equal(error.code, code);
  assert.match(error.message, /config\.json: /);
  assert.match(error.message, place);
  return true;
}
