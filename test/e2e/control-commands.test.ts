import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { after, before, test } from 'node:test';
import type { AttachmentReport } from '../../src/daemon/attachment.ts';
import { NbdReader } from '../../src/demo/nbd-client.ts';
import { Attached } from '../support/attached.ts';
import { cli, cliJson, cliOutput, serveRegistry, type CliOptions } from '../support/cli.ts';
import { Scratch, scratchOf } from '../support/scratch.ts';
import { makeTestImage, type TestImage } from '../support/test-image.ts';
import { unprivileged } from '../support/unprivileged.ts';

// Goal: `stats`, `record-stop` and `detach` find an attached device and do what they say.
// Method: devices of `attach --frontend nbd`, of a user with a runtime directory to himself.

const fixture = new Scratch();
let image: TestImage;

before(async () => {
  image = await makeTestImage(fixture, await serveRegistry(fixture, fixture.path('registry')));
});
after(() => fixture.close());

interface User {
  options: CliOptions;
  folder: string;
}

async function attach(scratch: Scratch, user: User, id: string): Promise<Attached> {
  const folders = ['--cache', 'none', '--trace-dir', `${user.folder}/traces`];
  const frontend = ['--frontend', 'nbd', '--nbd-socket', `${user.folder}/${id}.nbd`];
  const args = [image.reference, '--id', id, ...frontend, ...folders, '--mode', 'record'];
  return await Attached.start(scratch, args, user.options);
}

test('the only device is watched, stopped recording, and detached', async (t) => {
  const scratch = scratchOf(t);
  const user = unprivileged(scratch);
  const { options, folder } = user;
  const crashed = await attach(scratch, user, 'crashed');
  await crashed.crash();
  assert.ok(existsSync(crashed.ready.control), 'a killed process leaves its socket');
  const attached = await attach(scratch, user, 'disk');
  assert.ok(!existsSync(crashed.ready.control), 'and the next one removes it');
  const reader = await NbdReader.connect(`${folder}/disk.nbd`);
  await reader.read(0, 2 ** 18);
  await reader.close();

  const stats = await cliJson<AttachmentReport & { pid: number }>(scratch, ['stats'], options);
  assert.equal(stats.pid, attached.process.pid);
  assert.equal(stats.image, image.reference);
  assert.ok(stats.quality.hits + stats.quality.misses > 0);
  const socket = ['--socket', attached.ready.control];
  const text = await cliOutput(scratch, ['stats', ...socket], options);
  assert.ok(text.includes(`disk (process ${stats.pid}): ${image.reference}\n`), text);
  assert.match(text, /^mode {9}record, ready in \d+ ms$/m);
  assert.match(text, /^cache {8}[\d.]+ [KM]iB of 4 GiB$/m);

  const stop = ['record-stop', '--id', 'disk'];
  const stopped = await cliJson<{ records: number }>(scratch, stop, options);
  assert.ok(stopped.records > 0);
  assert.match(await cliOutput(scratch, ['detach'], options), /^disk is detached$/);
  const report = await attached.report();
  assert.equal(report.trace?.records, stopped.records);
});

test('none, several and unknown devices are told apart', async (t) => {
  const scratch = scratchOf(t);
  const user = unprivileged(scratch);
  const { options } = user;
  const refused = async (...words: string[]): Promise<string> => {
    const { code, stdout, stderr } = await cli(scratch, words, options);
    assert.equal(code, 1);
    assert.equal(stdout, '');
    return stderr;
  };
  assert.match(await refused('stats'), /found none.*\(ERR_CONTROL_UNREACHABLE\)/);
  const devices = [await attach(scratch, user, 'first'), await attach(scratch, user, 'second')];
  const several = await refused('detach');
  assert.match(several, /found those of first, second\..*\(ERR_CONTROL_AMBIGUOUS\)/);
  assert.match(await refused('detach', '--id', 'third'), /third\.sock.*ERR_CONTROL_UNREACHABLE/);
  const second = ['stats', '--id', 'second'];
  assert.equal((await cliJson<AttachmentReport>(scratch, second, options)).device, 'second');
  for (const device of devices) {
    await cliOutput(scratch, ['detach', '--socket', device.ready.control], options);
    await device.report();
  }
  const both = await cli(scratch, ['stats', '--id', 'first', '--socket', 'x'], options);
  assert.equal(both.code, 2);
});
