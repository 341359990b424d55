// Goal: a disk and the ext4 on it get the size that is asked for, in a layer on top of others, and a
// resize that was stopped is finished before the layer can be used.
// Method: the tool as a process on an image with a file in it; e2fsck, dumpe2fs and the file's bytes
// tell what came of it; what a kill leaves is put together from the files of a whole resize.
import assert from 'node:assert/strict';
import {
  copyFileSync,
  existsSync,
  mkdirSync,
  readFileSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { test } from 'node:test';
import { syntheticBytes } from '../image/zfile-support.ts';
import { cli, cliJson, cliOutput } from '../support/cli.ts';
import { needs } from '../support/needs.ts';
import { output } from '../support/programs.ts';
import { scratchOf, type Scratch } from '../support/scratch.ts';

const GIB = 2 ** 30;

/** What the tool says when it refuses. */
async function refusal(scratch: Scratch, ...words: string[]): Promise<string> {
  const { code, stderr } = await cli(scratch, words);
  assert.equal(code, 1, stderr);
  return stderr;
}

const noExt4 = needs('mke2fs', 'resize2fs', 'e2fsck');

for (const kind of ['append', 'sparse']) {
  test(`an ext4 in a ${kind} layer grows and shrinks`, { skip: noExt4 }, async (t) => {
    const scratch = scratchOf(t);
    const image = await makeExt4Image(scratch, kind === 'sparse');
    for (const [gib, wanted] of [
      ['1.5', 1.5 * GIB],
      ['0.25', GIB / 4],
    ] as const) {
      await cliJson(scratch, ['resize', '--config', image.config, '--size', gib]);
      await cliOutput(scratch, ['export', image.config, scratch.path('raw'), '--force']);
      assert.equal(statSync(scratch.path('raw')).size, wanted);
      await checkExt4(scratch, wanted);
    }
    // The layers below are what they were.
    assert.ok(readFileSync(image.base).equals(image.baseBytes));
  });
}

/** An image whose bottom layer is an ext4 of 1 GiB with a file, and a writable layer on it. */
async function makeExt4Image(scratch: Scratch, isSparse: boolean) {
  mkdirSync(scratch.path('rootfs'));
  writeFileSync(scratch.path('rootfs/file'), syntheticBytes(300_000, 1));
  await cliOutput(scratch, [
    ...['image', 'build', '--rootfs', scratch.path('rootfs'), '--layout', scratch.path('layout')],
    ...['--virtual-size', '1'],
  ]);
  const config = scratch.path('config.v1.json');
  await cliOutput(scratch, ['image', 'config', scratch.path('layout'), '-o', config]);
  const upper = { data: scratch.path('data'), index: scratch.path('index') };
  const flags = isSparse ? ['-s'] : [];
  await cliOutput(scratch, ['create', ...flags, upper.data, upper.index, '1']);
  const image = JSON.parse(readFileSync(config, 'utf8')) as { lowers: { file: string }[] };
  writeFileSync(config, JSON.stringify({ ...image, upper }));
  const base = image.lowers[0].file;
  return { config, upper, base, baseBytes: readFileSync(base) };
}

async function checkExt4(scratch: Scratch, sizeBytes: number): Promise<void> {
  await output('e2fsck', '-fn', scratch.path('raw'));
  const facts = await output('dumpe2fs', '-h', scratch.path('raw'));
  assert.match(facts, new RegExp(`^Block count: +${sizeBytes / 4096}$`, 'm'));
  await output('debugfs', '-R', `dump /file ${scratch.path('file')}`, scratch.path('raw'));
  assert.ok(readFileSync(scratch.path('file')).equals(syntheticBytes(300_000, 1)));
}

test(
  'a resize that was interrupted is finished before anything else',
  { skip: noExt4 },
  async (t) => {
    const scratch = scratchOf(t);
    const { config, upper } = await makeExt4Image(scratch, false);
    const before = { data: readFileSync(upper.data), index: readFileSync(upper.index) };
    // A copy is resized; its journal is what a kill would have left, and the layer has some of it.
    await cliJson(scratch, ['resize', '--config', config, '--size', '2']);
    await cliOutput(scratch, ['commit', upper.data, upper.index, scratch.path('journal')]);
    for (const part of [0, 0.5]) {
      const resized = { data: readFileSync(upper.data), index: readFileSync(upper.index) };
      const entries = Math.floor(((resized.index.length - 4096) / 16) * part);
      const cut = Buffer.from(resized.index.subarray(0, 4096 + entries * 16));
      before.index.copy(cut, 0, 0, 4096);
      writeFileSync(upper.data, part === 0 ? before.data : resized.data);
      writeFileSync(upper.index, cut);
      copyFileSync(scratch.path('journal'), `${upper.data}.resize`);
      for (const words of [
        ['commit', upper.data, upper.index, scratch.path('out')],
        ['export', config, scratch.path('out')],
        ['seal', upper.data, upper.index],
      ]) {
        assert.match(await refusal(scratch, ...words), /interrupted.*ERR_UPPER_RESIZE/);
      }
      const words = ['resize', '--config', config, '--size', '2'];
      const result = await cliJson<Record<string, unknown>>(scratch, words);
      assert.equal(result.finishedEarlier, true);
      assert.equal(result.virtualSizeBytes, 2 * GIB);
      assert.equal(existsSync(`${upper.data}.resize`), false);
      await cliOutput(scratch, ['export', config, scratch.path('raw'), '--force']);
      await checkExt4(scratch, 2 * GIB);
    }
  },
);

test(
  'a disk without an ext4, or without a writable layer, is not resized',
  { skip: noExt4 },
  async (t) => {
    const scratch = scratchOf(t);
    const [data, index] = [scratch.path('data'), scratch.path('index')];
    await cliOutput(scratch, ['create', data, index, '1']);
    await cliOutput(scratch, ['commit', data, index, scratch.path('base')]);
    const config = scratch.path('config');
    const lowers = [{ file: scratch.path('base') }];
    const words = ['resize', '--config', config, '--size', '2'];
    writeFileSync(config, JSON.stringify({ lowers }));
    assert.match(await refusal(scratch, ...words), /ERR_RESIZE_UPPER/);
    writeFileSync(config, JSON.stringify({ lowers, upper: { data, index } }));
    const before = readFileSync(index);
    assert.match(await refusal(scratch, ...words), /ERR_RESIZE_EXT4/);
    assert.ok(readFileSync(index).equals(before));
    assert.equal(existsSync(`${data}.resize`), false);
  },
);
