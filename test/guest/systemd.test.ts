import { cpSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { packageRoot } from '../../src/base/package-root.ts';
import { serveRegistry } from '../support/cli.ts';
import { Scratch } from '../support/scratch.ts';
import { makeTestImage, type TestImage } from '../support/test-image.ts';
import { inGuest, runGuestJob } from './guest.ts';

// Goal: the systemd unit does what it says under systemd itself: ready when it serves, watched, limited,
// and what it mounts is there for everyone. Method: a guest whose PID 1 is this machine's systemd.

const fixture = new Scratch();
const rootfs = fixture.path('rootfs');
let image: TestImage;

before(async () => {
  cpSync(join(packageRoot, 'node_modules/pino'), join(rootfs, 'pino'), { recursive: true });
  const url = await serveRegistry(fixture, fixture.path('registry'));
  image = await makeTestImage(fixture, url, [rootfs], 32);
});
after(() => fixture.close());

test('the unit is started, reloaded, watched and stopped', inGuest('systemctl'), async () => {
  await runGuestJob({
    name: 'systemd-service',
    // Those that the unit loads are its own to find.
    modules: ['ext4'],
    args: [image.config, rootfs],
    isService: true,
  });
});
