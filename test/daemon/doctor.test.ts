import assert from 'node:assert/strict';
import { mkdirSync, readdirSync, writeFileSync } from 'node:fs';
import { gzipSync } from 'node:zlib';
import { test } from 'node:test';
import {
  checkFrontEnds,
  checkOriginalDaemon,
  type FrontEndName,
} from '../../src/daemon/doctor/check-front-ends.ts';
import { checkCache } from '../../src/daemon/doctor/check-cache.ts';
import { checkHost, checkLibraries, checkPrograms } from '../../src/daemon/doctor/check-host.ts';
import { checkCertificate, checkCredentials } from '../../src/daemon/doctor/check-registry.ts';
import { examine } from '../../src/daemon/doctor/doctor.ts';
import type { Finding } from '../../src/daemon/doctor/finding.ts';
import { KERNEL_PARTS, partState } from '../../src/daemon/doctor/kernel-modules.ts';
import {
  systemView,
  type AccessState,
  type SystemView,
} from '../../src/daemon/doctor/system-view.ts';
import { parseServiceConfig } from '../../src/daemon/service-config.ts';
import { scratchOf } from '../support/scratch.ts';

// Goal: for each thing that may be missing the doctor tells the right level, and what is not well
// comes with a consequence and something to do; what is needed decides the verdict.
// Method: a machine that has everything, with one thing taken away at a time; then this machine.

const CONFIGFS = '/sys/kernel/config';

interface Machine extends Partial<SystemView> {
  files?: Record<string, string>;
  accesses?: Record<string, AccessState>;
}

/** A host that lacks nothing but what is said. */
function machine({ files = {}, accesses = {}, ...rest }: Machine = {}): SystemView {
  const all: Record<string, string> = {
    '/proc/mounts': `configfs ${CONFIGFS} configfs rw 0 0\n`,
    '/proc/self/status': 'Name:\tnode\nCapEff:\t000001ffffffffff\n',
    '/proc/self/limits': 'Max open files            1048576              1048576         files\n',
    ...files,
  };
  return {
    platform: 'linux',
    endianness: 'LE',
    kernelRelease: '6.1.0',
    nodeVersion: '24.1.0',
    effectiveUid: 0,
    readText: (path) => all[path] ?? null,
    access: (path) => accesses[path] ?? 'ok',
    mode: () => 0o600,
    loadLibrary: () => null,
    nativeCodecs: () => new Set(['raw', 'lz4', 'zstd']),
    findProgram: (name) => `/usr/bin/${name}`,
    freeBytes: () => 2 ** 40,
    probeFileSystem: () => ({ sparse: null, mapping: null }),
    processNames: () => new Set(['systemd']),
    ...rest,
  };
}

/** `name level` of all that is not well; each must say what follows, and what to do. */
function complaints(findings: readonly Finding[]): string[] {
  return findings.flatMap(({ name, level, found, meaning, fix }) => {
    assert.notEqual(found, '');
    assert.equal(meaning === '', level === 'ok', `${name}: a meaning`);
    assert.equal(fix === '', level === 'ok', `${name}: a fix`);
    return level === 'ok' ? [] : [`${name} ${level}`];
  });
}

const withoutModule = (name: string): Machine => ({
  accesses: { [`/sys/module/${name}`]: 'missing' },
  files: { '/proc/config.gz': '# nothing\n' },
});

test('a host that has everything has no complaints', () => {
  const system = machine();
  for (const findings of [
    checkHost(system),
    checkFrontEnds(system, []),
    checkFrontEnds(system, ['fuse', 'tcmu']),
    checkLibraries(system),
    checkPrograms(system),
    checkCache(system, '/var/cache/replaybd', 2 ** 32),
  ]) {
    assert.deepEqual(complaints(findings), []);
  }
});

test('host: platform, Node and open files', () => {
  const cases: [Machine, string[]][] = [
    [{ platform: 'darwin' }, ['platform problem']],
    [{ endianness: 'BE' }, ['platform problem']],
    [
      { files: { '/proc/self/limits': 'Max open files   1024   4096  files' } },
      ['open-files warning'],
    ],
    [{ files: { '/proc/self/limits': 'Max open files   unlimited   x  files' } }, []],
    [{ files: { '/proc/self/limits': '' } }, []],
  ];
  for (const [lack, expected] of cases) {
    assert.deepEqual(complaints(checkHost(machine(lack))), expected);
  }
});

