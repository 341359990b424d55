import assert from 'node:assert/strict';
import { existsSync, openSync, closeSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { after, before, test } from 'node:test';
import { changedExtents } from '../../src/image/build/changed-extents.ts';
import { layerUuid, writeLayerFile } from '../../src/image/build/layer-file.ts';
import { startEmbeddedRegistry } from '../../src/registry/embedded/server.ts';
import { Attached } from '../support/attached.ts';
import { cli, serveRegistry } from '../support/cli.ts';
import { needs } from '../support/needs.ts';
import { output, run } from '../support/programs.ts';
import { Scratch, scratchOf } from '../support/scratch.ts';
import { makeTestImage, sha256OfFile, type TestImage } from '../support/test-image.ts';
import { unprivileged } from '../support/unprivileged.ts';

// Goal: an image attached over NBD is the same disk to every client, and takes no privileges.
// Method: nbdinfo, nbdcopy, qemu-img, qemu-io and fio against `attach --frontend nbd`, with the disk
// that `export` wrote as the reference, and everything once more as a user without rights.

const fixture = new Scratch();
let image: TestImage;

before(async () => {
  const url = await serveRegistry(fixture, fixture.path('registry'));
  image = await makeTestImage(fixture, url);
});
after(() => fixture.close());

function attachArgs(folder: string, target = image.reference): string[] {
  return [
    ...[target, '--frontend', 'nbd', '--mode', 'off'],
    ...['--cache', `${folder}/cache`, '--trace-dir', `${folder}/traces`],
  ];
}

/** With a socket where the test wants it, not where it is by default. */
function socketArgs(scratch: Scratch, target?: string): string[] {
  return [...attachArgs(scratch.folder, target), '--nbd-socket', scratch.path('nbd')];
}

test('nbdinfo sees a read-only disk with holes', { skip: needs('nbdinfo') }, async (t) => {
  const scratch = scratchOf(t);
  const { ready } = await Attached.start(scratch, socketArgs(scratch));
  assert.equal(ready.path, `nbd+unix:///?socket=${scratch.path('nbd')}`);
  const info = JSON.parse(await output('nbdinfo', '--json', ready.path)) as {
    exports: Record<string, unknown>[];
  };
  const [disk] = info.exports;
  assert.equal(disk['export-size'], image.virtualSizeBytes);
  assert.equal(disk.is_read_only, true);
  assert.equal(disk.can_multi_conn, true);
  const map = JSON.parse(await output('nbdinfo', '--json', '--map', ready.path)) as {
    offset: number;
    length: number;
    type: number;
  }[];
  const end = map.reduce((at, { offset, length }) => (offset === at ? at + length : NaN), 0);
  assert.equal(end, image.virtualSizeBytes, 'the extents touch and cover the disk');
  assert.ok(map.some(({ type }) => type === 0) && map.some(({ type }) => type !== 0));
});

test(
  'copies and comparisons by others agree',
  { skip: needs('nbdcopy', 'qemu-img') },
  async (t) => {
    const scratch = scratchOf(t);
    const attached = await Attached.start(scratch, socketArgs(scratch));
    const { path } = attached.ready;
    const copy = scratch.path('copy.raw');
    await output('nbdcopy', path, copy);
    assert.equal(statSync(copy).size, image.virtualSizeBytes);
    assert.equal(await sha256OfFile(copy), image.sha256);
    await output('qemu-img', 'compare', '-f', 'raw', '-F', 'raw', path, image.raw);
    const report = await attached.detach();
    assert.equal(report.quality.missErrors, 0);
    assert.ok(!existsSync(scratch.path('nbd')), 'the socket is gone');
  },
);

test('writes are refused', { skip: needs('qemu-io') }, async (t) => {
  const scratch = scratchOf(t);
  const { ready } = await Attached.start(scratch, socketArgs(scratch));
  const write = await run('qemu-io', '-f', 'raw', '-c', 'write 0 4096', ready.path);
  assert.notEqual(write.code, 0);
  assert.match(write.stderr + write.stdout, /read.only|not permitted|Permission denied/i);
  // As a client that opens it to read, and writes all the same.
  const forced = await run('qemu-io', '-r', '-f', 'raw', '-c', 'write 0 4096', ready.path);
  assert.notEqual(forced.code, 0);
  await output('qemu-io', '-r', '-f', 'raw', '-c', 'read 0 1M', ready.path);
});

test('fio verifies a disk that is one remote lower', { skip: needs('fio') }, async (t) => {
  const scratch = scratchOf(t);
  const sizeBytes = 8 * 2 ** 20;
  const raw = scratch.path('fio.raw');
  const layout = ['--size=8M', '--bs=32k', '--verify=crc32c', '--verify_state_save=0'];
  await output('fio', '--name=lay', `--filename=${raw}`, '--rw=write', '--do_verify=0', ...layout);
  const registry = await startEmbeddedRegistry({ root: scratch.path('registry') });
  scratch.atEnd(() => registry.close());
  const { path, sizeBytes: size } = await writeLayer(scratch, raw, sizeBytes);
  const digest = await registry.store.importBlob('e2e/fio', path);
  const config = scratch.path('config.v1.json');
  const repoBlobUrl = `${registry.url}/v2/e2e/fio/blobs`;
  writeFileSync(config, JSON.stringify({ repoBlobUrl, lowers: [{ digest, size, dir: '' }] }));

  const { ready } = await Attached.start(scratch, socketArgs(scratch, config));
  const verify = [
    ...['--name=verify', '--ioengine=nbd', `--uri=${ready.path}`, '--rw=randread', '--iodepth=8'],
    ...['--readonly', `--aux-path=${scratch.folder}`, ...layout],
  ];
  assert.match(await output('fio', ...verify), /err= 0/);
  const other = await run('fio', ...verify.map((arg) => arg.replace('bs=32k', 'bs=16k')));
  assert.notEqual(other.code, 0, 'a check that cannot fail proves nothing');
});

async function writeLayer(scratch: Scratch, raw: string, virtualSizeBytes: number) {
  const fd = openSync(raw, 'r');
  try {
    const extents = () => changedExtents({ fd, path: raw }, null, virtualSizeBytes);
    const uuid = await layerUuid(null, virtualSizeBytes, extents());
    const packing = { algorithm: 'zstd', blockBytes: 16_384 } as const;
    const options = { ...packing, virtualSizeBytes, uuid, parentUuid: null };
    return await writeLayerFile(scratch.folder, options, extents());
  } finally {
    closeSync(fd);
  }
}

test('NBD needs no privileges', { skip: needs('nbdcopy') }, async (t) => {
  const scratch = scratchOf(t);
  const { options, folder } = unprivileged(scratch);
  const args = [...attachArgs(folder), '--mode', 'auto'];
  const attached = await Attached.start(scratch, args, options);
  const { ready, process } = attached;
  assert.equal(ready.mode, 'record');
  const status = readFileSync(`/proc/${process.pid}/status`, 'utf8');
  assert.match(status, /^CapEff:\s*0+$/m, 'the process has no capabilities');
  const copy = scratch.path('copy.raw');
  await output('nbdcopy', ready.path, copy);
  assert.equal(await sha256OfFile(copy), image.sha256);
  const { trace } = await attached.detach();
  assert.ok(trace !== null && existsSync(trace.path));
});

test('FUSE without privileges says so, and what to do', async (t) => {
  const scratch = scratchOf(t);
  const { options, folder } = unprivileged(scratch);
  const args = ['attach', image.reference, '--frontend', 'fuse', '--cache', `${folder}/cache`];
  const { code, stdout, stderr } = await cli(scratch, args, options);
  assert.equal(code, 1);
  assert.equal(stdout, '');
  assert.match(stderr, /CAP_SYS_ADMIN.*--frontend nbd.*ERR_FUSE_NOT_PERMITTED/s);
  assert.ok(!existsSync(`${folder}/cache`), 'nothing was begun');
});
