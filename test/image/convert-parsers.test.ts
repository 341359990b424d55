import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync, symlinkSync, linkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import fc from 'fast-check';
import { archiveFiles } from '../../src/image/convert/archive-index.ts';
import { chainIds, chainUuid } from '../../src/image/convert/chain-id.ts';
import { parseArchiveManifest } from '../../src/image/convert/docker-archive.ts';
import { parseSourceConfig, withDiffIds } from '../../src/image/convert/image-config.ts';
import { readPart } from '../../src/image/convert/layout-files.ts';
import { layerCompression } from '../../src/image/convert/media-types.ts';
import { parseImageName } from '../../src/image/convert/names.ts';
import { selectEntries } from '../../src/image/convert/platforms.ts';
import { ReplaybdError } from '../../src/base/errors.ts';
import { digestOf } from '../../src/registry/digest.ts';
import { mediaTypes, parseManifest } from '../../src/registry/manifest.ts';
import { noise } from './ext4-tree.ts';

// Goal: what others wrote - archives, configurations, indexes, media types - is read as it is meant,
// and nothing of it makes the converter do anything but refuse.
// Method: archives by GNU tar in its three formats; properties over damaged and made-up bytes.

const folder = mkdtempSync(join(tmpdir(), 'replaybd-parsers-'));
after(() => rmSync(folder, { recursive: true }));

for (const format of ['gnu', 'pax', 'ustar']) {
  test(`members of a ${format} archive are found, long names and links included`, async () => {
    const content = join(folder, format);
    const long = 'd'.repeat(90);
    mkdirSync(join(content, long, long), { recursive: true });
    writeFileSync(join(content, 'manifest.json'), '[]');
    writeFileSync(join(content, long, long, 'layer.tar'), `layer of ${format}`);
    symlinkSync('../to', join(content, long, 'symbolic'));
    symlinkSync('./x/../manifest.json', join(content, 'to'));
    linkSync(join(content, 'manifest.json'), join(content, 'second-name'));
    const archive = join(folder, `${format}.tar`);
    execFileSync('tar', [`--format=${format}`, '--sort=name', '-C', content, '-cf', archive, '.']);
    const files = await archiveFiles(archive);
    for (const [name, expected] of [
      ['manifest.json', '[]'],
      ['./second-name', '[]'],
      [`${long}/${long}/layer.tar`, `layer of ${format}`],
      [`${long}/symbolic`, '[]'],
    ]) {
      const part = await files.locate(name);
      assert.equal(part === null ? null : (await readPart(part)).toString(), expected, name);
    }
    assert.equal(await files.locate('absent'), null);
  });
}

test('links that never end, compressed archives and cut ones are refused', async () => {
  const content = join(folder, 'loop');
  mkdirSync(content);
  symlinkSync('b', join(content, 'a'));
  symlinkSync('a', join(content, 'b'));
  writeFileSync(join(content, 'file'), noise('file', 5000));
  const archive = join(folder, 'loop.tar');
  execFileSync('tar', ['-C', content, '-cf', archive, 'a', 'b', 'file']);
  const files = await archiveFiles(archive);
  await assert.rejects(files.locate('a'), { code: 'ERR_CONVERT_ARCHIVE' });
  execFileSync('gzip', ['-k', archive]);
  await assert.rejects(archiveFiles(`${archive}.gz`), /decompressed first/);
  execFileSync('truncate', ['-s', '3000', archive]);
  await assert.rejects(archiveFiles(archive), { code: 'ERR_CONVERT_ARCHIVE' });
});

