// Goal: the layer tools do on the command line what they say, refuse what they must, and leave
// nothing half done, however they are stopped.
// Method: the tool as a process; its files compared with the original's, with each other, or with
// what qemu-img, e2fsck and the library make of them.
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import {
  closeSync,
  existsSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  readSync,
  statSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { test, type TestContext } from 'node:test';
import { fileURLToPath } from 'node:url';
import { createUpper } from '../../src/image/lsmt/create-upper.ts';
import { openWritableUpper } from '../../src/image/lsmt/writable-upper.ts';
import { openLayerBlob } from '../../src/image/layer-blob.ts';
import { openLocalBlob } from '../../src/blob/local-blob.ts';
import { fixture, syntheticBytes } from '../image/zfile-support.ts';
import { cli, cliJson, cliOutput, CliProcess, serveRegistry } from '../support/cli.ts';
import { needs } from '../support/needs.ts';
import { output, run } from '../support/programs.ts';
import { scratchOf, type Scratch } from '../support/scratch.ts';

const MAIN = fileURLToPath(new URL('../../src/cli/main.ts', import.meta.url));
const MIB = 2 ** 20;
const GIB = 2 ** 30;

/** What the tool says when it refuses. */
async function refusal(scratch: Scratch, ...words: string[]): Promise<string> {
  const { code, stderr } = await cli(scratch, words);
  assert.equal(code, 1, stderr);
  return stderr;
}

/** The first bytes of a file that may be large. */
function headOf(path: string): Buffer {
  const fd = openSync(path, 'r');
  const bytes = Buffer.alloc(4096);
  readSync(fd, bytes);
  closeSync(fd);
  return bytes;
}

/** A writable layer with some data, made by the library. */
async function makeUpper(scratch: Scratch, sizeBytes: number, data: Buffer): Promise<string[]> {
  const paths = { data: scratch.path('data'), index: scratch.path('index') };
  await createUpper({ ...paths, kind: 'append', virtualSizeBytes: sizeBytes });
  const upper = await openWritableUpper(paths);
  for (let at = 0; at < sizeBytes && data.length > 0; at += data.length) {
    await upper.write(at, data);
  }
  await upper.close();
  return [paths.data, paths.index];
}

test('create makes the files of the original, once', async (t) => {
  const scratch = scratchOf(t);
  const files = [scratch.path('data'), scratch.path('index')];
  const parent = 'aaaaaaaa-bbbb-4ccc-8ddd-eeeeeeeeeeee';
  const said = await cliOutput(scratch, ['create', ...files, '1', '-u', parent]);
  assert.match(said, /has created files SUCCESSFULLY/);
  const [data, index] = files.map((path) => readFileSync(path));
  // The header of the format notes' golden vector: magic, size 390, flags, index_offset, 1 GiB.
  const magic = '4c534d5400010200657e63d29444084ca2d2c8ec4fcfae8a86010000';
  const header = (flags: string, indexOffset: string) =>
    `${magic}${flags}000000${indexOffset}0000000000000000000000400000000000`.slice(0, 112);
  assert.equal(data.toString('hex', 0, 56), header('03', '0000000000000000'));
  assert.equal(index.toString('hex', 0, 56), header('01', '0010000000000000'));
  for (const file of [data, index]) {
    assert.equal(file.length, 4096);
    assert.match(file.toString('latin1', 56, 92), /^[0-9A-F-]{36}$/);
    assert.equal(file.toString('latin1', 93, 129), parent.toUpperCase());
  }
  assert.equal(statSync(files[0]).mode & 0o777, 0o644 & ~process.umask());
  assert.match(await refusal(scratch, 'create', ...files, '1'), /data: exists already/);

  const sparse = ['sparse.data', 'sparse.index'].map((name) => scratch.path(name));
  await cliOutput(scratch, ['create', '-s', ...sparse, '1']);
  assert.equal(statSync(sparse[0]).size, GIB + 4096);
  assert.equal(headOf(sparse[0]).readUInt32LE(28), 0x13);
  assert.equal(statSync(sparse[1]).size, 0);
  const { code } = await cli(scratch, ['create', scratch.path('a'), scratch.path('b'), '0.5']);
  assert.equal(code, 2);
});

test('commit, seal and merge refuse what is there already, unless they are forced', async (t) => {
  const scratch = scratchOf(t);
  const [data, index] = await makeUpper(scratch, MIB, syntheticBytes(MIB, 2));
  const out = scratch.path('out');
  const first = await cliJson<Record<string, unknown>>(scratch, ['commit', data, index, out, '-z']);
  assert.equal(first.sizeBytes, statSync(out).size);
  assert.equal(first.virtualSizeBytes, MIB);
  assert.match(await refusal(scratch, 'commit', data, index, out), /ERR_OUTPUT_EXISTS/);
  const zstd = ['--algorithm', 'zstd', '--bs', '16', '--compress_threads', '2'];
  await cliOutput(scratch, ['commit', data, index, out, '-z', '-t', '-f', ...zstd]);
  assert.match(await refusal(scratch, 'merge', out, out), /ERR_OUTPUT_EXISTS/);
  assert.match(await refusal(scratch, 'commit', data, index, scratch.folder), /ERR_OUTPUT_TARGET/);

  const merged = scratch.path('merged');
  await cliOutput(scratch, ['merge', '--compress=false', out, merged]);
  assert.equal(readFileSync(merged).toString('latin1', 0, 4), 'LSMT');
  await cliOutput(scratch, ['merge', out, merged, '-t', '-f']);
  const digests = [out, merged].map((path) => cliOutput(scratch, ['export', '--sha256', path]));
  const [ofLayer, ofMerged] = await Promise.all(digests);
  assert.equal(ofLayer, ofMerged);

  await cliOutput(scratch, ['commit', '--seal', data, index]);
  assert.equal(await cliOutput(scratch, ['export', '--sha256', data]), ofLayer);
  assert.match(await refusal(scratch, 'seal', data, index), /ERR_UPPER_SEALED/);
  await cliOutput(scratch, ['commit', '--commit_sealed', data, merged, '-f']);
  assert.equal(await cliOutput(scratch, ['export', '--sha256', merged]), ofLayer);
  for (const words of [
    ['commit', data, index],
    ['commit', '--seal', data, index, out],
    ['commit', data, index, out, '--bs', '5'],
    ['zfile', data, index, out],
    ['zfile', '--verify', '-x', data],
    ['merge', out],
  ]) {
    assert.equal((await cli(scratch, words)).code, 2, words.join(' '));
  }
});

test('a writable layer that is in use is not committed', async (t) => {
  const scratch = scratchOf(t);
  const [data, index] = await makeUpper(scratch, MIB, syntheticBytes(MIB, 6));
  const upper = await openWritableUpper({ data, index });
  scratch.atEnd(() => upper.close());
  assert.match(
    await refusal(scratch, 'commit', data, index, scratch.path('out')),
    /ERR_UPPER_BUSY/,
  );
  assert.match(await refusal(scratch, 'seal', data, index), /ERR_UPPER_BUSY/);
});

test('a layer is pushed as a blob, under its digest', async (t) => {
  const scratch = scratchOf(t);
  const url = await serveRegistry(scratch, scratch.path('registry'));
  const [data, index] = await makeUpper(scratch, MIB, syntheticBytes(MIB, 4));
  for (const target of [`${url}/some/image:v1`, `${url}/v2/some/image/blobs/uploads`]) {
    const words = ['commit', data, index, scratch.path('out'), '-f', '-z', '--upload', target];
    const { digest } = await cliJson<{ digest: string }>(scratch, words);
    const answer = await fetch(`${url}/v2/some/image/blobs/${digest}`);
    const blob = Buffer.from(await answer.arrayBuffer());
    assert.ok(blob.equals(readFileSync(scratch.path('out'))));
    // The original streams, so it cannot rewrite the header: bit 3 is not set.
    assert.equal(blob.readUInt32LE(32), 0x13);
  }
});

/** A commit of so much data that it can be stopped half way. */
async function startCommit(t: TestContext): Promise<{ scratch: Scratch; process: CliProcess }> {
  const scratch = scratchOf(t);
  mkdirSync(scratch.path('out'));
  const [data, index] = await makeUpper(scratch, 128 * MIB, syntheticBytes(4 * MIB, 3));
  const process = new CliProcess(scratch, [
    ...['commit', data, index, scratch.path('out/layer'), '-z', '-t'],
    ...['--algorithm', 'zstd', '--compress-threads', '1'],
  ]);
  while (readdirSync(scratch.path('out')).length === 0) await sleep(5);
  return { scratch, process };
}

test('a commit that is killed leaves no layer under its name', async (t) => {
  const { scratch, process } = await startCommit(t);
  process.kill('SIGKILL');
  await process.ended;
  const left = readdirSync(scratch.path('out'));
  assert.deepEqual(
    left.filter((name) => !name.includes('.partial-')),
    [],
  );
});

test('a commit that is interrupted leaves nothing', async (t) => {
  const { scratch, process } = await startCommit(t);
  process.kill('SIGINT');
  assert.equal((await process.ended).code, 130);
  assert.deepEqual(readdirSync(scratch.path('out')), []);
});

test('zfile compresses, extracts and verifies as the original does', async (t) => {
  const scratch = scratchOf(t);
  const original = fixture('mixed.lz4.4k.crc.zf');
  writeFileSync(scratch.path('original'), original);
  await cliOutput(scratch, ['zfile', '-x', scratch.path('original'), scratch.path('plain')]);
  await cliOutput(scratch, ['zfile', scratch.path('plain'), scratch.path('again')]);
  assert.ok(readFileSync(scratch.path('again')).equals(original));
  await cliOutput(scratch, ['zfile', scratch.path('plain'), scratch.path('tar'), '-t']);
  assert.ok(readFileSync(scratch.path('tar')).equals(fixture('mixed.lz4.4k.tar')));
  await cliOutput(scratch, ['zfile', '-x', scratch.path('tar'), scratch.path('plain'), '-f']);
  await cliOutput(scratch, ['zfile', '--verify', scratch.path('tar')]);

  // Standard input, in pieces that are no blocks: the original would write short blocks.
  const plain = readFileSync(scratch.path('plain'));
  await piped(plain, 'zfile', scratch.path('piped'));
  assert.ok(readFileSync(scratch.path('piped')).equals(original));
  await piped(original, 'zfile', '-x', '-', scratch.path('extracted'));
  assert.ok(readFileSync(scratch.path('extracted')).equals(plain));
  await piped(original, 'zfile', '--verify', '-');
});

/** Runs the tool with these bytes as standard input, in pieces of an odd size. */
async function piped(bytes: Buffer, ...words: string[]): Promise<void> {
  const stdio = ['pipe', 'ignore', 'inherit'] as const;
  const child = spawn(process.execPath, [MAIN, ...words], { stdio: [...stdio] });
  const { stdin } = child;
  assert.ok(stdin !== null);
  for (let at = 0; at < bytes.length; at += 10_001) {
    stdin.write(bytes.subarray(at, at + 10_001));
    await sleep(1);
  }
  stdin.end();
  assert.deepEqual(await once(child, 'close'), [0, null]);
}

test('zfile ends while it waits for input, and leaves nothing', async (t) => {
  const scratch = scratchOf(t);
  const stdio = ['pipe', 'ignore', 'inherit'] as const;
  const words = [MAIN, 'zfile', scratch.path('out')];
  const child = spawn(process.execPath, words, { stdio: [...stdio] });
  scratch.atEnd(() => child.kill('SIGKILL'));
  while (readdirSync(scratch.folder).length === 0) await sleep(5);
  child.kill('SIGINT');
  assert.deepEqual(await once(child, 'close'), [130, null]);
  assert.deepEqual(readdirSync(scratch.folder), []);
});

test('a layer of too many entries is refused, and one of many is warned of', async (t) => {
  const scratch = scratchOf(t);
  const [data, index] = await makeUpper(scratch, MIB, Buffer.alloc(0));
  const entries = async (count: number) => {
    const words = new BigUint64Array(2 * count);
    // Every other sector, zeroed: the log of a guest that discards so.
    for (let at = 0; at < count; at += 1) {
      words[2 * at] = BigInt(2 * at) | (1n << 50n);
      words[2 * at + 1] = 8n | (1n << 55n);
    }
    const header = readFileSync(index).subarray(0, 4096);
    writeFileSync(index, Buffer.concat([header, new Uint8Array(words.buffer)]));
    return await cli(scratch, ['commit', data, index, scratch.path('out'), '-z', '-f']);
  };
  const many = await entries(900_000);
  assert.equal(many.code, 0);
  assert.match(many.stderr, /warning: .*900000 index entries of the 999936/);
  const before = readFileSync(scratch.path('out'));
  const tooMany = await entries(999_937);
  assert.match(tooMany.stderr, /ERR_LSMT_ENTRIES/);
  assert.ok(readFileSync(scratch.path('out')).equals(before));
});

test('zfile refuses what is damaged, and leaves nothing of it', async (t) => {
  const scratch = scratchOf(t);
  for (const name of [
    'block-flip',
    'crc-flip',
    'index-flip',
    'header-flip',
    'magic',
    'truncated',
  ]) {
    const path = scratch.path(name);
    writeFileSync(path, fixture(`bad/${name}.zf`));
    assert.match(await refusal(scratch, 'zfile', '--verify', path), /\(ERR_ZFILE_/);
    assert.match(await refusal(scratch, 'zfile', '-x', path, `${path}.out`), /\(ERR_ZFILE_/);
  }
  assert.deepEqual(
    readdirSync(scratch.folder).filter((name) => name.includes('.out')),
    [],
  );
  assert.match(await refusal(scratch, 'zfile', scratch.path('none'), scratch.path('out')), /none/);
});

test('blocks that the original cannot read are warned of', async (t) => {
  const scratch = scratchOf(t);
  await cliOutput(scratch, ['zfile', '-x', await writeNoise(scratch), scratch.path('plain')]);
  const words = ['zfile', scratch.path('plain'), scratch.path('out'), '--bs', '64'];
  assert.match((await cli(scratch, words)).stderr, /warning:.*do not compress/);
  await cliOutput(scratch, ['zfile', '--verify', scratch.path('out')]);
});

async function writeNoise(scratch: Scratch): Promise<string> {
  writeFileSync(scratch.path('noise'), fixture('rand.lz4.64k.crc.zf'));
  return scratch.path('noise');
}

test('a raw image becomes a layer without its holes and zeros, and comes back', async (t) => {
  const scratch = scratchOf(t);
  const raw = scratch.path('raw');
  const data = syntheticBytes(200_000, 9);
  writeFileSync(raw, Buffer.concat([Buffer.alloc(70_000), data]));
  truncateSync(raw, 64 * MIB);
  const layer = scratch.path('layer');
  const words = ['import', raw, layer, '-z', '-t'];
  const imported = await cliJson<{ dataBytes: number }>(scratch, words);
  assert.ok(imported.dataBytes <= 208_896, 'whole blocks of what is not zero');
  await cliOutput(scratch, ['export', layer, scratch.path('again')]);
  assert.ok(readFileSync(scratch.path('again')).equals(readFileSync(raw)));
  writeFileSync(raw, Buffer.alloc(1000));
  assert.match(await refusal(scratch, 'import', raw, layer, '-f'), /ERR_IMPORT_SIZE/);
});

test('qcow2 images come and go through qemu-img', { skip: needs('qemu-img') }, async (t) => {
  const scratch = scratchOf(t);
  const raw = scratch.path('raw');
  writeFileSync(raw, syntheticBytes(8 * MIB, 12));
  truncateSync(raw, 64 * MIB);
  for (const compat of ['0.10', '1.1']) {
    const qcow2 = scratch.path(`v${compat}.qcow2`);
    await output('qemu-img', 'convert', '-O', 'qcow2', '-o', `compat=${compat}`, raw, qcow2);
    const layer = scratch.path(`layer${compat}`);
    await cliOutput(scratch, ['import', qcow2, layer, '-z']);
    const back = scratch.path(`back${compat}.qcow2`);
    await cliOutput(scratch, ['export', '--format', 'qcow2', layer, back]);
    await output('qemu-img', 'compare', '-f', 'raw', '-F', 'qcow2', raw, back);
  }
  // An image may not say which of our files is read.
  const leading = scratch.path('leading.qcow2');
  await output('qemu-img', 'create', '-f', 'qcow2', '-F', 'raw', '-b', raw, leading);
  const target = scratch.path('stolen');
  assert.match(await refusal(scratch, 'import', leading, target), /backing.*ERR_QCOW2/);
  writeFileSync(scratch.path('broken.qcow2'), Buffer.from('QFI\u{fb}, and nothing else', 'latin1'));
  assert.match(
    await refusal(scratch, 'import', scratch.path('broken.qcow2'), target),
    /ERR_PROGRAM/,
  );
  assert.equal(existsSync(target), false);
  const without = { env: { PATH: scratch.folder } };
  const { code, stderr } = await cli(scratch, ['import', leading, target], without);
  assert.equal(code, 1);
  assert.match(stderr, /qemu-img: not found.*ERR_PROGRAM_MISSING/);
});

test("the tool's layers open as layers", async (t) => {
  const scratch = scratchOf(t);
  const [data, index] = await makeUpper(scratch, MIB, syntheticBytes(MIB, 7));
  await cliOutput(scratch, ['commit', data, index, scratch.path('out'), '-z', '-t', '--no-sync']);
  const blob = await openLocalBlob(scratch.path('out'));
  const { facts } = await openLayerBlob(blob);
  await blob.close();
  assert.equal(facts.hasTarWrapper, true);
  assert.equal(facts.zfile?.isHeaderOverwritten, true);
  const listed = await run('tar', '-tf', scratch.path('out'));
  assert.equal(listed.stdout, 'overlaybd.commit\n');
});
