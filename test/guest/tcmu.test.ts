import { cpSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { packageRoot } from '../../src/base/package-root.ts';
import { serveRegistry } from '../support/cli.ts';
import { Scratch } from '../support/scratch.ts';
import { makeTestImage, type TestImage } from '../support/test-image.ts';
import { inGuest, runGuestJob } from './guest.ts';

// Goal: an image is a disk through a real kernel's TCMU, with all that can happen to it.
// Method: jobs (test/guest/jobs) in guests that see this machine's files; each says at its top what
// it does and what it compares.

const MODULES = ['target_core_user', 'tcm_loop', 'sd_mod', 'ext4'];
/** Each of its devices has a ring of 8 MiB in the kernel. */
const MANY_MEMORY_MIB = 3072;
/** What is done at the same moment is, where races are what a job is about. */
const TWO_PROCESSORS = ['-smp', '2'];
const fixture = new Scratch();
const registryFolder = fixture.path('registry');
const rootfs = ['undici', 'pino'].map((name) => fixture.path(`rootfs-${name}`));
let image: TestImage;

before(async () => {
  for (const folder of rootfs) {
    const name = folder.slice(folder.lastIndexOf('-') + 1);
    cpSync(join(packageRoot, 'node_modules', name), join(folder, name), {
      recursive: true,
    });
  }
  image = await makeTestImage(fixture, await serveRegistry(fixture, registryFolder), rootfs, 32);
});
after(() => fixture.close());

test('an image from a registry is recorded and replayed', inGuest(), async () => {
  await runGuestJob({
    name: 'tcmu-read-only',
    modules: MODULES,
    args: [registryFolder, image.sha256, ...rootfs],
  });
});

test('a disk is formatted, written, trimmed and snapshot', inGuest('fio'), async () => {
  await runGuestJob({ name: 'tcmu-read-write', modules: MODULES, args: [image.config] });
});

test('a disk grows under a mounted file system', inGuest('fio'), async () => {
  await runGuestJob({ name: 'tcmu-resize', modules: MODULES, args: [image.config] });
});

test('a killed process is replaced without an I/O error', inGuest('fio'), async () => {
  await runGuestJob({
    name: 'tcmu-crash',
    modules: MODULES,
    args: [image.config],
    qemu: TWO_PROCESSORS,
  });
});

test("a snapshotter's devices are served by the daemon", inGuest(), async () => {
  await runGuestJob({
    name: 'tcmu-snapshotter',
    modules: MODULES,
    args: [image.config, image.raw, ...rootfs],
  });
});

test('nobody hangs for what goes wrong with a device', inGuest(), async () => {
  await runGuestJob({ name: 'tcmu-faults', modules: MODULES, args: [image.config, image.raw] });
});

test('fifty devices are attached at once', inGuest(), async () => {
  await runGuestJob({
    name: 'tcmu-many',
    modules: MODULES,
    args: [image.config, image.raw, rootfs[1]],
    memoryMiB: MANY_MEMORY_MIB,
    qemu: TWO_PROCESSORS,
  });
});