test('a front end that lacks something is a warning, or a problem when it is wanted', () => {
  const lacks: [Machine, FrontEndName, string][] = [
    [withoutModule('fuse'), 'fuse', 'module.fuse'],
    [withoutModule('loop'), 'fuse', 'module.loop'],
    [{ accesses: { '/dev/fuse': 'missing' } }, 'fuse', 'device./dev/fuse'],
    [{ accesses: { '/dev/loop-control': 'denied' } }, 'fuse', 'device./dev/loop-control'],
    [withoutModule('target_core_user'), 'tcmu', 'module.target_core_user'],
    [withoutModule('tcm_loop'), 'tcmu', 'module.tcm_loop'],
    [withoutModule('sd_mod'), 'tcmu', 'module.sd_mod'],
    [{ files: { '/proc/mounts': 'none / ext4 rw 0 0' } }, 'tcmu', 'configfs'],
    [{ accesses: { [CONFIGFS]: 'denied' } }, 'tcmu', 'configfs'],
  ];
  for (const [lack, frontEnd, name] of lacks) {
    const system = machine(lack);
    assert.deepEqual(complaints(checkFrontEnds(system, [])), [`${name} warning`]);
    assert.deepEqual(complaints(checkFrontEnds(system, [frontEnd])), [`${name} problem`]);
    assert.deepEqual(complaints(checkFrontEnds(system, ['nbd'])), [`${name} warning`]);
  }
});

test('without rights neither front end works, which is a problem', () => {
  const system = machine({
    effectiveUid: 1000,
    files: { '/proc/self/status': 'CapEff:\t0000000000000000\n' },
  });
  assert.deepEqual(complaints(checkFrontEnds(system, [])), [
    'permission.CAP_SYS_ADMIN warning',
    'permission.CAP_NET_ADMIN warning',
    'front-ends problem',
  ]);
  assert.deepEqual(complaints(checkFrontEnds(system, ['fuse'])), [
    'permission.CAP_SYS_ADMIN problem',
    'permission.CAP_NET_ADMIN warning',
  ]);
});

test('file systems of images, and the original daemon, are warnings only', () => {
  assert.deepEqual(complaints(checkFrontEnds(machine(withoutModule('erofs')), [])), [
    'module.erofs warning',
  ]);
  const busy = machine({ processNames: () => new Set(['overlaybd-tcmu']) });
  assert.deepEqual(complaints([checkOriginalDaemon(busy)]), ['overlaybd-tcmu warning']);
});

test('a part of the kernel is found wherever the kernel tells of it', () => {
  const part = KERNEL_PARTS.find(({ module }) => module === 'tcm_loop');
  const erofs = KERNEL_PARTS.find(({ module }) => module === 'erofs');
  assert.ok(part !== undefined && erofs !== undefined);
  const accesses: Record<string, AccessState> = {
    '/sys/module/tcm_loop': 'missing',
    '/sys/module/erofs': 'missing',
  };
  const state = (files: Record<string, string>, which = part) =>
    partState(machine({ accesses, files }), which);
  const dep = '/lib/modules/6.1.0/modules.dep';
  const builtIn = '/lib/modules/6.1.0/modules.builtin';
  assert.equal(state({}), 'unknown');
  assert.equal(state({ [dep]: 'kernel/drivers/target/loopback/tcm_loop.ko.xz: a.ko' }), 'loadable');
  assert.equal(state({ [dep]: 'kernel/x/tcm-loop.ko:' }), 'loadable');
  assert.equal(state({ [dep]: 'kernel/x/other_tcm_loop.ko:' }), 'absent');
  assert.equal(state({ [builtIn]: 'kernel/drivers/target/loopback/tcm_loop.ko' }), 'ready');
  assert.equal(state({ '/proc/config.gz': 'CONFIG_LOOPBACK_TARGET=y\n' }), 'ready');
  assert.equal(state({ '/boot/config-6.1.0': 'CONFIG_LOOPBACK_TARGET=m\n' }), 'absent');
  assert.equal(state({ '/proc/config.gz': '# CONFIG_LOOPBACK_TARGET is not set\n' }), 'absent');
  assert.equal(state({ '/proc/filesystems': 'nodev\tfuse\n\terofs\n' }, erofs), 'ready');
  assert.equal(state({ '/proc/filesystems': '\terofs2\n' }, erofs), 'unknown');
});

test('libraries, kernels and programs have stand-ins: warnings', () => {
  const file = (name: string) => machine({ loadLibrary: (one) => (one === name ? 'no' : null) });
  for (const name of ['liblz4.so.1', 'libzstd.so.1', 'libext2fs.so.2', 'libcom_err.so.2']) {
    assert.deepEqual(complaints(checkLibraries(file(name))), [`library.${name} warning`]);
  }
  const kernels = [null, new Set(['raw', 'lz4']), new Set(['raw'])];
  for (const codecs of kernels) {
    const system = machine({ nativeCodecs: () => codecs });
    assert.deepEqual(complaints(checkLibraries(system)), ['kernels warning']);
  }
  const bare = machine({ findProgram: () => null });
  const programs = ['mke2fs', 'e2fsck', 'resize2fs', 'qemu-img'];
  assert.deepEqual(
    complaints(checkPrograms(bare)),
    programs.map((name) => `program.${name} warning`),
  );
});

