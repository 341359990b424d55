import { after, before, test } from 'node:test';
import { serveRegistry } from '../support/cli.ts';
import { Scratch } from '../support/scratch.ts';
import { makeTestImage, type TestImage } from '../support/test-image.ts';
import { inGuest, runGuestJob } from './guest.ts';

// Goal: the SCSI disk is what the standards say, as far as two independent sets of tools can tell.
// Method: jobs in guests (see there): sg3-utils on the kernel's SCSI disk, and libiscsi's tests through the
// kernel's iSCSI target; REPLAYBD_TEST_SCSI=all runs all of these, in three parts.

/** crc32c is for iSCSI; the kernel would load it by itself if it was at home. */
const ISCSI_MODULES = ['crc32c_generic', 'target_core_user', 'iscsi_target_mod'];
/** A suite of each command, in its longest form; all of them take half an hour of emulated processor time. */
const CHOSEN = {
  'one form of each command':
    '^(Read16|Write16|WriteSame16|Verify16|WriteVerify16|CompareAndWrite|Unmap|GetLBAStatus|' +
    'Inquiry|Mandatory|ModeSense6|ReadCapacity|ReportSupportedOpcodes|TestUnitReady|iSCSI)',
};
const ALL = {
  'reads and verifications': '^(Read|Verify)[0-9]',
  writes: '^Write',
  'everything else': '^(?!Write|(Read|Verify)[0-9])',
};
const SUITES: Record<string, string> = process.env.REPLAYBD_TEST_SCSI === 'all' ? ALL : CHOSEN;
const fixture = new Scratch();
let image: TestImage;

before(async () => {
  image = await makeTestImage(fixture, await serveRegistry(fixture, fixture.path('registry')));
});
after(() => fixture.close());

test('sg3-utils get the answers that are documented', inGuest('sg_inq', 'sgp_dd'), async () => {
  await runGuestJob({
    name: 'tcmu-sg3',
    modules: ['target_core_user', 'tcm_loop', 'sd_mod', 'sg'],
    args: [image.config],
  });
});

for (const [name, suites] of Object.entries(SUITES)) {
  test(
    `libiscsi's tests of ${name} fail only where it is known`,
    inGuest('iscsi-test-cu'),
    async (t) => {
      const printed = await runGuestJob({
        name: 'tcmu-iscsi',
        modules: ISCSI_MODULES,
        args: [image.config, suites],
      });
      t.diagnostic(/\d+ ran, .*skipped/.exec(printed)?.[0] ?? '');
    },
  );
}
