import assert from 'node:assert/strict';
import { cpSync, writeFileSync } from 'node:fs';
import { randomBytes } from 'node:crypto';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { packageRoot } from '../../src/base/package-root.ts';
import { Attached } from '../support/attached.ts';
import { cliOutput, serveRegistry } from '../support/cli.ts';
import { needs } from '../support/needs.ts';
import { output } from '../support/programs.ts';
import { Scratch, scratchOf } from '../support/scratch.ts';
import { makeTestImage, sha256OfFile, type TestImage } from '../support/test-image.ts';

// Goal: what other projects' NBD clients write into an attached image is there, for them and after a
// reopen, in both kinds of writable layers.
// Method: fio, nbdcopy, qemu-img and qemu-io against `attach --frontend nbd --upper`.

const KINDS = ['append', 'sparse'] as const;
const fixture = new Scratch();
let image: TestImage;

before(async () => {
  const rootfs = fixture.path('rootfs');
  cpSync(join(packageRoot, 'node_modules/pino'), join(rootfs, 'pino'), { recursive: true });
  const url = await serveRegistry(fixture, fixture.path('registry'));
  image = await makeTestImage(fixture, url, [rootfs], 32);
});
after(() => fixture.close());

async function attach(scratch: Scratch, ...more: string[]): Promise<Attached> {
  return await Attached.start(scratch, [
    ...[image.reference, '--frontend', 'nbd', '--nbd-socket', scratch.path('nbd')],
    ...['--cache', scratch.path('cache'), '--upper', scratch.path('upper'), '--mode', 'off'],
    ...more,
  ]);
}

/** The whole disk, as nbdcopy gets it. */
async function copyOut(scratch: Scratch, { ready }: Attached): Promise<string> {
  const copy = scratch.path('copy.raw');
  await output('nbdcopy', ready.path, copy);
  return await sha256OfFile(copy);
}

test(
  'a disk that has grown has its new size for clients that connect',
  { skip: needs('nbdinfo') },
  async (t) => {
    const scratch = scratchOf(t);
    const attached = await attach(scratch, '--id', 'growing-nbd');
    const sizeOf = async (): Promise<number> =>
      Number(await output('nbdinfo', '--size', attached.ready.path));
    assert.equal(await sizeOf(), image.virtualSizeBytes);
    await cliOutput(scratch, ['resize', '--device', 'growing-nbd', '--size', '1']);
    assert.equal(await sizeOf(), 2 ** 30);
    await attached.detach();
  },
);

for (const kind of KINDS) {
  test(`fio verifies, ${kind}`, { skip: needs('fio', 'nbdcopy') }, async (t) => {
    const scratch = scratchOf(t);
    const attached = await attach(scratch, '--upper-kind', kind);
    const report = await output(
      'fio',
      ...['--name=verify', '--ioengine=nbd', `--uri=${attached.ready.path}`, '--rw=randrw'],
      ...['--bsrange=512-64k', '--blockalign=512', '--size=16m', '--iodepth=16', '--fsync=64'],
      ...['--verify=crc32c', '--verify_state_save=0', `--aux-path=${scratch.folder}`],
    );
    assert.match(report, /err= 0/);
    const digest = await copyOut(scratch, attached);
    assert.notEqual(digest, image.sha256);
    const { upper } = await attached.detach();
    assert.ok(upper !== null && upper.kind === kind && upper.writes > 0);
    const reopened = await attach(scratch);
    assert.equal(await copyOut(scratch, reopened), digest);
    await reopened.detach();
  });

  test(`disks are copied in, ${kind}`, { skip: needs('nbdcopy', 'qemu-img') }, async (t) => {
    const scratch = scratchOf(t);
    const attached = await attach(scratch, '--upper-kind', kind);
    const { path } = attached.ready;
    // Data, holes over the image's data, and zeros.
    const source = scratch.path('source.raw');
    const bytes = Buffer.alloc(image.virtualSizeBytes);
    randomBytes(3 * 2 ** 20).copy(bytes, 2 ** 20);
    randomBytes(4096).copy(bytes, bytes.length - 4096);
    writeFileSync(source, bytes);
    await output('nbdcopy', '--flush', source, path);
    await output('qemu-img', 'compare', '-f', 'raw', '-F', 'raw', source, path);
    randomBytes(2 ** 20).copy(bytes, 20 * 2 ** 20);
    bytes.fill(0, 2 ** 20, 2 ** 21);
    writeFileSync(source, bytes);
    const qcow2 = scratch.path('source.qcow2');
    await output('qemu-img', 'convert', '-f', 'raw', '-O', 'qcow2', source, qcow2);
    await output('qemu-img', 'convert', '-n', '-f', 'qcow2', '-O', 'raw', qcow2, path);
    const digest = await sha256OfFile(source);
    assert.equal(await copyOut(scratch, attached), digest);
    await attached.detach();
    const reopened = await attach(scratch);
    assert.equal(await copyOut(scratch, reopened), digest);
    await reopened.detach();
  });
}

test('qemu-io writes, zeroes and discards', { skip: needs('qemu-io') }, async (t) => {
  const scratch = scratchOf(t);
  const attached = await attach(scratch);
  const changes = [
    ...['write -P 0x11 0 1M', 'write -f -P 0x22 2M 64k', 'write -z 512k 128k'],
    ...['write -z -u 2M 4k', 'discard 16k 64k', 'aio_write -P 0x33 5M 512', 'aio_flush', 'flush'],
  ];
  const checks = [
    ...['read -P 0x11 0 16k', 'read -P 0 16k 64k', 'read -P 0x11 80k 432k', 'read -P 0 512k 128k'],
    ...[
      'read -P 0x11 640k 384k',
      'read -P 0 2M 4k',
      'read -P 0x22 2100k 12k',
      'read -P 0x33 5M 512',
    ],
  ];
  const qemuIo = async ({ ready }: Attached, commands: string[]): Promise<void> => {
    const words = commands.flatMap((command) => ['-c', command]);
    const text = await output('qemu-io', '-d', 'unmap', '-f', 'raw', ...words, ready.path);
    assert.doesNotMatch(text, /failed|error/i);
  };
  await qemuIo(attached, [...changes, ...checks]);
  await attached.detach();
  const reopened = await attach(scratch);
  await qemuIo(reopened, checks);
  await reopened.detach();
});