test('cache: folder, room and file system', () => {
  const folder = '/data/cache';
  const cases: [Machine, string[]][] = [
    [{ accesses: { [folder]: 'denied' } }, ['cache.folder problem']],
    [{ accesses: { [folder]: 'missing' } }, []],
    [{ accesses: { [folder]: 'missing', '/data': 'denied' } }, ['cache.folder problem']],
    [{ freeBytes: () => 2 ** 31 }, ['cache.space warning']],
    [{ freeBytes: () => 2 ** 20 }, ['cache.space problem']],
    [{ freeBytes: () => null }, ['cache.space warning']],
    [{ probeFileSystem: () => ({ sparse: 'no', mapping: null }) }, ['cache.holes problem']],
    [{ probeFileSystem: () => ({ sparse: null, mapping: 'no' }) }, ['cache.mapping problem']],
  ];
  for (const [lack, expected] of cases) {
    assert.deepEqual(complaints(checkCache(machine(lack), folder, 2 ** 32)), expected);
  }
});

test('credentials and certificates, as far as files go', () => {
  const config = parseServiceConfig('{"credentialFilePath": "/cred.json"}', 'file');
  const check = (lack: Machine) => complaints([checkCredentials(machine(lack), config)]);
  assert.deepEqual(check({}), []);
  assert.deepEqual(check({ accesses: { '/cred.json': 'missing' } }), ['credentials warning']);
  assert.deepEqual(check({ accesses: { '/cred.json': 'denied' } }), ['credentials problem']);
  assert.deepEqual(check({ mode: () => 0o644 }), ['credentials warning']);
  const server = parseServiceConfig('{"credentialConfig": {"mode": "uds", "path": "/s"}}', 'file');
  assert.deepEqual(complaints([checkCredentials(machine(), server)]), []);
  assert.deepEqual(complaints([checkCredentials(machine(), null)]), []);
  const tls = parseServiceConfig('{"certConfig": {"certFile": "/c", "keyFile": "/k"}}', 'file');
  const keyless = machine({ accesses: { '/k': 'missing' } });
  assert.deepEqual(complaints(checkCertificate(keyless, tls)), ['certificate problem']);
});

test('one problem makes the verdict; warnings do not', async () => {
  const diagnose = async (lack: Machine, text = '{}') =>
    await examine({
      config: { path: '/c.json', load: async () => parseServiceConfig(text, '/c.json') },
      frontEnds: [],
      cache: () => ({ folder: '/cache', quotaBytes: 1 }),
      system: machine(lack),
    });
  assert.equal((await diagnose({})).healthy, true);
  assert.equal((await diagnose({ findProgram: () => null })).healthy, true);
  assert.equal((await diagnose({ platform: 'darwin' })).healthy, false);
  const broken = await diagnose({}, '{"replaybd": {"quota": 1}}');
  assert.equal(broken.healthy, false);
  assert.deepEqual(complaints(broken.findings), ['config problem']);
  const unknown = await diagnose({}, '{"ioEngin": 1, "ioEngine": 1}');
  assert.deepEqual(complaints(unknown.findings), ['config warning']);
  const reason = unknown.findings.find(({ name }) => name === 'config.ioEngine')?.found;
  assert.equal(reason, 'has no effect: local files are mapped into memory');
});

test('this machine is seen as it is', (t) => {
  const scratch = scratchOf(t);
  writeFileSync(scratch.path('plain'), 'text');
  writeFileSync(scratch.path('packed.gz'), gzipSync('packed text'));
  assert.equal(systemView.readText(scratch.path('plain')), 'text');
  assert.equal(systemView.readText(scratch.path('packed.gz')), 'packed text');
  assert.equal(systemView.readText(scratch.path('none')), null);
  assert.match(systemView.readText('/proc/self/status') ?? '', /CapEff/);
  assert.equal(systemView.access(scratch.path('plain'), 'use'), 'ok');
  assert.equal(systemView.access(scratch.path('none'), 'use'), 'missing');
  assert.equal(systemView.access(scratch.path('plain', 'below'), 'use'), 'missing');
  assert.ok((systemView.mode(scratch.path('plain')) ?? 0) > 0);
  assert.equal(systemView.mode(scratch.path('none')), null);
  assert.equal(systemView.loadLibrary('libc.so.6'), null);
  assert.match(systemView.loadLibrary('libnone.so.9') ?? '', /cannot open/);
  assert.equal(systemView.findProgram('no-such-program'), null);
  assert.match(systemView.findProgram('sh') ?? '', /\/sh$/);
  assert.ok((systemView.freeBytes(scratch.folder) ?? 0) > 0);
  assert.equal(systemView.freeBytes(scratch.path('none')), null);
  assert.ok(systemView.processNames().size > 0);
});

test('the probe of a file system leaves nothing behind', (t) => {
  const scratch = scratchOf(t);
  mkdirSync(scratch.path('cache'));
  const { mapping } = systemView.probeFileSystem(scratch.path('cache'));
  assert.equal(mapping, null);
  assert.deepEqual(readdirSync(scratch.path('cache')), []);
  // procfs refuses new folders.
  const refused = systemView.probeFileSystem('/proc');
  assert.match(refused.sparse ?? '', /E[A-Z]+/);
  assert.equal(refused.mapping, refused.sparse);
});
