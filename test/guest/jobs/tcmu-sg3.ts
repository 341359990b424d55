import assert from 'node:assert/strict';
import { readdirSync, writeFileSync } from 'node:fs';
import { basename } from 'node:path';
import { Attached } from '../../support/attached.ts';
import { run } from '../../support/programs.ts';
import type { Scratch } from '../../support/scratch.ts';
import { job, nothingIsLeft, step } from './support.ts';

// Argument: a config.v1.json. What docs/tcmu.md promises, asked of the disk by sg3-utils: what it is, what it
// can do and how it refuses. The expectations are exit codes (sg3_utils(8)) and decoded answers.

const [config] = process.argv.slice(2);
const BLOCK = 512;
/** Eight blocks at 64 and at 128 are what the changes are made to. */
const PATTERN = Buffer.alloc(8 * BLOCK, 'replaybd');
const exit = { good: 0, notReady: 2, illegal: 5, opcode: 9, miscompare: 14, lba: 22 } as const;
/** sg_vpd of a page that is not there: 50, and EDOM. */
const PAGE_UNKNOWN = 83;

type Line = readonly [command: string, code: number, ...printed: RegExp[]];

const facts: readonly Line[] = [
  ['sg_inq DISK', exit.good, /version=0x06 {2}\[SPC-4\]/, /CmdQue=1/, /identification: LIO-ORG/],
  ['sg_inq -p 0x00 DISK', exit.good, /0x0\s.*0x80.*0x83.*0xb0.*0xb1.*0xb2/s],
  ['sg_inq -p 0x80 DISK', exit.good, /Unit serial number: [0-9a-f]{32}$/m],
  [
    ...(['sg_inq -p 0x83 DISK', exit.good] as const),
    /NAA 6, IEEE Company_id: 0x1405$/m,
    /T10 vendor identification.*vendor specific: [0-9a-f]{32}$/ms,
  ],
  [
    ...(['sg_vpd -p 0xb0 DISK', exit.good] as const),
    /\(WSNZ\): 1/,
    /compare and write length: 255 blocks/,
    /transfer length granularity: 8 blocks/,
    /Maximum transfer length: 8192 blocks/,
    /Optimal transfer length: 2048 blocks/,
    /unmap LBA count: 1048576/,
    /unmap block descriptor count: 256/,
    /unmap granularity: 8 blocks/,
    /write same length: 0x100000 blocks/,
  ],
  ['sg_vpd -p 0xb1 DISK', exit.good, /Non-rotating medium/],
  [
    ...(['sg_vpd -p 0xb2 DISK', exit.good] as const),
    /\(LBPU\): 1/,
    /\(LBPWS\): 1/,
    /\(LBPWS10\): 1/,
    /\(LBPRZ\): 1/,
    /2 \(thin provisioned\)/,
  ],
  ['sg_vpd -p 0xb3 DISK', PAGE_UNKNOWN],
  ['sg_readcap DISK', exit.good, /Last LBA=131071 .*block length=512 bytes/s],
  ['sg_readcap --long DISK', exit.good, /lbpme=1, lbprz=1/, /physical block length=4096 bytes/],
  ['sg_modes -a DISK', exit.good, /WP=0, DpoFua=1/, /^ 00 {5}01 0a/m, /^ 00 {5}08 12 04/m],
  ['sg_modes -6 -p 0x0a DISK', exit.good, /^ 00 {5}0a 0a 00 10/m],
  ['sg_modes -p 0x1c DISK', exit.illegal, /invalid field in cdb/],
  ['sg_opcodes -o 0x93 DISK', exit.good, /Usage data: 93 09 (ff ){12}00 00/],
  ['sg_opcodes -o 0x9e -s 0x12 DISK', exit.good, /Get LBA status\(16\).*is supported/s],
  ['sg_opcodes -o 0x48 DISK', exit.good, /NOT supported/],
  ['sg_opcodes --rctd DISK', exit.good, /Nominal/, /^ 89 +16 .*Compare and write/m],
  ['sg_luns DISK', exit.good, /1 lun entry.*0000000000000000/s],
  ['sg_turs DISK', exit.good],
  ['sg_requests DISK', exit.good, /No Sense/],
  ['sg_prevent --prevent 1 DISK', exit.good],
  ['sg_prevent --allow DISK', exit.good],
  ['sg_prevent --prevent 3 DISK', exit.illegal],
  // The kernel's, not ours.
  ['sg_persist -k DISK', exit.good, /NO registered reservation keys/],
];

