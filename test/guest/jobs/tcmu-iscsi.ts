import assert from 'node:assert/strict';
import { mkdirSync, symlinkSync, writeFileSync } from 'node:fs';
import { rmdir, unlink } from 'node:fs/promises';
import { cliOutput, CliProcess } from '../../support/cli.ts';
import { output, run } from '../../support/programs.ts';
import { enable, HBA, makeDevice } from './snapshotter.ts';
import { job, nothingIsLeft, step } from './support.ts';

// Arguments: a config.v1.json, and a regular expression of test suites. The kernel's iSCSI target exports a
// device that the daemon answers for, made by configfs alone and with a writable layer; libiscsi's conformance
// tests are its initiator. What fails has to be what is known to fail, no more and no less.

/** The reasons are in docs/tcmu.md. */
const KNOWN_FAILURES: readonly string[] = [
  'GetLBAStatus.UnmapSingle',
  'WriteSame16.Unmap',
  'iSCSIdatasn.iSCSIDataSnInvalid',
  'iSCSIResiduals.Read10Invalid',
  ...['Read', 'Write', 'WriteVerify'].flatMap((name) =>
    [10, 12, 16].map((bytes) => `iSCSIResiduals.${name}${bytes}Residuals`),
  ),
];
const IQN = 'iqn.2026-01.test.replaybd:disk';
const ISCSI = '/sys/kernel/config/target/iscsi';
const GROUP = `${ISCSI}/${IQN}/tpgt_1`;
const SETTINGS = { authentication: 0, generate_node_acls: 1, demo_mode_write_protect: 0 };
const [configPath = '', suites = ''] = process.argv.slice(2);

interface Outcome {
  test: string;
  hasPassed: boolean;
  isSkipped: boolean;
}

await job(async (scratch) => {
  const folders = ['--cache', scratch.path('cache'), '--trace-dir', scratch.path('traces')];
  const daemon = new CliProcess(scratch, ['daemon', ...folders]);
  await daemon.line();
  const upper = { data: scratch.path('upper.data'), index: scratch.path('upper.index') };
  await cliOutput(scratch, ['create', upper.data, upper.index, '1']);
  const device = makeDevice(scratch, configPath, 1, { upper });
  mkdirSync(HBA, { recursive: true });
  await enable(device);
  exportDevice(device.folder);
  const tests = await testsOf(new RegExp(suites));
  step(`${tests.length} tests`);
  // Named suites are run from the last to the first.
  const names = [...new Set(tests.map((test) => `ALL.${test.split('.')[0]}`))].reverse();
  const url = `iscsi://127.0.0.1/${IQN}/0`;
  const flags = ['--dataloss', '-v', `--test=${names.join()}`];
  const { stdout, stderr } = await run('iscsi-test-cu', ...flags, url);
  const outcomes = parse(stdout);
  const named = (choice: Outcome[]): string[] => choice.map(({ test }) => test).sort();
  const failed = named(outcomes.filter(({ hasPassed }) => !hasPassed));
  const skipped = outcomes.filter(({ isSkipped }) => isSkipped).length;
  step(`${outcomes.length} ran, ${failed.length} failed, ${skipped} of the others skipped`);
  const known = KNOWN_FAILURES.filter((test) => tests.includes(test)).sort();
  if (failed.join() !== known.join()) console.log(stdout, stderr);
  assert.deepEqual(named(outcomes), tests.sort());
  assert.deepEqual(failed, known);
  await unexport(device.folder);
  nothingIsLeft();
  daemon.kill('SIGTERM');
  assert.equal((await daemon.ended).code, 0);
});

/** Anyone may use it as LUN 0, at the portal that initiators expect. */
function exportDevice(folder: string): void {
  mkdirSync(ISCSI, { recursive: true });
  mkdirSync(`${GROUP}/np/127.0.0.1:3260`, { recursive: true });
  mkdirSync(`${GROUP}/lun/lun_0`);
  symlinkSync(folder, `${GROUP}/lun/lun_0/disk`);
  for (const [name, value] of Object.entries(SETTINGS)) {
    writeFileSync(`${GROUP}/attrib/${name}`, String(value));
  }
  writeFileSync(`${GROUP}/enable`, '1');
}

async function unexport(folder: string): Promise<void> {
  writeFileSync(`${GROUP}/enable`, '0');
  await unlink(`${GROUP}/lun/lun_0/disk`);
  const portal = `${GROUP}/np/127.0.0.1:3260`;
  for (const path of [`${GROUP}/lun/lun_0`, portal, GROUP, `${ISCSI}/${IQN}`, folder, HBA]) {
    await rmdir(path);
  }
}

/** Suite and name of the tests whose suite matches. */
async function testsOf(wanted: RegExp): Promise<string[]> {
  const listed = await output('iscsi-test-cu', '--list');
  const tests = listed.split('\n').flatMap((line) => /^ALL\.(\w+\..+)$/.exec(line)?.[1] ?? []);
  return tests.filter((test) => wanted.test(test));
}

/** What CUnit prints: a suite, its tests, what they say, and how they ended. */
function parse(printed: string): Outcome[] {
  const outcomes: Outcome[] = [];
  let suite = '';
  let test = '';
  let isSkipped = false;
  for (const line of printed.split('\n')) {
    suite = /^Suite: (\S+)/.exec(line)?.[1] ?? suite;
    const begun = /^ {2}Test: (\S+) \.\.\./.exec(line)?.[1];
    if (begun !== undefined) {
      test = begun;
      isSkipped = false;
    }
    isSkipped ||= line.includes('[SKIPPED]');
    const ended = /^(?: {2}Test: \S+ \.\.\.)?(passed|FAILED)/.exec(line)?.[1];
    if (ended === undefined) continue;
    const hasPassed = ended === 'passed';
    outcomes.push({ test: `${suite}.${test}`, hasPassed, isSkipped: isSkipped && hasPassed });
  }
  return outcomes;
}
