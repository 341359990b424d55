import assert from 'node:assert/strict';
import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdirSync, readdirSync, writeFileSync } from 'node:fs';
import { createServer, type AddressInfo } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { test } from 'node:test';
import {
  composeImage,
  tarOfFiles,
  writeDockerArchive,
  writeLayout,
} from '../image/convert-images.ts';
import { checkWithE2fsck, describeTree, mounted, noise } from '../image/ext4-tree.ts';
import { CliProcess, cli, cliJson, cliOutput, serveRegistry } from '../support/cli.ts';
import { needs } from '../support/needs.ts';
import { scratchOf, type Scratch } from '../support/scratch.ts';

// Goal: `replaybd convert` does what its help says between registries, layouts and archives, ends
// cleanly when it is told to, and survives being killed.
// Method: the tool as processes of its own; the embedded registry, and docker-registry filled by
// skopeo; results are exported, checked and compared with what umoci unpacks.

interface ConvertOutput {
  digest: string;
  mediaType: string;
  images: {
    platform: string;
    manifest: string;
    content?: { layers: unknown[] };
    layers: { digest: string; from: string; put: string; sizeBytes: number }[];
  }[];
  skipped: unknown[];
  seconds: number;
}

const tars = [
  tarOfFiles({ 'usr/bin/tool': noise('tool', 4_000_000), 'etc/a': 'a', 'etc/b': 'b' }),
  tarOfFiles({ 'etc/.wh.a': '', 'etc/c': 'c' }),
];
const SMALL = ['--vsize', '1'];

function sourceLayout(scratch: Scratch): string {
  const folder = scratch.path('source');
  mkdirSync(folder);
  writeLayout(folder, composeImage(tars));
  return folder;
}

test('a docker archive to a registry and on to a device', async (t) => {
  const scratch = scratchOf(t);
  const url = await serveRegistry(scratch, scratch.path('registry'));
  writeDockerArchive(scratch.path('app.tar'), tars, 'app:v1');
  const to = `${url}/obd/app:v1`;
  const args = ['convert', `docker-archive:${scratch.path('app.tar')}`, to];
  const dry = await cliJson<ConvertOutput>(scratch, [...args, ...SMALL, '--dry-run']);
  assert.equal(dry.images[0].content?.layers.length, 2);
  const failed = await cli(scratch, ['image', 'config', to]);
  assert.equal(failed.code, 1, 'a dry run pushes nothing');
  const { stdout, stderr } = await cli(scratch, [...args, ...SMALL]);
  assert.match(stdout, new RegExp(`^image ${dry.digest} linux/amd64`));
  assert.equal(stderr.split('\n').filter((line) => /layer \d\/2 sha256:/.test(line)).length, 2);
  const config = scratch.path('config.v1.json');
  await cliOutput(scratch, ['image', 'config', to, '-o', config]);
  await cliOutput(scratch, ['export', config, scratch.path('disk.raw')]);
  checkWithE2fsck(scratch.path('disk.raw'));
});

test('wrong usage and unusable images are told apart', async (t) => {
  const scratch = scratchOf(t);
  const source = `oci:${sourceLayout(scratch)}`;
  const target = `oci:${scratch.path('target')}`;
  mkdirSync(scratch.path('large'));
  writeLayout(scratch.path('large'), composeImage([tarOfFiles({ l: noise('large', 18_000_000) })]));
  const large = `oci:${scratch.path('large')}`;
  const expectations: [string[], number, RegExp][] = [
    [['convert', source], 2, /missing required argument/],
    [['convert', source, target, '--fstype', 'xfs'], 2, /ext4/],
    [['convert', source, target, '--platform', 'linux'], 2, /os\/architecture/],
    [['convert', source, target, '--platform', 'linux/arm64'], 1, /ERR_CONVERT_PLATFORM/],
    [['convert', source, target, '--no-mkfs', '--base-layer', '/nowhere'], 1, /ERR_BLOB_OPEN/],
    [['convert', source, 'docker-archive:x.tar'], 1, /ERR_CONVERT_NAME/],
    [['convert', 'oci:/nowhere', target], 1, /ERR_CONVERT_SOURCE/],
    [['convert', source, target, '--vsize', '0.01'], 1, /ERR_EXT4_SIZE/],
    [['convert', large, target, '--vsize', '0.016'], 1, /--vsize\. \(ERR_(EXT4_FULL|APPLY_SIZE)\)/],
    [['convert', source, target, '--bs', '5'], 1, /ERR_ZFILE_BLOCK_SIZE/],
  ];
  for (const [args, code, message] of expectations) {
    const ended = await cli(scratch, args);
    assert.match(ended.stderr, message, args.join(' '));
    assert.equal(ended.code, code, args.join(' '));
  }
  assert.deepEqual(
    existsSync(scratch.path('target')) ? readdirSync(scratch.path('target')) : [],
    [],
  );
});

