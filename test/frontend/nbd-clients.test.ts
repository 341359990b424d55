import assert from 'node:assert/strict';
import { readFile, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { startNbd } from '../../src/frontend/nbd/server.ts';
import {
  isZero,
  MemoryDevice,
  type MemoryDeviceOptions,
  patternedBytes,
  runClient,
  skipWithout,
  temporaryFolder,
} from './nbd-fixture.ts';

// Goal: the server is one that real NBD clients understand and get the right bytes from.
// Method: a device of patterned blocks and holes, part of it only reachable by slow asynchronous
// reads, served on a unix socket to clients of other projects; their output is compared with the
// device's own bytes.

const SIZE_BYTES = 8 * 1024 * 1024 + 512 * 5;

interface Served {
  device: MemoryDevice;
  uri: string;
  folder: string;
}

async function serve(context: TestContext, options: MemoryDeviceOptions = {}): Promise<Served> {
  const folder = await temporaryFolder(context);
  const device = new MemoryDevice(patternedBytes(SIZE_BYTES), options);
  const frontend = await startNbd(device, { socketPath: join(folder, 'nbd.sock') });
  context.after(frontend.close);
  return { device, uri: frontend.path, folder };
}

async function expectSuccess(program: string, args: readonly string[]): Promise<string> {
  const { status, stdout, stderr } = await runClient(program, args);
  assert.equal(status, 0, `${program} ${args.join(' ')}: ${stderr}${stdout}`);
  return stdout;
}

const slow: MemoryDeviceOptions = { missEvery: 3, delayMsMax: 3 };

test(
  'nbdinfo reads size, flags, block sizes and contexts',
  { skip: skipWithout('nbdinfo') },
  async (t) => {
    const { uri } = await serve(t);
    const { exports } = JSON.parse(await expectSuccess('nbdinfo', ['--json', uri])) as {
      exports: Record<string, unknown>[];
    };
    const [found] = exports;
    assert.ok(found);
    const expected = {
      'export-name': '',
      'export-size': SIZE_BYTES,
      description: 'replaybd device memory',
      contexts: ['base:allocation'],
      is_read_only: true,
      can_cache: true,
      can_df: true,
      can_flush: true,
      can_fua: true,
      can_multi_conn: true,
      can_trim: false,
      can_zero: false,
      block_size_minimum: 512,
      block_size_preferred: 4096,
      block_size_maximum: 33_554_432,
    };
    for (const [key, value] of Object.entries(expected)) assert.deepEqual(found[key], value, key);
  },
);

test('a writable export says what it can', { skip: skipWithout('nbdinfo') }, async (t) => {
  const { uri } = await serve(t, { writable: true });
  const { exports } = JSON.parse(await expectSuccess('nbdinfo', ['--json', uri])) as {
    exports: Record<string, unknown>[];
  };
  const can = ['flush', 'fua', 'multi_conn', 'trim', 'zero', 'fast_zero', 'cache', 'df'];
  for (const name of can) assert.equal(exports[0]?.[`can_${name}`], true, name);
  assert.equal(exports[0]?.is_read_only, false);
});

test('qemu-img converts an image into the device', { skip: skipWithout('qemu-img') }, async (t) => {
  const { uri, device, folder } = await serve(t, { writable: true });
  const [raw, qcow2] = [join(folder, 'raw'), join(folder, 'qcow2')];
  const bytes = Buffer.from(device.bytes).reverse();
  await writeFile(raw, bytes);
  await expectSuccess('qemu-img', ['convert', '-f', 'raw', '-O', 'qcow2', raw, qcow2]);
  await expectSuccess('qemu-img', ['convert', '-n', '-f', 'qcow2', '-O', 'raw', qcow2, uri]);
  assert.ok(device.bytes.equals(bytes));
});

test('nbdinfo lists every export by name', { skip: skipWithout('nbdinfo') }, async (t) => {
  const folder = await temporaryFolder(t);
  const devices = ['alpha', 'beta'].map((id, index) => {
    return new MemoryDevice(Buffer.alloc(4096 * (index + 1)), { id });
  });
  const frontend = await startNbd(devices, { socketPath: join(folder, 'nbd.sock') });
  t.after(frontend.close);
  assert.match(frontend.path, /^nbd\+unix:\/\/\/alpha\?socket=/);
  const listed = await expectSuccess('nbdinfo', ['--list', '--json', frontend.path]);
  const { exports } = JSON.parse(listed) as { exports: Record<string, unknown>[] };
  assert.deepEqual(
    exports.map((entry) => [entry['export-name'], entry['export-size']]),
    [
      ['alpha', 4096],
      ['beta', 8192],
    ],
  );
  const unknown = await runClient('nbdinfo', [frontend.path.replace('alpha', 'gamma')]);
  assert.notEqual(unknown.status, 0);
  assert.match(unknown.stderr, /No such file or directory for export: gamma/);
});

test(
  'nbdinfo maps holes where the device has none of the bytes',
  { skip: skipWithout('nbdinfo') },
  async (t) => {
    const { uri, device } = await serve(t);
    const map = JSON.parse(await expectSuccess('nbdinfo', ['--map', '--json', uri])) as {
      offset: number;
      length: number;
      type: number;
    }[];
    let position = 0;
    for (const extent of map) {
      assert.equal(extent.offset, position);
      const bytes = device.bytes.subarray(position, position + extent.length);
      assert.equal(extent.type, isZero(bytes) ? 3 : 0);
      position += extent.length;
    }
    assert.equal(position, SIZE_BYTES);
    assert.ok(map.length > 100);
  },
);

test(
  'nbdcopy over several connections copies the device',
  { skip: skipWithout('nbdcopy') },
  async (t) => {
    const { uri, device, folder } = await serve(t, slow);
    const copy = join(folder, 'copy');
    await expectSuccess('nbdcopy', ['--connections=4', '--requests=32', uri, copy]);
    assert.ok(device.bytes.equals(await readFile(copy)));
    // What is a hole was neither asked for nor fetched.
    assert.ok(device.missing > 0);
    await expectSuccess('nbdcopy', ['--no-extents', uri, copy]);
    assert.ok(device.bytes.equals(await readFile(copy)));
    assert.ok(device.missing > 0);
  },
);

test(
  'qemu-io reads and flushes, and is refused a write',
  { skip: skipWithout('qemu-io') },
  async (t) => {
    const { uri, device } = await serve(t, slow);
    device.bytes.fill(0xa5, 65_536, 131_072);
    const read = ['-r', '-f', 'raw', '-c', 'read -P 0xa5 64k 64k', '-c', 'flush', uri];
    assert.match(await expectSuccess('qemu-io', read), /read 65536\/65536/);
    const wrong = await runClient('qemu-io', ['-r', '-f', 'raw', '-c', 'read -P 1 64k 64k', uri]);
    assert.match(wrong.stdout, /Pattern verification failed/);
    const write = await runClient('qemu-io', ['-f', 'raw', '-c', 'write 0 4k', uri]);
    assert.notEqual(write.status, 0);
    assert.equal(device.bytes[65_536], 0xa5);
  },
);

test(
  'qemu-io writes, zeroes, discards and flushes',
  { skip: skipWithout('qemu-io') },
  async (t) => {
    const { uri, device } = await serve(t, { writable: true });
    const before = Buffer.from(device.bytes);
    const commands = [
      'write -P 0x11 0 1M',
      'write -f -P 0x22 2M 64k',
      'write -z 3M 128k',
      'discard 4M 64k',
      'flush',
      'read -P 0x11 0 1M',
      'read -P 0x22 2M 64k',
      'read -P 0 3M 128k',
    ];
    const args = [
      '-d',
      'unmap',
      '-f',
      'raw',
      ...commands.flatMap((command) => ['-c', command]),
      uri,
    ];
    const output = await expectSuccess('qemu-io', args);
    assert.doesNotMatch(output, /failed/i);
    before.fill(0x11, 0, 1_048_576);
    before.fill(0x22, 2_097_152, 2_097_152 + 65_536);
    before.fill(0, 3_145_728, 3_145_728 + 131_072);
    before.fill(0, 4_194_304, 4_194_304 + 65_536);
    assert.ok(device.bytes.equals(before));
    for (const call of ['write-fua', 'zeroes', 'discard', 'flush']) {
      assert.ok(device.calls.includes(call), `${call}: ${device.calls.join()}`);
    }
  },
);

test('nbdcopy writes a whole file in', { skip: skipWithout('nbdcopy') }, async (t) => {
  const { uri, device, folder } = await serve(t, { writable: true });
  const source = join(folder, 'source');
  const bytes = Buffer.from(device.bytes).reverse();
  await writeFile(source, bytes);
  await expectSuccess('nbdcopy', ['--flush', source, uri]);
  assert.ok(device.bytes.equals(bytes));
  assert.ok(device.calls.includes('write'));
  assert.equal(device.calls.at(-1), 'flush');
});

test('fio verifies what it wrote, over TCP', { skip: skipWithout('fio') }, async (t) => {
  const device = new MemoryDevice(Buffer.alloc(4_194_304), { writable: true });
  const frontend = await startNbd(device, { host: '127.0.0.1' });
  t.after(frontend.close);
  const folder = await temporaryFolder(t);
  const args = [
    '--name=verify',
    '--ioengine=nbd',
    `--uri=${frontend.path}`,
    '--rw=randwrite',
    '--bsrange=4k-64k',
    '--size=4m',
    '--iodepth=16',
    '--verify=crc32c',
    `--aux-path=${folder}`,
    '--verify_state_save=0',
  ];
  const output = await expectSuccess('fio', args);
  assert.match(output, /err= 0/);
  assert.ok(device.bytes.some((byte) => byte !== 0));
});

test('the socket is private and goes with the server', async (t) => {
  const folder = await temporaryFolder(t);
  const socketPath = join(folder, 'nbd.sock');
  const device = new MemoryDevice(Buffer.alloc(4096));
  const frontend = await startNbd(device, { socketPath });
  assert.equal((await stat(socketPath)).mode & 0o777, 0o600);
  await assert.rejects(startNbd(device, { socketPath }), { code: 'ERR_SOCKET_IN_USE' });
  await Promise.all([frontend.close(), frontend.close()]);
  await assert.rejects(stat(socketPath), { code: 'ENOENT' });
  const again = await startNbd(device, { socketPath });
  await again.close();
});
