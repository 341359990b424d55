import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { daemonLimits } from '../../src/base/limits.ts';
import { KERNEL_PARTS } from '../../src/daemon/doctor/kernel-modules.ts';
import { needs } from '../support/needs.ts';
import { scratchOf } from '../support/scratch.ts';

// Goal: the systemd unit is one that systemd accepts, keeps the promises of the daemon, and leaves
// the service in the host's mount namespace, where its mounts must appear.
// Method: systemd-analyze, and the directives themselves.

const unit = readFileSync(
  fileURLToPath(new URL('../../docs/replaybd.service', import.meta.url)),
  'utf8',
);
const directives = unit.split('\n').flatMap((line) => {
  const [, key, value] = /^(\w+)=(.*)$/.exec(line) ?? [];
  return key === undefined ? [] : [[key, value] as const];
});
const valueOf = (key: string) => directives.find(([name]) => name === key)?.[1];

test('systemd accepts the unit', { skip: needs('systemd-analyze') }, (t) => {
  const scratch = scratchOf(t);
  const path = scratch.path('replaybd.service');
  // What is not installed here would be a mistake of this machine, not of the unit.
  writeFileSync(
    path,
    unit.replaceAll(/\/usr\/local\/bin\/replaybd|\/sbin\/modprobe/g, '/bin/true'),
  );
  const args = ['--man=no', 'verify', path];
  const said = execFileSync('systemd-analyze', args, { encoding: 'utf8', stdio: 'pipe' });
  assert.equal(said, '');
});

test('the service tells when it is ready and lives, comes back, and goes last', () => {
  assert.equal(valueOf('Type'), 'notify');
  assert.equal(valueOf('NotifyAccess'), 'main');
  assert.match(valueOf('WatchdogSec') ?? '', /^\d+s$/);
  const { adoptMsMax, adoptMarginMs } = daemonLimits;
  const startSeconds = Number.parseInt(valueOf('TimeoutStartSec') ?? '', 10);
  assert.ok(startSeconds * 1000 >= adoptMsMax + adoptMarginMs, 'it may wait for its devices');
  assert.equal(valueOf('Restart'), 'always');
  assert.equal(valueOf('OOMScoreAdjust'), '-999');
  assert.match(valueOf('ExecReload') ?? '', /-HUP \$MAINPID$/);
  const modules = (valueOf('ExecStartPre') ?? '').split(' ').slice(2);
  const needed = KERNEL_PARTS.filter(({ serves }) => serves.startsWith('--frontend'));
  assert.deepEqual(modules.sort(), needed.map(({ module }) => module).sort());
  assert.match(valueOf('ExecStart') ?? '', /replaybd daemon$/);
  assert.equal(valueOf('Conflicts'), 'overlaybd-tcmu.service');
});

test('nothing gives the service a mount namespace, nor forbids what it does', () => {
  const secluding =
    /^(Private(Tmp|Devices|Mounts|Users)|Protect(System|Home|Kernel\w+|ControlGroups|Proc|Clock|Hostname)|ProcSubset|MountFlags|MountAPIVFS|Root\w+|Bind\w+Paths|(ReadWrite|ReadOnly|Inaccessible|Exec|NoExec)Paths|TemporaryFileSystem|DynamicUser|DevicePolicy|DeviceAllow|MemoryDenyWriteExecute)$/;
  const found = directives.map(([key]) => key).filter((key) => secluding.test(key));
  assert.deepEqual(found, []);
  const capabilities = (valueOf('CapabilityBoundingSet') ?? '').split(' ');
  for (const needed of ['CAP_SYS_ADMIN', 'CAP_NET_ADMIN', 'CAP_DAC_OVERRIDE']) {
    assert.ok(capabilities.includes(needed), needed);
  }
  const families = (valueOf('RestrictAddressFamilies') ?? '').split(' ');
  for (const family of ['AF_UNIX', 'AF_INET', 'AF_INET6', 'AF_NETLINK']) {
    assert.ok(families.includes(family), family);
  }
  assert.ok(!(valueOf('SystemCallFilter') ?? '').includes('@mount'));
});