test('a damaged archive gives members within the file, or an error of its own', async () => {
  const content = join(folder, 'fuzz');
  mkdirSync(content);
  for (const name of ['one', 'two']) writeFileSync(join(content, name), name.repeat(300));
  const whole = execFileSync('tar', ['--format=pax', '-C', content, '-c', '.']);
  const path = join(folder, 'fuzzed.tar');
  const edits = fc.array(fc.tuple(fc.nat(whole.length - 1), fc.nat(255)), { maxLength: 12 });
  await fc.assert(
    fc.asyncProperty(edits, fc.nat(whole.length), fc.boolean(), async (list, cut, repairs) => {
      const bytes = Buffer.from(whole.subarray(0, whole.length - (cut % 2048)));
      for (const [at, value] of list) if (at < bytes.length) bytes[at] = value;
      if (repairs) repairChecksums(bytes);
      writeFileSync(path, bytes);
      await onlyOwnErrors(async () => {
        const files = await archiveFiles(path);
        for (const name of ['one', 'two', '', '/', '../x']) {
          const part = await files.locate(name);
          if (part !== null) assert.ok(part.offset + part.sizeBytes <= bytes.length);
        }
      });
    }),
    { numRuns: 300 },
  );
});

test('an archive with pax headers that are none is refused', async () => {
  const path = join(folder, 'pax-damage.tar');
  for (const record of ['x'.repeat(40), '0 path=b\n', '9999 path=b\n', ' path=b\n']) {
    const content = Buffer.alloc(512);
    content.write(record);
    const bytes = Buffer.concat([
      headerOf('pax', 'x', record.length),
      content,
      headerOf('a', '0', 0),
    ]);
    repairChecksums(bytes);
    writeFileSync(path, bytes);
    await assert.rejects(archiveFiles(path), { code: 'ERR_CONVERT_ARCHIVE' }, record);
  }
});

test("an archive's manifest and an image's configuration are checked, whatever they hold", () => {
  const anything = fc.oneof(fc.jsonValue(), archiveManifest());
  fc.assert(
    fc.property(anything, (value) => {
      onlyOwnErrorsNow(() => {
        for (const image of parseArchiveManifest('x', Buffer.from(JSON.stringify(value)))) {
          assert.ok(image.layers.every((layer) => typeof layer === 'string'));
        }
      });
      onlyOwnErrorsNow(() => {
        const bytes = Buffer.from(JSON.stringify({ rootfs: value }));
        assert.equal(parseSourceConfig('x', bytes, 2).diffIds.length, 2);
      });
    }),
  );
});

test('a configuration keeps all but its diff ids', () => {
  const own = [digestOf(Buffer.from('a')), digestOf(Buffer.from('b'))];
  const others = [digestOf(Buffer.from('c')), digestOf(Buffer.from('d'))];
  fc.assert(
    fc.property(fc.dictionary(fc.string(), fc.jsonValue()), (members) => {
      const rest = JSON.parse(JSON.stringify(members)) as Record<string, unknown>;
      const text = JSON.stringify({ ...rest, rootfs: { type: 'layers', diff_ids: own, more: 1 } });
      const config = parseSourceConfig('x', Buffer.from(text), 2);
      const changed = withDiffIds(config, others).toString();
      assert.equal(changed, text.replace(JSON.stringify(own), JSON.stringify(others)));
    }),
  );
});

test('any JSON of an index is refused or gives linux images only', () => {
  const entry = fc.record({
    mediaType: fc.constantFrom(mediaTypes.ociManifest, 'text/plain'),
    digest: fc.constant(digestOf(Buffer.from('x'))),
    size: fc.nat(),
    platform: fc.option(
      fc.record({
        os: fc.constantFrom('linux', 'windows', 'unknown'),
        architecture: fc.constantFrom('amd64', 'arm64', 'unknown'),
      }),
      { nil: undefined },
    ),
    annotations: fc.option(fc.constant({ 'vnd.docker.reference.type': 'attestation-manifest' }), {
      nil: undefined,
    }),
  });
  fc.assert(
    fc.property(fc.array(fc.oneof(entry, fc.jsonValue())), (manifests) => {
      onlyOwnErrorsNow(() => {
        const bytes = Buffer.from(JSON.stringify({ schemaVersion: 2, manifests }));
        const index = parseManifest('x', bytes);
        assert.ok('manifests' in index);
        const { images, skipped } = selectEntries('x', index, 'all');
        assert.equal(images.length + skipped.length, manifests.length);
        for (const { platform, annotations } of images) {
          assert.ok(platform === undefined || platform.os === 'linux');
          assert.equal(annotations?.['vnd.docker.reference.type'], undefined);
        }
      });
    }),
  );
});

