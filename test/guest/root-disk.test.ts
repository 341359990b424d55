import assert from 'node:assert/strict';
import { chmodSync, cpSync, mkdirSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { composeImage, tarOf, writeLayout } from '../image/convert-images.ts';
import { Attached } from '../support/attached.ts';
import { cliOutput, serveRegistry } from '../support/cli.ts';
import { output } from '../support/programs.ts';
import { scratchOf, type Scratch } from '../support/scratch.ts';
import { inGuest, runRootDiskGuest } from './guest.ts';
import type { GuestConsole } from './qemu.ts';
import { diskFlags, MEMORY_MIB } from './vhost-user-flags.ts';

// Goal: a machine starts from a container image: its root disk is a converted image behind a vhost-user
// socket, with no kernel device on the host, and what is written there is there the next time.
// Method: an OCI image of two layers (busybox; its configuration) goes through `replaybd convert` to a
// registry. A guest with nothing but that disk boots to its login program twice; a user at its console logs
// in, looks around, writes and turns it off. The first boot is recorded, the second replayed.

const PASSWORD = 'of a test';
const APPLETS = 'awk cat echo getty grep id init login ls mount poweroff sh sync umount'.split(' ');

/** Prompts are answered as a person would: by what has been printed. */
async function logIn(console: GuestConsole): Promise<void> {
  await console.until('converted login: ');
  console.type('root');
  await console.until('Password: ');
  console.type(PASSWORD);
  await console.until('# ');
}

/** The answer of a command that is typed; its echo is told from it by the quotes. */
async function answer(console: GuestConsole, command: string): Promise<string> {
  console.type(`${command}; echo "en""d of answer"`);
  await console.until('d of answer"\n');
  const text = await console.until('end of answer');
  // What is typed before the shell asks for it is echoed twice.
  await console.until('# ');
  return text;
}

async function makeRoot(scratch: Scratch): Promise<Buffer[]> {
  const programs = scratch.path('programs');
  for (const folder of ['bin', 'sbin', 'dev', 'proc', 'sys', 'tmp', 'root']) {
    mkdirSync(join(programs, folder), { recursive: true });
  }
  cpSync('/bin/busybox', join(programs, 'bin/busybox'));
  for (const name of APPLETS) symlinkSync('busybox', join(programs, 'bin', name));
  symlinkSync('../bin/busybox', join(programs, 'sbin/init'));
  const settings = scratch.path('settings');
  mkdirSync(join(settings, 'etc'), { recursive: true });
  const hash = (await output('openssl', 'passwd', '-6', PASSWORD)).trim();
  const files = {
    passwd: `root:${hash}:0:0:root:/root:/bin/sh\n`,
    group: 'root:x:0:\n',
    rc: '#!/bin/sh\nmount -t proc proc /proc\necho converted > /proc/sys/kernel/hostname\n',
    inittab:
      '::sysinit:/etc/rc\nttyS0::respawn:/bin/getty -L 115200 ttyS0 vt100\n' +
      '::shutdown:/bin/umount -a -r\n',
  };
  for (const [name, text] of Object.entries(files))
    writeFileSync(join(settings, 'etc', name), text);
  chmodSync(join(settings, 'etc/rc'), 0o755);
  return [programs, settings].map((folder) => tarOf(folder, '--owner=0', '--group=0'));
}

test('a guest boots to a login program from a converted image', inGuest('openssl'), async (t) => {
  const scratch = scratchOf(t);
  const url = await serveRegistry(scratch, scratch.path('registry'));
  const layout = scratch.path('source');
  mkdirSync(layout);
  writeLayout(layout, composeImage(await makeRoot(scratch)));
  const image = `${url}/root/busybox:v1`;
  await cliOutput(scratch, ['convert', `oci:${layout}`, image, '--vsize', '1']);
  const socket = scratch.path('vhost');
  for (const [expected, files] of [
    ['record', ''],
    ['replay', 'kept'],
  ]) {
    const attached = await Attached.start(scratch, [
      ...[image, '--frontend', 'vhost-user', '--guest-socket', socket],
      ...['--upper', scratch.path('upper'), '--trace-dir', scratch.path('traces')],
      ...['--cache', scratch.path(`cache-${expected}`)],
    ]);
    assert.equal(attached.ready.mode, expected);
    await runRootDiskGuest({
      memoryMiB: MEMORY_MIB,
      qemu: diskFlags(socket),
      user: async (console) => {
        await logIn(console);
        assert.match(await answer(console, 'grep " / " /proc/mounts'), /^\/dev\/vda \/ ext4 rw,/m);
        assert.match(await answer(console, 'id'), /^uid=0\(root\) gid=0\(root\)/m);
        assert.equal((await answer(console, 'ls /root')).trim(), files);
        await answer(console, 'echo kept > /root/kept');
        console.type('poweroff');
        await console.until('Power down');
      },
    });
    const { quality, trace, upper } = await attached.detach();
    assert.equal(quality.missErrors, 0);
    assert.ok(upper !== null && upper.writes > 0 && upper.flushes > 0);
    if (expected === 'record') assert.ok(trace !== null && trace.records > 0);
    else assert.ok((quality.coverage ?? 0) > 0.9, JSON.stringify(quality));
  }
});