const changes: readonly Line[] = [
  ['sg_dd if=PATTERN of=DISK bs=512 count=8 seek=64 oflag=fua', exit.good, /8\+0 records out/],
  ['sg_dd if=DISK of=COPY bs=512 count=8 skip=64 iflag=fua', exit.good],
  ['cmp COPY PATTERN', 0],
  ['sgp_dd if=DISK of=COPY bs=512 count=8 skip=64 thr=2', exit.good],
  ['cmp COPY PATTERN', 0],
  ['sg_verify --lba=64 --count=8 DISK', exit.good],
  ['sg_verify --16 --lba=64 --count=8 DISK', exit.good],
  ['sg_verify --lba=64 --count=8 --ebytchk=1 --ndo=4096 --in=PATTERN DISK', exit.good],
  ['sg_verify --lba=63 --count=8 --ebytchk=1 --ndo=4096 --in=PATTERN DISK', exit.miscompare],
  ['sg_verify --16 --lba=131071 --count=8 DISK', exit.lba],
  ['sg_compare_and_write --in=CHANGE --lba=64 --num=8 DISK', exit.good],
  [
    ...(['sg_compare_and_write --in=CHANGE --lba=64 --num=8 DISK', exit.miscompare] as const),
    /byte offset: 0 /,
  ],
  ['sg_compare_and_write --in=CHANGE --lba=0xffffffff --num=8 DISK', exit.lba],
  ['sg_sync DISK', exit.good],
  ['sg_sync --16 --lba=64 --count=8 DISK', exit.good],
  ['sg_sync --lba=131071 --count=8 DISK', exit.lba],
  ['sg_get_lba_status --lba=64 DISK', exit.good, /0x0{14}40 .* mapped/],
  ['sg_unmap --force --lba=64 --num=8 DISK', exit.good],
  ['sg_get_lba_status --lba=64 DISK', exit.good, /0x0{14}40 .* deallocated/],
  ['sg_dd if=DISK of=COPY bs=512 count=8 skip=64', exit.good],
  ['cmp -n 4096 COPY /dev/zero', 0],
  ['sg_unmap --force --lba=131071 --num=8 DISK', exit.lba],
  ['sg_write_same --10 --in=PATTERN --lba=128 --num=8 --xferlen=512 DISK', exit.good],
  ['sg_dd if=DISK of=COPY bs=512 count=8 skip=128', exit.good],
  ['cmp COPY PATTERN', 0],
  ['sg_write_same --16 --unmap --lba=128 --num=8 --xferlen=512 DISK', exit.good],
  ['sg_get_lba_status --lba=128 DISK', exit.good, /0x0{14}80 .* deallocated/],
  ['sg_write_same --16 --ndob --lba=136 --num=8 DISK', exit.good],
  ['sg_write_same --16 --lba=128 --num=0 --xferlen=512 DISK', exit.illegal],
];

const states: readonly Line[] = [
  ['sg_start --stop DISK', exit.good],
  ['sg_turs DISK', exit.notReady],
  ['sg_requests DISK', exit.good, /Not Ready/, /initializing command required/],
  ['sg_dd if=DISK of=COPY bs=512 count=8', exit.notReady],
  ['sg_start --start DISK', exit.good],
  ['sg_turs DISK', exit.good],
  ['sg_start --eject DISK', exit.illegal],
  ['sg_raw -r 512 DISK 28 80 00 00 00 00 00 00 01 00', exit.illegal, /Error in Command: byte 1$/m],
  ['sg_wr_mode -p 0x0a -c 0a,0a,04,10,0,0,0,0,ff,ff,0,0 DISK', exit.good],
  ['sg_raw -r 512 DISK 28 80 00 00 00 00 00 00 01 00', exit.illegal, /^Descriptor format/m],
  ...['00', '04'].map((cache): [string, number] => {
    return [`sg_wr_mode -p 8 -c 08,12,${cache}${',00'.repeat(17)} DISK`, exit.good];
  }),
  // The medium and the rest of the control page cannot be changed.
  ['sg_wr_mode -p 0x0a -c 0a,0a,04,00,0,0,0,0,ff,ff,0,0 DISK', exit.illegal],
  ['sg_sanitize --quick --zero --block DISK', exit.opcode],
  ['sg_format --format -Q DISK', exit.opcode],
  ['sg_logs DISK', exit.opcode],
];

const readOnly: readonly Line[] = [
  ['sg_modes -6 -p 8 DISK', exit.good, /WP=1/],
  ['sg_vpd -p 0xb2 DISK', exit.good, /\(LBPU\): 0/, /\(LBPRZ\): 1/],
  ['sg_vpd -p 0xb0 DISK', exit.good, /unmap LBA count: 0/],
  ['sg_raw -s 512 -i PATTERN DISK 2a 00 00 00 00 00 00 00 01 00', 7, /Data Protect/i],
  ['sg_raw DISK 42 00 00 00 00 00 00 00 00 00', 7, /Write protected/i],
];

await job(async (scratch) => {
  writeFileSync(scratch.path('pattern'), PATTERN);
  const other = Buffer.alloc(PATTERN.length, 'other');
  writeFileSync(scratch.path('change'), Buffer.concat([PATTERN, other]));
  const upper = ['--upper', scratch.path('upper')];
  for (const [flags, lines] of [
    [upper, [...facts, ...changes, ...states]],
    [[], readOnly],
  ] as const) {
    const common = [config, '--frontend', 'tcmu', '--id', 'sg', '--mode', 'off', '--cache', 'none'];
    const attached = await Attached.start(scratch, [...common, ...flags]);
    const generic = `/sys/block/${basename(attached.ready.path)}/device/scsi_generic`;
    const disk = `/dev/${readdirSync(generic)[0]}`;
    step(`${lines.length} commands`);
    const wrong = await ask(scratch, disk, lines);
    if (wrong.length > 0) assert.fail(wrong.join('\n'));
    await attached.detach();
    nothingIsLeft();
  }
});

/** Runs all of them, and says which ones were not answered as expected. */
async function ask(scratch: Scratch, disk: string, lines: readonly Line[]): Promise<string[]> {
  const names = { DISK: disk, PATTERN: 'pattern', CHANGE: 'change', COPY: 'copy' };
  const wrong: string[] = [];
  for (const [line, expected, ...printed] of lines) {
    const words = Object.entries(names).reduce((text, [name, file]) => {
      return text.replaceAll(name, file.startsWith('/') ? file : scratch.path(file));
    }, line);
    const [program = '', ...args] = words.split(' ');
    const { code, stdout, stderr } = await run(program, ...args);
    const missing = printed.filter((pattern) => !pattern.test(stdout + stderr));
    if (code === expected && missing.length === 0) continue;
    wrong.push(`${line}: exit code ${code}, expected ${expected}; lacks ${missing.join(' ')}`);
    wrong.push(stdout, stderr);
  }
  return wrong;
}