test('media types are taken by what they say, and others refused with a reason', () => {
  assert.equal(layerCompression('x', 'application/vnd.oci.image.layer.v1.tar+zstd'), 'zstd');
  assert.equal(layerCompression('x', mediaTypes.dockerLayer), 'none');
  assert.equal(layerCompression('x', `${mediaTypes.dockerLayer}.gzip`), 'gzip');
  const refused: [string, RegExp][] = [
    ['application/vnd.docker.image.rootfs.foreign.diff.tar.gzip', /may not be passed on/],
    ['application/vnd.oci.image.layer.nondistributable.v1.tar+gzip', /may not be passed on/],
    ['application/vnd.oci.image.layer.v1.tar+gzip+encrypted', /Decrypt/],
    ['application/vnd.in-toto+json', /no file system layer/],
    ['', /no file system layer/],
  ];
  for (const [mediaType, reason] of refused) {
    assert.throws(() => layerCompression('x', mediaType), reason);
  }
});

test('chain ids and the UUIDs that follow are as specified', () => {
  const [a, b] = [digestOf(Buffer.from('a')), digestOf(Buffer.from('b'))];
  assert.deepEqual(chainIds([a, b]), [a, digestOf(Buffer.from(`${a} ${b}`))]);
  assert.equal(chainUuid(a), 'CA978112-CA1B-BDCA-FAC2-31B39A23DC4D');
});

test('names of images', () => {
  assert.deepEqual(parseImageName('oci:/a/b:v1'), { kind: 'layout', folder: '/a/b', tag: 'v1' });
  assert.deepEqual(parseImageName('oci:x'), { kind: 'layout', folder: 'x', tag: null });
  const archive = { kind: 'archive', path: 'x.tar', reference: 'host:1/a:b' };
  assert.deepEqual(parseImageName('docker-archive:x.tar:host:1/a:b'), archive);
  assert.deepEqual(parseImageName('oci/x:1'), { kind: 'registry', reference: 'oci/x:1' });
  assert.throws(() => parseImageName('oci:'), { code: 'ERR_CONVERT_NAME' });
});

async function onlyOwnErrors(work: () => Promise<void>): Promise<void> {
  await work().catch(expectOwnError);
}

function onlyOwnErrorsNow(work: () => void): void {
  try {
    work();
  } catch (error) {
    expectOwnError(error);
  }
}

function expectOwnError(error: unknown): void {
  if (!(error instanceof ReplaybdError)) throw error;
}

function headerOf(name: string, type: string, sizeBytes: number): Buffer {
  const header = Buffer.alloc(512);
  header.write(name);
  header.write(sizeBytes.toString(8).padStart(11, '0'), 124);
  header.write(type, 156);
  header.write('ustar\x0000', 257);
  return header;
}

/** Lets damaged headers through to what comes after the checksum. */
function repairChecksums(bytes: Buffer): void {
  for (let at = 0; at + 512 <= bytes.length; at += 512) {
    if (bytes.toString('latin1', at + 257, at + 262) !== 'ustar') continue;
    bytes.fill(0x20, at + 148, at + 156);
    const sum = bytes.subarray(at, at + 512).reduce((total, byte) => total + byte, 0);
    bytes.write(`${sum.toString(8).padStart(6, '0')}\0 `, at + 148, 'latin1');
  }
}

function archiveManifest() {
  return fc.array(
    fc.record(
      {
        Config: fc.oneof(fc.string(), fc.nat()),
        RepoTags: fc.oneof(fc.array(fc.string()), fc.constant(null)),
        Layers: fc.oneof(fc.array(fc.oneof(fc.string(), fc.nat())), fc.constant(null)),
      },
      { requiredKeys: [] },
    ),
  );
}