test('Ctrl-C and kill -9 leave a cache to use', { skip: needs('skopeo') }, async (t) => {
  const scratch = scratchOf(t);
  const url = await serveRegistry(scratch, scratch.path('registry'), '--rate', '10000000');
  const big = [tars[1], tars[0], tarOfFiles({ big: noise('big', 20_000_000) })];
  const folder = scratch.path('source');
  mkdirSync(folder);
  writeLayout(folder, composeImage(big));
  execFileSync('skopeo', [
    'copy',
    '--dest-tls-verify=false',
    `oci:${folder}:latest`,
    `docker://${url.slice(7)}/source:v1`,
  ]);
  const cache = scratch.path('cache');
  const args = ['convert', `${url}/source:v1`, `${url}/obd:v1`, '--cache', cache, ...SMALL];
  const interrupted = new CliProcess(scratch, args);
  await interrupted.untilSaid('layer 2/3');
  interrupted.kill('SIGINT');
  assert.equal((await interrupted.ended).code, 130);
  assert.deepEqual(readdirSync(`${cache}/runs`), []);
  const killed = new CliProcess(scratch, args);
  await killed.untilSaid('layer 2/3');
  killed.kill('SIGKILL');
  await killed.ended;
  const result = await cliJson<ConvertOutput>(scratch, args);
  assert.deepEqual(
    result.images[0].layers.map(({ from }) => from),
    ['cache', 'cache', 'converted'],
  );
  assert.deepEqual(readdirSync(`${cache}/runs`), []);
});

const skip = needs('root', 'docker-registry', 'skopeo', 'umoci');

test('docker-registry, filled by skopeo, from and to', { skip }, async (t) => {
  const scratch = scratchOf(t);
  const source = sourceLayout(scratch);
  const host = await startDockerRegistry(scratch);
  const name = `${host}/team/app:v1`;
  execFileSync('skopeo', [
    ...['copy', '--format', 'v2s2', '--dest-tls-verify=false'],
    ...[`oci:${source}:latest`, `docker://${name}`],
  ]);
  const flags = ['--plain-http', host];
  const to = `${host}/team/obd:v1`;
  const result = await cliJson<ConvertOutput>(scratch, ['convert', name, to, ...SMALL, ...flags]);
  assert.equal(result.mediaType, 'application/vnd.docker.distribution.manifest.v2+json');
  const again = await cliJson<ConvertOutput>(scratch, ['convert', name, to, ...SMALL, ...flags]);
  assert.equal(again.digest, result.digest);
  assert.deepEqual(
    again.images[0].layers.map(({ put }) => put),
    ['present', 'present'],
  );
  const copied = scratch.path('copied');
  execFileSync('skopeo', ['copy', '--src-tls-verify=false', `docker://${to}`, `dir:${copied}`]);
  const layers = result.images[0].layers.map(({ digest }) => `${copied}/${digest.slice(7)}`);
  const raw = scratch.path('disk.raw');
  await cliOutput(scratch, ['export', ...layers, raw]);
  const unpacked = scratch.path('unpacked');
  execFileSync('umoci', ['raw', 'unpack', '--image', `${source}:latest`, unpacked], {
    stdio: 'ignore',
  });
  const inner = (lines: string[]) => lines.filter((line) => line.startsWith('/'));
  assert.deepEqual(inner(mounted(raw, describeTree)), inner(describeTree(unpacked)));
});

async function startDockerRegistry(scratch: Scratch): Promise<string> {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const host = `127.0.0.1:${(server.address() as AddressInfo).port}`;
  server.close();
  await once(server, 'close');
  const config = {
    version: 0.1,
    log: { level: 'error' },
    storage: { filesystem: { rootdirectory: scratch.path('content') } },
    http: { addr: host },
  };
  writeFileSync(scratch.path('config.yml'), JSON.stringify(config));
  const registry = spawn('docker-registry', ['serve', scratch.path('config.yml')], {
    stdio: 'ignore',
  });
  const ended = once(registry, 'exit');
  scratch.atEnd(async () => {
    registry.kill('SIGKILL');
    await ended;
  });
  for (let attempt = 0; attempt < 100; attempt += 1) {
    const isUp = await fetch(`http://${host}/v2/`).then(
      ({ ok }) => ok,
      () => false,
    );
    if (isUp) break;
    await sleep(50);
  }
  return host;
}
