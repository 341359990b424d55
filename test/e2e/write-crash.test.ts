import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { cpSync, existsSync, mkdirSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { packageRoot } from '../../src/base/package-root.ts';
import { RawClient } from '../frontend/nbd-raw-client.ts';
import { Attached } from '../support/attached.ts';
import { serveRegistry } from '../support/cli.ts';
import { needs } from '../support/needs.ts';
import { output, run } from '../support/programs.ts';
import { Scratch, scratchOf } from '../support/scratch.ts';
import { makeTestImage, type TestImage } from '../support/test-image.ts';

// Goal: when the process that serves a device is killed while a guest writes, what the guest was told to
// be written is there when the device is attached again, nothing is there that was never written, and a
// file system's journal makes it whole.
// Method: SIGKILL while sectors with version numbers are written over NBD, again and again on the same
// layer; and while files are written and synced on ext4 through FUSE.

const KINDS = ['append', 'sparse'] as const;
const SECTOR = 512;
const [READ, WRITE, FLUSH, TRIM] = [0, 1, 3, 4];
const fixture = new Scratch();
let image: TestImage;
let disk = Buffer.alloc(0);

before(async () => {
  const rootfs = fixture.path('rootfs');
  cpSync(join(packageRoot, 'node_modules/pino'), join(rootfs, 'pino'), { recursive: true });
  const url = await serveRegistry(fixture, fixture.path('registry'));
  image = await makeTestImage(fixture, url, [rootfs], 64);
  disk = readFileSync(image.raw);
});
after(() => fixture.close());

function attachArgs(scratch: Scratch, ...more: string[]): string[] {
  const folders = ['--cache', scratch.path('cache'), '--upper', scratch.path('upper')];
  return [image.reference, ...folders, '--mode', 'off', ...more];
}

/** What a sector may hold: versions from the last acknowledged one to the last that was sent. */
interface Expected {
  acknowledged: number;
  sent: number;
}

const SECTORS = 2048;
const VERSION_DISCARDED = 7;

/** Writes versions until the server is gone; notes what was sent, and what was acknowledged. */
async function writeUntilKilled(client: RawClient, expected: Expected[]): Promise<void> {
  let state = 1;
  const random = (below: number): number => {
    state = (state * 48_271) % 2_147_483_647;
    return state % below;
  };
  try {
    for (;;) {
      for (let count = random(40); count >= 0; count -= 1) {
        const first = random(SECTORS - 16);
        const sectors = 1 + random(16);
        const run = expected.slice(first, first + sectors);
        const version = 1 + Math.max(...run.map(({ sent }) => sent));
        for (const one of run) one.sent = version;
        if (version % VERSION_DISCARDED === 0) {
          client.send(TRIM, first * SECTOR, sectors * SECTOR);
        } else {
          const data = Buffer.alloc(sectors * SECTOR);
          for (let i = 0; i < sectors; i += 1) sectorOf(first + i, version).copy(data, i * SECTOR);
          client.send(WRITE, first * SECTOR, data.length, { data });
        }
        assert.equal((await client.simpleReply()).error, 0);
        for (const one of run) one.acknowledged = version;
      }
      client.send(FLUSH, 0, 0);
      assert.equal((await client.simpleReply()).error, 0);
    }
  } catch (error) {
    assert.match(String(error), /hung up/);
  }
}

/** A sector's bytes of a version; 0 is the image's own. */
function sectorOf(sector: number, version: number): Buffer {
  if (version === 0) return disk.subarray(sector * SECTOR, (sector + 1) * SECTOR);
  const bytes = Buffer.alloc(SECTOR);
  if (version % VERSION_DISCARDED === 0) return bytes;
  bytes.fill(version % 251);
  bytes.writeUInt32LE(sector, 0);
  bytes.writeUInt32LE(version, 4);
  return bytes;
}

/** Checks every sector, and takes what is found for what was acknowledged. */
async function checkSectors(client: RawClient, expected: Expected[]): Promise<void> {
  client.send(READ, 0, SECTORS * SECTOR);
  assert.equal((await client.simpleReply()).error, 0);
  const bytes = await client.take(SECTORS * SECTOR);
  for (const [sector, one] of expected.entries()) {
    const found = bytes.subarray(sector * SECTOR, (sector + 1) * SECTOR);
    let version = one.sent;
    while (version >= one.acknowledged && !found.equals(sectorOf(sector, version))) version -= 1;
    const what = `sector ${sector}: none of the versions ${one.acknowledged} to ${one.sent}`;
    assert.ok(version >= one.acknowledged, what);
    expected[sector] = { acknowledged: version, sent: version };
  }
}

for (const kind of KINDS) {
  test(`killed while a guest writes, again and again, ${kind}`, async (t) => {
    const scratch = scratchOf(t);
    const socket = scratch.path('nbd');
    const nbd = ['--frontend', 'nbd', '--nbd-socket', socket, '--upper-kind', kind];
    const expected = Array.from({ length: SECTORS }, (): Expected => ({
      acknowledged: 0,
      sent: 0,
    }));
    for (const afterMs of [150, 40, 300]) {
      const attached = await Attached.start(scratch, attachArgs(scratch, ...nbd));
      const client = await RawClient.transmit(socket, false);
      await checkSectors(client, expected);
      const writing = writeUntilKilled(client, expected);
      await sleep(afterMs);
      await attached.crash();
      await writing;
    }
    assert.ok(
      expected.some(({ acknowledged }) => acknowledged > 0),
      'writes got through',
    );
    const attached = await Attached.start(scratch, attachArgs(scratch, ...nbd));
    await checkSectors(await RawClient.transmit(socket, false), expected);
    await attached.detach();
  });
}

test('ext4 recovers by its journal', { skip: needs('root', 'e2fsck', 'sync') }, async (t) => {
  const scratch = scratchOf(t);
  const mount = scratch.path('mount');
  mkdirSync(mount);
  // An image built here has no journal; a file system made on the device has.
  const made = await Attached.start(scratch, attachArgs(scratch));
  await output('mkfs.ext4', '-q', '-F', '-J', 'size=4', made.ready.path);
  await made.detach();
  const args = attachArgs(scratch, '--mount', mount);
  const killed = await Attached.start(scratch, args);
  const script =
    'i=0; while head -c 70000 /dev/urandom > $0/f$i.new && sync $0/f$i.new && ' +
    'mv $0/f$i.new $0/f$i && sync $0 && cksum < $0/f$i > $1/f$i; do i=$((i+1)); done';
  const sums = scratch.path('sums');
  mkdirSync(sums);
  const writer = spawn('sh', ['-c', script, mount, sums], { stdio: 'ignore' });
  scratch.atEnd(() => writer.kill('SIGKILL'));
  const ended = new Promise((resolve) => writer.once('exit', resolve));
  while (readdirSync(sums).length < 10) await sleep(10);
  await killed.crash();
  await ended;
  // The last sum may have been cut short.
  const synced = readdirSync(sums).filter((name) => /^\d+ 70000$/m.test(read(sums, name)));
  assert.ok(synced.length >= 9);

  const recovering = await Attached.start(scratch, attachArgs(scratch));
  assert.ok(!existsSync(killed.ready.control), 'the socket of the dead process is gone');
  const check = await run('e2fsck', '-fy', recovering.ready.path);
  assert.match(check.stdout, /recovering journal/);
  assert.ok(check.code === 0 || check.code === 1, check.stdout);
  assert.equal((await run('e2fsck', '-fn', recovering.ready.path)).code, 0);
  await recovering.detach();
  const mounted = await Attached.start(scratch, args);
  for (const name of synced) {
    const sum = await output('sh', '-c', 'cksum < "$0"', join(mount, name));
    assert.equal(sum, read(sums, name), name);
  }
  await mounted.detach();
});

function read(folder: string, name: string): string {
  return readFileSync(join(folder, name), 'utf8');
}
