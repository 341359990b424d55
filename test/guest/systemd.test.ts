import { after, before, test } from 'node:test';
import { serveRegistry } from '../support/cli.ts';
import { Scratch } from '../support/scratch.ts';
import { makeRootfs, makeTestImage, type TestImage } from '../support/test-image.ts';
import { inGuest, runGuestJob } from './guest.ts';

// Goal: the systemd unit does what it says under systemd itself: ready when it serves, watched, limited,
// and what it mounts is there for everyone. Method: a guest whose PID 1 is this machine's systemd.

const fixture = new Scratch();
let image: TestImage;
let rootfs: string[];

before(async () => {
  rootfs = makeRootfs(fixture);
  image = await makeTestImage(
    fixture,
    await serveRegistry(fixture, fixture.path('registry')),
    rootfs,
  );
});
after(() => fixture.close());

test('the unit is started, reloaded, watched and stopped', inGuest('systemctl'), async () => {
  await runGuestJob({
    name: 'systemd-service',
    modules: ['sd_mod', 'ext4'],
    args: [image.config, ...rootfs],
    isService: true,
  });
});
