import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import { test } from 'node:test';
import type { Diagnosis } from '../../src/daemon/doctor/doctor.ts';
import { digestOf } from '../../src/registry/digest.ts';
import { startEmbeddedRegistry } from '../../src/registry/embedded/server.ts';
import { cli } from '../support/cli.ts';
import { scratchOf, type Scratch } from '../support/scratch.ts';

// Goal: `replaybd doctor` asks a real registry with the credentials of overlaybd.json, says which
// step fails and what to do, ends with 0 or 1, and never prints a password.
// Method: the embedded registry with a password, and credentials that are right, wrong or absent.

const PASSWORD = 'hunter2-very-secret';

/** An image of one blob behind a password; gives its reference, and a configuration for it. */
async function privateImage(scratch: Scratch) {
  const registry = await startEmbeddedRegistry({
    root: scratch.path('registry'),
    auth: { kind: 'basic', username: 'reader', password: PASSWORD },
  });
  scratch.atEnd(() => registry.close());
  const put = (text: string) => registry.store.putBlob('apps/web', Buffer.from(text));
  const describe = (mediaType: string, text: string) => {
    return { mediaType, digest: put(text), size: text.length };
  };
  const manifest = {
    schemaVersion: 2,
    mediaType: 'application/vnd.oci.image.manifest.v1+json',
    config: describe('application/vnd.oci.image.config.v1+json', '{}'),
    layers: [describe('application/vnd.oci.image.layer.v1.tar', 'layer bytes')],
  };
  const bytes = Buffer.from(JSON.stringify(manifest));
  const digest = digestOf(bytes);
  const stored = { digest, mediaType: manifest.mediaType, bytes };
  registry.store.putManifest('apps/web', stored, 'v1');
  const configure = (password: string): string => {
    const host = new URL(registry.url).host;
    const auths = { [host]: { username: 'reader', password } };
    writeFileSync(scratch.path('cred.json'), JSON.stringify({ auths }), { mode: 0o600 });
    const config = { credentialConfig: { mode: 'file', path: scratch.path('cred.json') } };
    writeFileSync(scratch.path('overlaybd.json'), JSON.stringify(config));
    return scratch.path('overlaybd.json');
  };
  return { reference: `${registry.url}/apps/web:v1`, configure };
}

async function doctor(scratch: Scratch, ...args: string[]) {
  // Front ends differ from machine to machine; this one needs nothing.
  const common = ['--cache', 'none', '--frontend', 'nbd'];
  const ended = await cli(scratch, ['doctor', '--json', ...common, ...args]);
  assert.ok(!`${ended.stdout}${ended.stderr}`.includes(PASSWORD), 'no password is printed');
  const diagnosis = JSON.parse(ended.stdout) as Diagnosis;
  assert.equal(ended.code, diagnosis.healthy ? 0 : 1);
  const asked = diagnosis.findings.filter(({ name }) => name.startsWith('registry.'));
  return asked.map(({ name, level, fix }) => `${name} ${level}${fix === '' ? '' : `: ${fix}`}`);
}

test('the registry of an image is asked, step by step', async (t) => {
  const scratch = scratchOf(t);
  const { reference, configure } = await privateImage(scratch);
  const right = configure(PASSWORD);
  assert.deepEqual(await doctor(scratch, '--config', right, '--registry', reference), [
    'registry.access ok',
    'registry.manifest ok',
    'registry.range ok',
  ]);
  const missing = await doctor(scratch, '--config', right, '--registry', `${reference}-none`);
  assert.equal(missing.length, 2);
  assert.match(missing[1], /^registry.manifest problem: check the name and the tag/);
  const wrong = configure(`${PASSWORD}-no`);
  const refused = await doctor(scratch, '--config', wrong, '--registry', reference);
  assert.match(refused.join(), /^registry.access problem: check the credentials/);
});

test('a registry that is away, and a name that is none', async (t) => {
  const scratch = scratchOf(t);
  const registry = await startEmbeddedRegistry({ root: scratch.path('registry') });
  const { url } = registry;
  await registry.close();
  const gone = await doctor(scratch, '--registry', `${url}/apps/web:v1`);
  assert.match(gone.join(), /^registry.access problem: check name, DNS, firewall and proxy/);
  const odd = await doctor(scratch, '--registry', 'UPPER CASE');
  assert.match(odd.join(), /^registry.access problem: write the image as host/);
});

test('a configuration that cannot be read is a problem with its key, not a crash', async (t) => {
  const scratch = scratchOf(t);
  writeFileSync(scratch.path('bad.json'), '{"p2pConfig": {"enable": "yes"}}');
  const args = ['doctor', '--cache', 'none', '--frontend', 'nbd'];
  const bad = await cli(scratch, [...args, '--config', scratch.path('bad.json')]);
  assert.equal(bad.code, 1);
  assert.match(bad.stdout, /PROBLEM +config: .*p2pConfig.enable: expected true or false/);
  assert.match(bad.stdout, /^ +do: correct .*bad\.json/m);
  const none = await cli(scratch, [...args, '--config', scratch.path('none.json')]);
  assert.equal(none.code, 1);
  assert.equal((await cli(scratch, ['doctor', '--frontend', 'floppy'])).code, 2);
});
