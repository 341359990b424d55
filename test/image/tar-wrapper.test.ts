// Goal: the tar around a layer is the original's byte for byte, and whatever else is found in front
// of a layer is peeled as tar says, or refused. Method: a golden vector, the original's files,
// headers made by the system's tar, and damage.
import assert from 'node:assert';
import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import fc from 'fast-check';
import { systemCodec } from '../../native/codecs.ts';
import { codeOf } from '../../src/base/errors.ts';
import { peelTar, TAR_PROBE_BYTES, TarWrapperSink } from '../../src/image/tar-wrapper.ts';
import { ZFileWriter } from '../../src/image/zfile/writer.ts';
import { MemorySink } from '../../bench/support/memory-sink.ts';
import { fixture, goldenLsmt, sha256 } from './zfile-support.ts';

function peel(blob: Uint8Array, blobBytes = blob.length) {
  return peelTar(blob.subarray(0, TAR_PROBE_BYTES), blobBytes, 'layer.tar');
}

async function wrap(payload: Uint8Array): Promise<Buffer> {
  const sink = new MemorySink();
  const tar = new TarWrapperSink(sink);
  if (payload.length > 0) await tar.write(payload);
  assert.strictEqual(await tar.finish(), sink.bytes.length);
  return sink.bytes;
}

/** Writes a header's checksum again after a change. */
function reseal(tar: Buffer, at: number, kind: 'signed' | 'unsigned' = 'unsigned'): void {
  tar.fill(' ', at + 148, at + 156);
  const bytes = tar.subarray(at, at + 512);
  const sum = bytes.reduce(
    (total, byte) => total + (kind === 'signed' ? (byte << 24) >> 24 : byte),
    0,
  );
  tar.write(`${sum.toString(8).padStart(6, '0')}\0 `, at + 148, 'latin1');
}

test('golden vector: a ZFile in a tar, headers patched at the end', async (t) => {
  if (systemCodec('lz4') === null) return t.skip('no liblz4: the bytes differ');
  const sink = new MemorySink();
  const tar = new TarWrapperSink(sink);
  const zfile = new ZFileWriter(tar);
  await zfile.write(goldenLsmt());
  await zfile.finish();
  assert.strictEqual(await tar.finish(), 4608);
  const expected = 'a09af6ef2be485be0c45442b35d2de1be6cd9e58f221efa1b5302fd784550533';
  assert.strictEqual(sha256(sink.bytes), expected);
});

test("the original's tars are written again byte for byte", async () => {
  for (const name of ['mixed.lz4.4k.tar', 'mixed.zstd.4k.tar']) {
    const original = fixture(name);
    const payload = peel(original);
    assert(payload !== null);
    const { offset, length } = payload;
    assert((await wrap(original.subarray(offset, offset + length))).equals(original), name);
  }
});

test('what is wrapped is peeled', async () => {
  await fc.assert(
    fc.asyncProperty(fc.uint8Array({ maxLength: 2000 }), async (payload) => {
      const tar = await wrap(payload);
      assert.deepStrictEqual(peel(tar), { offset: 1536, length: payload.length });
      assert.strictEqual(tar.length % 512, 0);
    }),
  );
});

test("the system's tar peels too, ustar and pax, whatever its records", (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'replaybd-tar-'));
  t.after(() => rmSync(folder, { recursive: true, force: true }));
  const payload = Buffer.from('ZFile'.repeat(300));
  writeFileSync(join(folder, 'overlaybd.commit'), payload);
  const longComment = `comment=${'x'.repeat(700)}`;
  for (const [format, extra] of [
    ['ustar', []],
    ['posix', []],
    ['posix', [`--pax-option=${longComment}`]],
    ['posix', ['--pax-option=size:=1500']],
  ] as const) {
    const path = join(folder, 'layer.tar');
    execFileSync('tar', [
      '-C',
      folder,
      `--format=${format}`,
      ...extra,
      '-cf',
      path,
      'overlaybd.commit',
    ]);
    const tar = readFileSync(path);
    // A global header ('g') in front is what --pax-option=comment makes: not a layer's wrapper.
    if (extra[0]?.includes('comment') === true) {
      assert.throws(
        () => peel(tar),
        (error) => codeOf(error) === 'ERR_TAR_HEADER',
      );
      continue;
    }
    const range = peel(tar);
    assert(range !== null);
    assert(payload.equals(tar.subarray(range.offset, range.offset + range.length)));
  }
});

test('pax records longer than a block move the payload', async () => {
  const tar = await wrap(Buffer.from('payload'));
  const filler = `comment=${'y'.repeat(600)}\n`;
  const records = `${filler.length + 4} ${filler}10 size=7\n`;
  const longer = Buffer.concat([tar.subarray(0, 512), Buffer.alloc(1024), tar.subarray(1024)]);
  longer.write(records, 512, 'latin1');
  longer.write(records.length.toString(8).padStart(11, '0'), 124, 'latin1');
  reseal(longer, 0);
  assert.deepStrictEqual(peel(longer), { offset: 2048, length: 7 });
});

test('a signed checksum is as good as an unsigned one', async () => {
  const tar = await wrap(Buffer.from('payload'));
  tar.write('overlaybd.caf\u00e9', 1024, 'utf8');
  reseal(tar, 1024, 'signed');
  assert.deepStrictEqual(peel(tar), { offset: 1536, length: 7 });
});

test('what is no POSIX tar is left alone', async () => {
  const gnu = await wrap(Buffer.from('payload'));
  gnu.write('ustar  \0', 257, 'latin1');
  reseal(gnu, 0);
  const badSum = await wrap(Buffer.from('payload'));
  badSum[0] ^= 1;
  for (const blob of [gnu, badSum, Buffer.alloc(4096), Buffer.alloc(0), goldenLsmt()]) {
    assert.strictEqual(peel(blob), null);
  }
});

test('damaged wrappers are refused with the reason', async () => {
  const tar = await wrap(Buffer.from('payload'));
  const changed = (at: number, text: string): Buffer => {
    const copy = Buffer.from(tar);
    copy.write(text, at, 'latin1');
    if (at < 512) reseal(copy, 0);
    if (at >= 1024) reseal(copy, 1024);
    return copy;
  };
  const cases: [Buffer, string][] = [
    [changed(124, '77777777777'), 'ERR_TAR_PAX'],
    [changed(124, '9'), 'ERR_TAR_PAX'],
    [changed(512, '99'), 'ERR_TAR_PAX'],
    [changed(512, '00'), 'ERR_TAR_PAX'],
    [changed(514, 'size=-\n'), 'ERR_TAR_PAX'],
    [changed(514, 'size=9\n'), 'ok'],
    [changed(1024 + 156, '5'), 'ERR_TAR_HEADER'],
    [changed(1024 + 257, 'xxtar'), 'ERR_TAR_HEADER'],
  ];
  for (const [blob, code] of cases) {
    if (code === 'ok') assert.deepStrictEqual(peel(blob), { offset: 1536, length: 9 });
    else
      assert.throws(
        () => peel(blob),
        (error) => codeOf(error) === code,
        code,
      );
  }
  assert.throws(
    () => peel(tar, 1540),
    (error) => codeOf(error) === 'ERR_TAR_SIZE',
  );
});

test('a tar that was not finished is none', async () => {
  const sink = new MemorySink();
  await new TarWrapperSink(sink).write(Buffer.from('payload'));
  assert.strictEqual(peel(sink.bytes), null);
});
